"""Keypoints against torchvision's: targets, decoding and the head by themselves, without a trunk's noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from maskx_tf.layers.keypoint_head import KeypointHead
from maskx_tf.ops import keypoints as keypoint_ops
from tests.oracle import each_file, inputs, meta, outputs, seeded, weights

FILES = each_file("*keypoint_rcnn*.npz")


@FILES
def test_oracle_keypoint_targets(file: Path) -> None:
    stored, logits = outputs(file), outputs(file)["head/keypoint_logits"]
    for boxes, points, cells, valid in (
        [stored[f"encode/{name}"] for name in ("rois", "keypoints", "targets", "valid")],
        [
            stored["train/keypoint_rois"],
            stored["train/gt_keypoints"][stored["train/keypoint_matched_idxs"]],
            stored["train/keypoint_targets"],
            stored["train/keypoint_valid"],
        ],
    ):
        ours = keypoint_ops.keypoint_targets(points[None], boxes[None], size=logits.shape[-1])
        np.testing.assert_array_equal(ours[1][0], valid > 0)
        np.testing.assert_array_equal(ours[0][0], np.where(valid > 0, cells, 0))
        assert 0 < valid.mean() < 1


def oracle_maps(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The heat maps [N, P, S, S] that the oracle decoded, and their boxes."""
    stored = outputs(file)
    return seeded(file, "decode/maps", tuple(int(side) for side in stored["decode/maps_shape"])), stored["decode/rois"]


@FILES
def test_oracle_keypoint_decoding(file: Path) -> None:
    stored = outputs(file)
    maps, boxes = oracle_maps(file)
    canvas = tuple(int(np.ceil((boxes[:, 2 + axis] - boxes[:, axis]).max())) for axis in (1, 0))
    for portable in (False, True):
        points, scores = keypoint_ops.decode_keypoints(
            tf.constant(maps[None]), tf.constant(boxes[None]), canvas=canvas, portable=portable
        )
        np.testing.assert_allclose(points[0], stored["decode/keypoints"][..., :2], atol=1e-3)
        np.testing.assert_allclose(scores[0], stored["decode/scores"], rtol=1e-4)


@FILES
def test_oracle_keypoint_bicubic(file: Path) -> None:
    name = next(name for name in outputs(file) if name.startswith("decode/bicubic_of_map"))
    words = name.split("_")  # bicubic_of_map_M_channel_C_to_HxW
    height, width = (int(side) for side in words[-1].split("x"))
    cells = oracle_maps(file)[0][int(words[3]), int(words[5])]
    rows, columns = (
        keypoint_ops.cubic_weights(len(cells), tf.constant(side), side).numpy() for side in (height, width)
    )
    np.testing.assert_allclose(rows @ cells @ columns.T, outputs(file)[name], atol=1e-5 * np.abs(cells).max())


@FILES
def test_oracle_keypoint_head(file: Path) -> None:
    theirs, pooled = weights(file), inputs(file)["head/roi14"].transpose(0, 2, 3, 1)
    convs = [name for name in theirs if name.startswith("roi_heads.keypoint_head.") and name.endswith(".weight")]
    deconv = "roi_heads.keypoint_predictor.kps_score_lowres"
    channels, count = theirs[f"{deconv}.weight"].shape[:2]
    head = KeypointHead(count, channels=channels, convs=len(convs))
    head.build((None, None, *pooled.shape[1:]))
    for conv, name in zip(head.convs, convs, strict=True):
        conv.kernel.assign(theirs[name].transpose(2, 3, 1, 0))
        conv.bias.assign(theirs[name.replace("weight", "bias")])
    head.deconv_kernel.assign(theirs[f"{deconv}.weight"].transpose(2, 3, 1, 0))
    head.deconv_bias.assign(theirs[f"{deconv}.bias"])
    expected = outputs(file)["head/keypoint_logits"]
    found = head(pooled[None])[0].numpy()[:, meta(file)["logit_channels"]]
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
