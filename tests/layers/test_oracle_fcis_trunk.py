"""The network of FCIS below its regions, against the reference's own definition run by MXNet."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from maskx_tf.config import ModelConfig
from maskx_tf.importers.mxnet import names as mxnet_names
from maskx_tf.importers.tables import resnet_blocks
from maskx_tf.layers.position import PositionMaps, PositionNeck
from maskx_tf.layers.resnet import VARIANTS, ResNet
from maskx_tf.layers.rpn import RPNHead
from tests.fcis_oracle import each_file_with
from tests.oracle import inputs, meta, outputs, weights

GROUP = 7


def depth_of(labels: dict[int, list[str]]) -> str:
    """The ResNet with so many blocks in its stages."""
    blocks = tuple(len(labels[stage]) for stage in (2, 3, 4, 5))
    return next(name for name, variant in VARIANTS.items() if variant.blocks == blocks and variant.groups == 1)


def set_weights(layer: keras.layers.Layer, weight: np.ndarray, bias: np.ndarray) -> None:
    layer.kernel.assign(weight.transpose(2, 3, 1, 0))
    layer.bias.assign(bias)


@each_file_with("rpn_cls_score")
def test_oracle_fcis_trunk(file) -> None:
    """Outputs, and the norm of the gradient towards every tensor, of a loss that reads all of them."""
    given, stored, facts, tensors = inputs(file), outputs(file), meta(file), weights(file)
    labels = mxnet_names.block_labels(tensors)
    variant, epsilon = depth_of(labels), float(facts["bn_eps"])
    data = tf.constant(given["data"].transpose(0, 2, 3, 1))
    backbone = ResNet(
        variant, dilate_last=True, stride_in_1x1=True, stem_pool="ceil", norm="fixed_batch", epsilon=epsilon
    )
    backbone.build(data.shape)
    neck, rpn = PositionNeck(len(tensors["conv_new_1_weight"])), RPNHead(int(facts["anchors"]), channels=512, pair=True)
    maps = PositionMaps(2 * int(facts["classes"]), group=GROUP, deltas=8)
    neck.build([(None, None, None, channels) for channels in backbone.channels])
    rpn.build([(None, None, None, backbone.channels[-2])])
    maps.build((None, None, None, neck.channels))
    found: dict[str, keras.Variable] = {}
    of_path = {variable.path.partition("/")[2]: variable for variable in backbone.weights}
    config = ModelConfig.model_validate({"class_names": ["a"], "backbone": {"name": variant}})
    for block in resnet_blocks(config):
        conv, norm = mxnet_names.conv_and_norm(block, labels)
        home = block.variable.partition("/")[2]
        found[f"{conv}_weight"] = of_path[f"{home}/kernel"]
        of_path[f"{home}/kernel"].assign(tensors[f"{conv}_weight"].transpose(2, 3, 1, 0))
        for ours, theirs in zip(("gamma", "beta", "mean", "variance"), mxnet_names.STATISTICS, strict=True):
            of_path[f"{home}/{ours}"].assign(tensors[f"{norm}_{theirs}"])
            found[f"{norm}_{theirs}"] = of_path[f"{home}/{ours}"]
    heads = {
        "conv_new_1": neck.conv,
        "rpn_conv_3x3": rpn.conv,
        "rpn_cls_score": rpn.objectness,
        "rpn_bbox_pred": rpn.deltas,
        "fcis_cls_seg": maps.scores,
        "fcis_bbox": maps.deltas,
    }
    for name, layer in heads.items():
        # The channels keep the reference's order here: it is the convolutions that are compared.
        set_weights(layer, tensors[f"{name}_weight"], tensors[f"{name}_bias"])
        found |= {f"{name}_weight": layer.kernel, f"{name}_bias": layer.bias}
    with tf.GradientTape() as tape:
        tape.watch(data)
        features = backbone(data)
        levels = neck(features)
        hidden = rpn.conv(levels[0])
        scores, deltas = maps(levels[1])
        ours = {
            "conv4": levels[0],
            "conv5": features[-1],
            "relu_new_1": levels[1],
            "rpn_cls_score": rpn.objectness(hidden),
            "rpn_bbox_pred": rpn.deltas(hidden),
            "fcis_cls_seg": scores,
            "fcis_bbox": deltas,
        }
        loss = tf.add_n(
            [tf.reduce_sum(value * given[f"gradient/{name}"].transpose(0, 2, 3, 1)) for name, value in ours.items()]
        )
    for key, expected in stored.items():
        name, _, every = key.partition("_every")
        if key.startswith("grad_l2/"):
            continue
        step = int(every.removesuffix("th_channel")) if every else 1
        result = ours[name].numpy().transpose(0, 3, 1, 2)[:, ::step]
        np.testing.assert_allclose(result, expected, atol=1e-3 * np.abs(expected).max(), err_msg=name)
    wanted = {key.removeprefix("grad_l2/"): value for key, value in stored.items() if key.startswith("grad_l2/")}
    learning = {name: variable for name, variable in found.items() if name in wanted}
    assert set(learning) == set(wanted) - {"data"}
    gradients = tape.gradient(loss, [data, *(variable.value for variable in learning.values())])
    for name, gradient in zip(("data", *learning), gradients, strict=True):
        norm = float(tf.norm(tf.cast(gradient, tf.float64)))
        np.testing.assert_allclose(norm, wanted[name], rtol=0.01, err_msg=name)
