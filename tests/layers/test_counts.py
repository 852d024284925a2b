"""Numbers of weights: the published ones, and ours."""

from __future__ import annotations

import pytest

from maskx_tf.config.model import ModelConfig
from maskx_tf.layers.mask_head import TransferredMaskHead
from maskx_tf.layers.mask_parts import MaskTrunk, MLPBranch
from maskx_tf.layers.resnet import ResNet
from maskx_tf.layers.transfer import Transfer
from maskx_tf.models.build import build
from tests.layers.counting import record_weights, total

# torchvision's published classifiers, less their last layer of 2048 x 1000 weights and 1000 biases.
CLASSIFIER = 2048 * 1000 + 1000
BACKBONES = {
    "resnet50": 25_557_032 - CLASSIFIER,
    "resnet101": 44_549_160 - CLASSIFIER,
    "resnet152": 60_192_808 - CLASSIFIER,
    "resnext101_32x8d": 88_791_336 - CLASSIFIER,
    "resnext101_64x4d": 83_455_272 - CLASSIFIER,
}
# Scales and offsets of ResNet-50's batch norms: 26,560 channels.
CHANNELS = 26_560


@pytest.mark.parametrize("variant", BACKBONES)
def test_backbones(variant, monkeypatch) -> None:
    weights = record_weights(monkeypatch)
    ResNet(variant).build((None, 224, 224, 3))
    assert total(weights, "kernel", "gamma", "beta") == BACKBONES[variant]
    assert total(weights, "mean", "variance") == total(weights, "gamma", "beta")
    assert sum(weight.size for weight in weights if weight.trainable) == total(weights, "kernel")


@pytest.mark.parametrize(
    ("layers", "inputs", "expected"),
    [
        (2, 5120, 1_376_768),  # cls+box, spec/maskx.md, section 2
        (1, 5120, 5120 * 256 + 256),
        (2, 1024, 1024 * 256 + 256 + 256 * 256 + 256),
        (2, 4096, 4096 * 256 + 256 + 256 * 256 + 256),
        (3, 5120, 5120 * 256 + 256 + 2 * (256 * 256 + 256)),
        (2, 300, 300 * 256 + 256 + 256 * 256 + 256),
    ],
)
def test_transfer(layers, inputs, expected, monkeypatch) -> None:
    weights = record_weights(monkeypatch)
    Transfer(layers=layers).build((None, inputs))
    assert total(weights) == expected


def test_mlp_branches(monkeypatch) -> None:
    """The reference's one layer of 200,704 x 784 (spec/maskx.md, section 3), and what "a thirtieth" of it is."""
    small, large = (None, None, 14, 14, 256), (None, None, 28, 28, 256)
    weights = record_weights(monkeypatch)
    MLPBranch("reference").build((small, large))
    assert total(weights) == 200_704 * 784 + 784 == 157_352_720
    weights.clear()
    MLPBranch("lean").build((small, large))
    assert total(weights) == 256 * 32 + 32 + 14 * 14 * 32 * 784 + 784 == 4_926_256


def test_mask_trunk(monkeypatch) -> None:
    weights = record_weights(monkeypatch)
    TransferredMaskHead(MaskTrunk()).build((None, None, 14, 14, 256))
    assert total(weights) == 4 * (9 * 256 * 256 + 256) + 4 * 256 * 256 + 256


def torchvision_sized(**sections) -> ModelConfig:
    return ModelConfig(**{"class_names": tuple(f"class {index}" for index in range(1, 91)), **sections})


def test_torchvisions_mask_rcnn(monkeypatch) -> None:
    """R50-FPN with 91 classes: 44,401,393 published, batch norm not counted, since torchvision freezes it."""
    weights = record_weights(monkeypatch)
    build(torchvision_sized(family="mask_rcnn"))
    published = 44_401_393
    # torchvision has rows for the background's box (4 of 1024 weights and a bias) and mask (256 and a bias).
    background = 4 * (1024 + 1) + (256 + 1)
    # We count the four vectors of each frozen batch norm.
    frozen = 4 * CHANNELS
    assert total(weights, "gamma", "beta", "mean", "variance") == frozen
    assert total(weights) == published - background + frozen == 44_503_276
    # Stem and res2 do not learn: their kernels, and the frozen batch norms.
    stem = 7 * 7 * 3 * 64
    res2 = (64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256) + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    assert sum(weight.size for weight in weights if weight.trainable) == published - background - stem - res2


def test_what_mask_x_adds(monkeypatch) -> None:
    """T in the place of 90 filters with a bias each."""
    weights = record_weights(monkeypatch)
    build(torchvision_sized(family="mask_rcnn"))
    before = total(weights)
    weights.clear()
    build(torchvision_sized(family="mask_x_rcnn"))
    assert total(weights) == before - 90 * (256 + 1) + 1_376_768
    weights.clear()
    build(torchvision_sized(family="mask_x_rcnn", mask={"mlp_branch": "reference"}))
    assert total(weights) == before - 90 * (256 + 1) + 1_376_768 + 157_352_720
    weights.clear()
    build(torchvision_sized(family="faster_rcnn"))
    trunk = 4 * (9 * 256 * 256 + 256) + 4 * 256 * 256 + 256
    assert total(weights) == before - 90 * (256 + 1) - trunk
