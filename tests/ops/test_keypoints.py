"""Keypoints as cells of heat maps and back, against loops over single numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.ops import keypoints as keypoint_ops
from tests import reference_keypoints as reference
from tests.checks import assert_forms_agree

SIDE = 8
CANVAS = (50, 60)


def regions() -> np.ndarray:
    """Two images of six: whole numbers, halves, thin, of the map's own size, and two of padding."""
    one = [[4, 6, 30, 38], [20.5, 10.25, 52, 50], [3, 3, 3.4, 40], [8, 8, 16, 16], [0, 0, 0, 0], [5, 5, 5, 20]]
    return np.float32([one, one[::-1]])


def points() -> np.ndarray:
    """Twelve keypoints of each region: corners, edges, just beyond, inside and far off, with all labels."""
    boxes = regions()
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    middle = (low + high) / 2
    beyond = np.nextafter(high, np.float32(np.inf)), np.nextafter(low, np.float32(-np.inf))
    rng = np.random.default_rng(0)
    inside = [low + (high - low) * rng.random((2, 6, 1, 2)) for _ in range(4)]
    every = [low, high, np.stack([low[..., 0], high[..., 1]], -1), middle, *beyond, *inside, low - 40.0, high * 2.0]
    labels = np.broadcast_to(np.arange(1, 13) % 3, (2, 6, 12))[..., None]
    return np.float32(np.concatenate([np.concatenate(every, axis=2), labels], axis=-1))


def test_targets() -> None:
    cells, valid = keypoint_ops.keypoint_targets(points(), regions(), size=SIDE)
    assert (cells.dtype, valid.dtype) == (tf.int32, tf.bool)
    for index in np.ndindex(2, 6, 12):
        expected = reference.target(points()[index], regions()[index[:2]], SIDE)
        assert (int(cells[index]), bool(valid[index])) == expected, index
    assert 20 < np.sum(valid) < 80


def test_targets_of_edges() -> None:
    """The right edge is the last cell, what lies beyond it is none, and a hidden keypoint counts."""
    marked = np.float32([[10, 20, 1], [18, 36, 2], [18.001, 30, 2], [9.999, 30, 2], [11, 22, 2], [12, 22, 0]])
    cells, valid = keypoint_ops.keypoint_targets(marked[None, None], np.float32([[[10, 20, 18, 36]]]), size=SIDE)
    np.testing.assert_array_equal(cells[0, 0], [0, 63, 0, 0, 9, 0])
    np.testing.assert_array_equal(valid[0, 0], [True, True, False, False, True, False])


def test_forms_of_targets() -> None:
    assert_forms_agree(lambda *inputs: keypoint_ops.keypoint_targets(*inputs, size=SIDE), points(), regions())


@pytest.mark.parametrize("pixels", [1, 5, 8, 19, 40])
def test_cubic_weights(pixels) -> None:
    cells = np.random.default_rng(pixels).normal(size=(SIDE, SIDE))
    weights = keypoint_ops.cubic_weights(SIDE, tf.constant(pixels), pixels).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(weights @ cells @ weights.T, reference.bicubic(cells, pixels, pixels), atol=1e-5)


def heat_maps() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 6, 3, SIDE, SIDE)).astype(np.float32) * 3


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("score", keypoint_ops.KEYPOINT_SCORES)
def test_decoding(score, portable) -> None:
    found, scores = keypoint_ops.decode_keypoints(
        tf.constant(heat_maps()), tf.constant(regions()), canvas=CANVAS, score=score, portable=portable
    )
    for index in np.ndindex(2, 6, 3):
        *expected, value = reference.decode(heat_maps()[index], regions()[index[:2]], score)
        np.testing.assert_allclose(found[index], expected, atol=1e-4)
        np.testing.assert_allclose(scores[index], value, rtol=1e-4)


def test_decoding_returns_the_first_of_equal_peaks() -> None:
    found, _ = keypoint_ops.decode_keypoints(
        tf.zeros([1, 1, 1, SIDE, SIDE]), tf.constant([[[2.0, 3.0, 12.0, 9.0]]]), canvas=CANVAS
    )
    np.testing.assert_allclose(found[0, 0, 0], [2.5, 3.5])


def test_decoding_of_boxes_beyond_the_canvas_is_bounded() -> None:
    maps = np.zeros([1, 1, 1, SIDE, SIDE], np.float32)
    maps[..., 4, 2] = 9.0
    box = np.float32([[[-1e6, 0.0, 1e6, 40.0]]])
    found, _ = keypoint_ops.decode_keypoints(tf.constant(maps), tf.constant(box), canvas=CANVAS)
    np.testing.assert_allclose(found[0, 0, 0], [-1e6 + 2.5 / SIDE * 2e6, 4.5 / SIDE * 40], rtol=0.05)


def test_decoding_inverts_targets() -> None:
    """To less than a cell: where the cell lies at the border, the peak lies at the border."""
    box = np.float32([[[8, 16, 8 + 3 * SIDE, 16 + 5 * SIDE]]])
    marked = np.random.default_rng(2).random((1, 1, 20, 3)) * [3 * SIDE, 5 * SIDE, 0] + [8, 16, 2]
    cells, _ = keypoint_ops.keypoint_targets(np.float32(marked), box, size=SIDE)
    maps = tf.reshape(tf.one_hot(cells, SIDE * SIDE, on_value=9.0), [1, 1, 20, SIDE, SIDE])
    found, _ = keypoint_ops.decode_keypoints(maps, tf.constant(box), canvas=CANVAS)
    assert (np.abs(found - marked[..., :2]) < [3, 5]).all()


def test_decoding_under_xla() -> None:
    def decode(maps: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return keypoint_ops.decode_keypoints(maps, boxes, canvas=CANVAS, portable=True)

    compiled = tf.function(decode, autograph=False, jit_compile=True)(heat_maps(), regions())
    for ours, plain in zip(compiled, decode(tf.constant(heat_maps()), tf.constant(regions())), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-4)


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match="score is 'best', expected one of logit, probability"):
        keypoint_ops.decode_keypoints(tf.zeros([1, 1, 1, 4, 4]), tf.zeros([1, 1, 4]), canvas=CANVAS, score="best")


def test_loss_against_detectron2s_in_a_loop() -> None:
    logits = np.random.default_rng(3).normal(size=(2, 6, 12, SIDE, SIDE)).astype(np.float32)
    cells, valid = keypoint_ops.keypoint_targets(points(), regions(), size=SIDE)
    loss = loss_ops.keypoint_loss(tf.constant(logits), cells, valid)
    flat = [array.reshape(12, *array.shape[2:]) for array in (logits, points(), regions())]
    visible, fixed = reference.losses(*flat, images=2, sampled=24, fraction=0.25)
    np.testing.assert_allclose(loss_ops.mean(loss), visible, rtol=1e-5)
    np.testing.assert_allclose(float(loss.total) / (2 * 6 * 12), fixed, rtol=1e-5)


def test_loss_ignores_what_is_not_valid() -> None:
    logits = np.full([1, 2, 3, SIDE, SIDE], np.nan, np.float32)
    logits[0, 1, 2] = 0.0
    valid = np.zeros([1, 2, 3], bool)
    for some in (False, True):
        valid[0, 1, 2] = some
        with tf.GradientTape() as tape:
            values = tf.constant(logits)
            tape.watch(values)
            loss = loss_ops.keypoint_loss(values, tf.fill([1, 2, 3], 5), tf.constant(valid))
            mean = loss_ops.mean(loss)
        assert float(mean) == pytest.approx(np.log(SIDE * SIDE) if some else 0.0)
        gradient = tape.gradient(mean, values).numpy()
        assert np.isfinite(gradient).all()
        assert gradient.any() == some
