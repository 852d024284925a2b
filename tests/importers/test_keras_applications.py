"""Backbones of keras.applications: Keras' own files in, Keras' own features out."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import keras
import numpy as np
import pytest

from maskx_tf.checkpoints.variables import named
from maskx_tf.errors import BadInput
from maskx_tf.importers.keras_applications import KERAS_FOLDED, _network, _tensors
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import convert
from maskx_tf.layers.applications import NETWORKS

SMALL = ("model.backbone.fpn_channels=5", "model.box.width=6", "model.family=faster_rcnn")
SIDE = 64


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("cat\n\ndog \n", encoding="utf-8")
    return tmp_path / "names.txt"


@functools.cache
def network(make: Any, top: bool = False) -> keras.Model:
    """A network whose every variable has numbers of its own."""
    model: keras.Model = make(weights=None, include_top=top, input_shape=(224, 224, 3) if top else (SIDE, SIDE, 3))
    generator = np.random.default_rng(0)
    for variable in model.variables:
        values = generator.standard_normal(variable.shape, np.float32)
        if len(variable.shape) > 1:
            values *= np.prod(variable.shape[:-1]) ** -0.5
        variable.assign(
            np.abs(values) + 0.5 if "variance" in variable.path or "gamma" in variable.path else 0.1 * values
        )
    return model


def outputs(model: keras.Model, name: str) -> list[np.ndarray]:
    """What the network's stages make of a picture of noise."""
    taps = keras.Model(model.inputs[0], [model.get_layer(tap).output for tap in NETWORKS[name].taps])
    return [np.asarray(output) for output in taps(picture())]


def picture() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, SIDE, SIDE, 3)).astype(np.float32)


def test_resnet_becomes_ours(names: Path, tmp_path: Path) -> None:
    source = network(keras.applications.ResNet50)
    source.save_weights(tmp_path / "resnet.weights.h5")
    imported = convert("keras", ImportRequest(tmp_path / "resnet.weights.h5", SMALL, classes=names))
    settings = imported.config.model.backbone
    assert (settings.name, settings.stride_in_1x1, settings.norm_epsilon) == ("resnet50", True, 1.001e-5)
    assert imported.config.model.input.channel_order == "bgr"
    assert imported.config.model.class_names == ("cat", "dog")
    for ours, theirs in zip(imported.model.backbone(picture()), outputs(source, "keras_resnet50"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    assert len(imported.meta["skipped"][KERAS_FOLDED]) == 53
    heads = {name for name in named(imported.model) if not name.startswith("backbone/")}
    assert set(imported.meta["fresh"]) == heads


def write_legacy(model: keras.Model, path: Path) -> None:
    """The form of the files that Keras downloads."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            for weight in layer.weights:
                group.create_dataset(f"{layer.name}/{weight.name}:0", data=weight.numpy())


# By default, test_resnet_becomes_ours reads the new form.
@pytest.mark.parametrize("form", [pytest.param("new", marks=pytest.mark.slow), "legacy"])
def test_mobilenet_with_its_classifier(form: str, names: Path, tmp_path: Path) -> None:
    source = network(keras.applications.MobileNetV2, top=True)
    path = tmp_path / ("a.weights.h5" if form == "new" else "a.h5")
    if form == "new":
        source.save_weights(path)
    else:
        write_legacy(source, path)
    imported = convert("keras", ImportRequest(path, SMALL, classes=names))
    assert imported.config.model.backbone.name == "mobilenet_v2"
    assert imported.config.model.input.pixel_mean == (127.5, 127.5, 127.5)
    assert imported.meta["skipped"] == {"the ImageNet classifier": ["predictions/bias", "predictions/kernel"]}
    variables = named(imported.model)
    for variable in source.variables:
        if not variable.path.startswith("predictions"):
            np.testing.assert_array_equal(variables[variable.path].numpy(), variable.numpy())


def test_which_network(tmp_path: Path) -> None:
    """By shapes alone, in a file of a few bytes: ResNet101 has 104 convolutions."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for index in range(104):
            file.create_dataset(f"{index}/kernel", shape=(1, 1, 1, 1))
    assert _network(tmp_path / "a.h5") == ("keras_resnet101", False)


def test_wrong_files(names: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(BadInput, match="a backbone knows no classes to detect, expected --classes FILE"):
        convert("keras", ImportRequest(path))
    with pytest.raises(BadInput, match=r"a\.h5: no such file"):
        convert("keras", ImportRequest(path, classes=names))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(BadInput, match=r"a\.h5: expected a Keras file of weights \(HDF5\): "):
        convert("keras", ImportRequest(path, classes=names))
    with h5py.File(path, "w") as file:
        for index in range(52):
            file.create_dataset(f"{index}/kernel", shape=(1, 1, 1, 1))
    with pytest.raises(BadInput, match=r"a\.h5: not the weights of mobilenet_v2: "):
        convert("keras", ImportRequest(path, classes=names))
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", shape=(1, 1, 1, 1))
    with pytest.raises(BadInput, match=r"a\.h5: has 1 kernels of convolutions, expected 53 \(keras_resnet50\)"):
        convert("keras", ImportRequest(path, classes=names))


def test_only_warnings_of_keras_refuse_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in (DeprecationWarning, UserWarning):
        model = Mock(variables=[], load_weights=lambda _, kind=kind: warnings.warn("a layer", kind, stacklevel=1))
        monkeypatch.setitem(NETWORKS, "mobilenet_v2", Mock(make=lambda model=model, **_: model))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tests make errors of all
            if kind is DeprecationWarning:
                assert _tensors(tmp_path, "mobilenet_v2", classifier=False) == {}
            else:
                with pytest.raises(BadInput, match="not the weights of mobilenet_v2: a layer"):
                    _tensors(tmp_path, "mobilenet_v2", classifier=False)


def test_files_are_refused_by_their_headers(names: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for shape, kind, problem in (
        ((1000, 1000, 100, 100), "f4", r"expected weights, found a file of \d+ bytes that unpacks to 40000000204"),
        ((1, 1, 1, 1), "i4", "expected a Keras file of weights \\(HDF5\\): 51/kernel: expected floating point numbers"),
    ):
        with h5py.File(path, "w") as file:
            for index in range(51):
                file.create_dataset(f"{index}/kernel", shape=(1, 1, 1, 1))
            file.create_dataset("51/kernel", shape=shape, dtype=kind, chunks=(1, 1, 1, 1))
        with pytest.raises(BadInput, match=rf"a\.h5: {problem}"):
            convert("keras", ImportRequest(path, classes=names))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput, match=r"a\.h5: .*: not a regular file"):
        convert("keras", ImportRequest(path, classes=names))
