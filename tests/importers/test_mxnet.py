"""MXNet's files, written here byte by byte: every form, what becomes of FCIS and R-FCN, and what is refused."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest

from maskx_tf.checkpoints.variables import named
from maskx_tf.errors import BadInput
from maskx_tf.importers.mxnet.params import read_params
from maskx_tf.importers.plan import ImportRequest
from maskx_tf.importers.run import convert
from maskx_tf.names import VOC

KINDS = {np.dtype("f4"): 0, np.dtype("f8"): 1, np.dtype("f2"): 2, np.dtype("u1"): 3, np.dtype("i4"): 4}
MAGIC = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}
CANVAS = ("model.input.canvas=[64, 64]", "model.input.short_side=64", "model.input.long_side=64")


def array_bytes(array: np.ndarray, version: int) -> bytes:
    """One array: version 0 is the oldest form."""
    head = struct.pack("<I", array.ndim)
    if version:
        head = struct.pack("<I", MAGIC[version]) + (struct.pack("<i", 0) if version >= 2 else b"") + head
    sizes = struct.pack(f"<{array.ndim}{'q' if version else 'I'}", *array.shape)
    return head + sizes + struct.pack("<iii", 1, 0, KINDS[array.dtype]) + array.tobytes()


def params(arrays: dict[str, np.ndarray], version: int = 1) -> bytes:
    """A list of named arrays."""
    every = b"".join(array_bytes(array, version) for array in arrays.values())
    texts = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)
    return struct.pack("<QQQ", 0x112, 0, len(arrays)) + every + struct.pack("<Q", len(arrays)) + texts


def resnet50(numbers: np.random.Generator) -> dict[str, np.ndarray]:
    """The tensors of ResNet-50 under the names of the program."""
    found: dict[str, np.ndarray] = {}

    def add(conv: str, norm: str, filters: int, channels: int, size: int = 1) -> None:
        scale = (channels * size * size) ** -0.5
        found[f"arg:{conv}_weight"] = numbers.normal(0, scale, (filters, channels, size, size)).astype(np.float32)
        for name, kind in (("gamma", "arg"), ("beta", "arg"), ("moving_mean", "aux"), ("moving_var", "aux")):
            found[f"{kind}:{norm}_{name}"] = numbers.uniform(0.5, 1, filters).astype(np.float32)

    add("conv1", "bn_conv1", 64, 3, 7)
    channels = 64
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        width = 2 ** (stage + 4)
        for label in "abcdef"[:count]:
            block = f"{stage}{label}_branch"
            if label == "a":
                add(f"res{block}1", f"bn{block}1", 4 * width, channels)
            add(f"res{block}2a", f"bn{block}2a", width, channels)
            add(f"res{block}2b", f"bn{block}2b", width, width, 3)
            add(f"res{block}2c", f"bn{block}2c", 4 * width, width)
            channels = 4 * width
    return found


def heads(numbers: np.random.Generator, scores: str, boxes: str, parts: int, classes: int) -> dict[str, np.ndarray]:
    """The layers above it, narrow ones."""
    shapes = {
        "conv_new_1": (8, 2048, 1, 1),
        "rpn_conv_3x3": (6, 1024, 3, 3),
        "rpn_cls_score": (18, 6, 1, 1),
        "rpn_bbox_pred": (36, 6, 1, 1),
        scores: (49 * parts * (classes + 1), 8, 1, 1),
        boxes: (49 * 8, 8, 1, 1),
        f"{boxes}_test": (49 * 8, 8, 1, 1),
    }
    found = {}
    for name, shape in shapes.items():
        stem = name.removesuffix("_test")
        end = "_test" if name.endswith("_test") else ""
        found[f"arg:{stem}_weight{end}"] = numbers.normal(0, 0.1, shape).astype(np.float32)
        found[f"arg:{stem}_bias{end}"] = numbers.normal(0, 0.1, shape[0]).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def trunk() -> dict[str, np.ndarray]:
    return resnet50(np.random.default_rng(1))


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_every_form_is_read(version, tmp_path) -> None:
    arrays = {
        "arg:a_weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "aux:b": np.arange(3, dtype=np.float64),
        "c": np.arange(4, dtype=np.float16),
        "d": np.arange(5, dtype=np.uint8),
        "e": np.arange(2, dtype=np.int32),
    }
    path = tmp_path / "a.params"
    path.write_bytes(params(arrays, version))
    found = read_params(path)
    assert list(found) == ["a_weight", "b", "c", "d", "e"]
    for array, expected in zip(found.values(), arrays.values(), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_damage_is_one_line(tmp_path) -> None:
    good = params({"arg:a": np.ones([2, 3], np.float32)}, 2)
    path = tmp_path / "a.params"
    cases = [
        (b"", "expected 8 bytes more, found 0"),
        (b"PK" + good[2:], "expected a .params file of MXNet"),
        (good[:-1], "bytes more, found"),
        (good + b"x", "expected an end after the names, found 1 bytes more"),
        (struct.pack("<QQQ", 0x112, 0, 2**60), "expected at most 100000 arrays"),
        (good.replace(struct.pack("<q", 3), struct.pack("<q", 2**50)), "bytes more, found"),
        (good.replace(struct.pack("<q", 3), struct.pack("<q", -3)), "sizes of at least 0"),
        (good[:28] + struct.pack("<i", 1) + good[32:], "expected dense arrays"),
        (params({"arg:a": np.ones(1, np.float32), "aux:a": np.ones(1, np.float32)}), "expected no name twice"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(BadInput, match=message) as error:
            read_params(path)
        assert "\n" not in str(error.value)


def test_any_byte_may_be_wrong(tmp_path) -> None:
    """A changed byte gives arrays or one line, and never takes more memory than the file has."""
    good = bytearray(params({"arg:a": np.ones([2, 3], np.float32), "b": np.zeros(4, np.float32)}, 2))
    path, random = tmp_path / "a.params", np.random.default_rng(4)
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(BadInput):
            assert sum(array.nbytes for array in read_params(path).values()) <= len(good)


def test_fcis(trunk, tmp_path) -> None:
    """Every tensor finds its place; the channels of maps are sorted by cell, and the background's boxes left out."""
    tensors = trunk | heads(np.random.default_rng(2), "fcis_cls_seg", "fcis_bbox", 2, 20)
    path = tmp_path / "fcis.params"
    path.write_bytes(params(tensors))
    imported = convert("mxnet", ImportRequest(path, CANVAS))
    model, settings = imported.model, imported.config.model
    assert settings.class_names == VOC
    assert settings.backbone.name == "resnet50"
    assert settings.anchors.sizes == ((128.0, 256.0, 512.0),)
    assert settings.fcis.scores == "joint"
    variables = named(model)
    np.testing.assert_array_equal(
        variables["backbone/res4/block3/conv2/kernel"], tensors["arg:res4d_branch2b_weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(variables["backbone/stem/variance"], tensors["aux:bn_conv1_moving_var"])
    bias, row, column, number, inside = tensors["arg:fcis_cls_seg_bias"], 2, 5, 7, 1
    theirs = (2 * number + inside) * 49 + row * 7 + column
    ours = ((row * 7 + column) * 2 + inside) * 21 + number
    assert variables["maps/scores/bias"][ours] == bias[theirs]
    np.testing.assert_array_equal(
        variables["maps/scores/kernel"][0, 0, :, ours], tensors["arg:fcis_cls_seg_weight"][theirs, :, 0, 0]
    )
    delta = 3
    assert (
        variables["maps/deltas/bias"][(row * 7 + column) * 4 + delta]
        == (tensors["arg:fcis_bbox_bias"][(4 + delta) * 49 + row * 7 + column])
    )
    (reason,) = [reason for reason, names in imported.meta["skipped"].items() if "fcis_bbox_weight_test" in names]
    assert "in pixels" in reason
    assert any("background" in reason for reason in imported.meta["skipped"])


def test_rfcn(trunk, tmp_path) -> None:
    tensors = trunk | heads(np.random.default_rng(2), "rfcn_cls", "rfcn_bbox", 1, 3)
    path = tmp_path / "rfcn.params"
    path.write_bytes(params(tensors))
    imported = convert("mxnet", ImportRequest(path, CANVAS))
    assert imported.model.outputs == {"boxes"}
    assert imported.config.model.box.delta_weights == (10.0, 10.0, 5.0, 5.0)
    ours, theirs = (3 * 7 + 4) * 4 + 2, 2 * 49 + 3 * 7 + 4
    assert named(imported.model)["maps/scores/bias"][ours] == tensors["arg:rfcn_cls_bias"][theirs]


def test_other_models_are_refused(trunk, tmp_path) -> None:
    path = tmp_path / "a.params"
    for extra, message in (
        ({"arg:res5a_branch2b_offset_weight": np.ones([1, 1, 1, 1], np.float32)}, "a deformable network"),
        ({"arg:cls_score_weight": np.ones([1, 1], np.float32)}, "fully connected heads"),
        ({}, "expected a tensor rfcn_cls_weight"),
        ({"arg:rfcn_cls_weight": np.ones([50, 8, 1, 1], np.float32)}, "expected a tensor rfcn_bbox_weight"),
    ):
        path.write_bytes(params(trunk | extra))
        with pytest.raises(BadInput, match=message):
            convert("mxnet", ImportRequest(path, CANVAS))
