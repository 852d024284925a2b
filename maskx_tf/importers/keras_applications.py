"""ImageNet weights of keras.applications, ResNet50, ResNet101 and MobileNetV2: backbones for training to start from."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]  # no stubs; Keras brings it
import keras

from maskx_tf.checkpoints import npz
from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json, open_regular
from maskx_tf.importers import labels as label_names
from maskx_tf.importers.fill import UNCHANGED, Assignment, Rule, VariableTable
from maskx_tf.importers.plan import ImportRequest, Plan, Tensors
from maskx_tf.importers.tables import Block, norm_names, resnet_blocks
from maskx_tf.layers.applications import NETWORKS

KERAS_RULES = (Rule(r"(probs|predictions)/.*", "the ImageNet classifier"),)
KERAS_FOLDED = "biases of convolutions: taken from the means of the batch norm behind them"
# Networks by the number of their kernels with four dimensions.
KERNELS = {53: "keras_resnet50", 104: "keras_resnet101", 52: "mobilenet_v2"}
NOTE = "only the backbone is imported: the pyramid and the heads keep their random start, for training"


def plan(request: ImportRequest) -> Plan:
    """How a file of Keras' becomes the backbone of a model.

    Raises:
        BadInput: it is damaged, or none of the supported networks.
    """
    path = request.path
    if request.classes is None:
        raise BadInput(f"{path}: a backbone knows no classes to detect, expected --classes FILE")
    network, classifier = _network(path)
    tensors = _tensors(path, network, classifier)
    folded = _fold_biases(tensors)
    return Plan(
        settings=_settings(network),
        labels=label_names.read(request.classes),
        tensors=tensors,
        table=_table,
        rules=KERAS_RULES,
        settled={KERAS_FOLDED: folded} if folded else {},
        may_stay=("fpn/", "rpn/", "box_head/", "box_predictor/", "mask_head/", "transfer/", "neck/", "maps/"),
        notes=(NOTE,),
    )


def _settings(network: str) -> Json:
    if network == "mobilenet_v2":
        pixels: Json = {"channel_order": "rgb", "pixel_mean": [127.5] * 3, "pixel_std": [127.5] * 3}
        return {"backbone": {"name": network}, "input": pixels}
    return {
        # Our own ResNet: its batch norm is folded, its weights are named as the other sources' are.
        "backbone": {"name": network.removeprefix("keras_"), "stride_in_1x1": True, "norm_epsilon": 1.001e-5},
        "input": {"channel_order": "bgr", "pixel_mean": [103.939, 116.779, 123.68], "pixel_std": [1.0, 1.0, 1.0]},
    }


def _table(config: ModelConfig) -> VariableTable:
    if config.backbone.name not in NETWORKS:
        return _resnet_table(config)
    backbone = NETWORKS[config.backbone.name].make(weights=None, include_top=False, input_shape=(None, None, 3))
    paths = [variable.path for variable in backbone.variables]
    # The biases were folded, in case our own ResNet is the one to fill.
    biases = {path: 0.0 for path in paths if path.endswith("_conv/bias")}
    return VariableTable(tuple(Assignment(path, path, UNCHANGED) for path in paths if path not in biases), biases)


def _resnet_table(config: ModelConfig) -> VariableTable:
    """ResNet of keras.applications, its layouts ours already."""
    return VariableTable(
        tuple(
            Assignment(f"{block.variable}/{ours}", f"{_block_name(block)}_{theirs}", UNCHANGED)
            for block in resnet_blocks(config)
            for ours, theirs in zip(
                ("kernel", *norm_names(config)),
                ("conv/kernel", "bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"),
                strict=True,
            )
        )
    )


def _block_name(block: Block) -> str:
    """How the names of a convolution and its batch norm begin in keras.applications: conv2_block1_0."""
    if block.part == "stem":
        return "conv1"
    part = {"shortcut": 0, "conv1": 1, "conv2": 2, "conv3": 3}[block.part]
    return f"conv{block.stage}_block{block.number + 1}_{part}"


def _network(path: Path) -> tuple[str, bool]:
    """Returns a file's network, and whether it has the classifier, from shapes: names differ between two forms."""
    shapes: list[tuple[int, ...]] = []
    promised = 0

    def note(name: str, item: Any) -> None:
        nonlocal promised
        if isinstance(item, h5py.Dataset):
            shapes.append(tuple(item.shape))
            promised += item.size * item.dtype.itemsize
            if len(item.shape) == 4 and item.dtype.kind != "f":
                raise ValueError(f"{name}: expected floating point numbers, found {item.dtype}")

    try:
        with open_regular(path) as stream, h5py.File(stream, "r") as file:
            file.visititems(note)
            npz.refuse_expansion(path, promised, os.fstat(stream.fileno()).st_size)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: expected a Keras file of weights (HDF5): {reason(error)}") from None
    kernels = sum(len(shape) == 4 for shape in shapes)
    if kernels not in KERNELS:
        known = ", ".join(f"{count} ({name})" for count, name in KERNELS.items())
        raise BadInput(f"{path}: has {kernels} kernels of convolutions, expected {known}")
    return KERNELS[kernels], any(len(shape) == 2 for shape in shapes)


def _tensors(path: Path, network: str, classifier: bool) -> Tensors:
    """The file's tensors, read by Keras itself."""
    shape = (224, 224, 3) if classifier else (None, None, 3)
    model: keras.Model = NETWORKS[network].make(weights=None, include_top=classifier, input_shape=shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns if a layer is missing in the file
            model.load_weights(path)
    except (OSError, RuntimeError, ValueError, KeyError, UserWarning) as error:
        raise BadInput(f"{path}: not the weights of {network}: {reason(error)}") from None
    return {variable.path: variable.numpy() for variable in model.variables}


def _fold_biases(tensors: Tensors) -> list[str]:
    """Takes the biases of convolutions out of the means behind them, in place; their names."""
    folded = [name for name in tensors if name.endswith("_conv/bias")]
    for name in folded:
        mean = name.replace("_conv/bias", "_bn/moving_mean")
        tensors[mean] = tensors[mean] - tensors.pop(name)
    return folded
