"""The window that is cut out of an image, its colours, and places for instances: the steps that no mask follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.data.pipeline import colours, copy_paste, transforms
from maskx_tf.data.pipeline.sample import Sample, pad
from maskx_tf.ops import images as image_ops
from tests.data.scenes import sample, things

CANVAS = {"canvas": (320, 320), "short_side": 300, "long_side": 320}


@pytest.mark.parametrize("size", [(260, 340), (17, 900), (1000, 31), (1, 1), (3, 2000), (320, 320), (398, 624)])
@pytest.mark.parametrize("rounding", ["exact", "torchvision"])
def test_window_of_everything_is_the_letterbox(size: tuple[int, int], rounding: str) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, [*size, 3]).astype(np.uint8)
    expected, expected_size = image_ops.letterbox(tf.constant(pixels), rounding=rounding, **CANVAS)
    window, resized = transforms.random_window(size, [1, 2], least=1.0, jitter=(1.0, 1.0), rounding=rounding, **CANVAS)
    np.testing.assert_array_equal(window, [0, 0, *size])
    np.testing.assert_array_equal(resized, expected_size)
    found = transforms.resize(sample([], pixels), resized)
    np.testing.assert_array_equal(image_ops.place(found.image, CANVAS["canvas"]), expected)


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.1, 2.0), (3.0, 3.0), (0.01, 0.01)])
@pytest.mark.parametrize("least", [1.0, 0.3])
def test_window_lies_in_the_image_and_fits_the_canvas(jitter: tuple[float, float], least: float) -> None:
    height, width = 261, 343

    @tf.function
    def many() -> Any:
        seeds = tf.stack([tf.range(400), tf.range(400)], axis=1)
        types = (tf.TensorSpec([4], tf.int32), tf.TensorSpec([2], tf.int32))
        return tf.map_fn(
            lambda seed: transforms.random_window([height, width], seed, least=least, jitter=jitter, **CANVAS),
            seeds,
            fn_output_signature=types,
        )

    window, size = (part.numpy() for part in many())
    corner, sides = window[:, :2], window[:, 2:]
    assert (corner >= 0).all()
    assert (sides >= 1).all()
    assert (corner + sides <= [height, width]).all()
    assert ((size >= 1) & (size <= 320)).all()
    fit = np.minimum(np.minimum(300 / sides.min(1), 320 / sides.max(1)), (320 / sides).min(1))
    stretch = size / sides
    # Height and width are scaled alike, but for rounding to whole pixels.
    assert (np.abs(stretch[:, 0] / stretch[:, 1] - 1) <= 1.5 / size.min(1)).all()
    if jitter == (1.0, 1.0):
        np.testing.assert_allclose(stretch.max(1), fit, rtol=0.01)
        assert (sides.min(0) >= np.floor([least * height, least * width])).all()
    if jitter == (0.1, 2.0):
        assert stretch.min() < 0.3
        assert stretch.max() > 1.2
    if least < 1.0:
        assert len(np.unique(corner, axis=0)) > 300


def test_recolour_equals_its_single_steps() -> None:
    pixels = np.random.RandomState(0).randint(60, 190, [20, 30, 3]).astype(np.float32)
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    np.testing.assert_allclose(colours.recolour(pixels, [1, 2], **none), pixels, atol=1e-3)
    draws = tf.random.stateless_uniform([4], [1, 2], -1.0, 1.0).numpy()
    grey = pixels @ np.array(colours.LUMA, np.float32)

    def only(**strength: float) -> np.ndarray:
        return colours.recolour(pixels, [1, 2], **{**none, **strength}).numpy()

    np.testing.assert_allclose(only(brightness=0.2), pixels * (1 + 0.2 * draws[0]), rtol=1e-5)
    contrast, saturation = 1 + 0.2 * draws[1], 1 + 0.2 * draws[2]
    np.testing.assert_allclose(only(contrast=0.2), grey.mean() + contrast * (pixels - grey.mean()), rtol=1e-5)
    np.testing.assert_allclose(
        only(saturation=0.2), grey[..., None] + saturation * (pixels - grey[..., None]), rtol=1e-5
    )
    turned = only(hue=0.1)
    np.testing.assert_allclose(turned @ np.array(colours.LUMA), grey, rtol=1e-3)  # as bright as before
    assert np.abs(turned - pixels).max() > 5
    before, after = ((image @ colours._YIQ)[..., 1:] for image in (pixels, turned))
    angle = np.angle((after[..., 0] + 1j * after[..., 1]) / (before[..., 0] + 1j * before[..., 1]))
    strong = np.abs(before).sum(-1) > 20
    np.testing.assert_allclose(np.abs(angle[strong]), abs(2 * np.pi * 0.1 * draws[3]), atol=1e-3)
    assert only(brightness=1.0, contrast=1.0).min() >= 0
    assert only(brightness=1.0, contrast=1.0).max() <= 255


def test_choice_leaves_out_boxes_crowds_and_what_has_no_room() -> None:
    valid, place = np.arange(44) < 40, np.arange(44)
    given = sample(things()[:40], padding=4, has_mask=valid & (place % 4 > 0), crowd=place % 4 == 1)
    found = np.array([copy_paste.choose(given, [seed, 0], tf.constant(100)).numpy() for seed in range(50)])
    allowed = valid & (place % 4 > 1)
    assert not found[:, ~allowed].any()
    assert 0.4 < found[:, allowed].mean() < 0.6
    assert copy_paste.choose(given, [1, 0], tf.constant(3)).numpy().sum() == 3
    assert not copy_paste.choose(given, [1, 0], tf.constant(0)).numpy().any()


def test_padding_closes_gaps_and_has_a_fixed_shape() -> None:
    given = sample(things()[:5])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.bool)])
    def run(valid: tf.Tensor) -> Sample:
        return pad(given.with_values(valid=valid), 3)

    found = run(np.array([True, False, True, True, True]))
    np.testing.assert_array_equal(found["classes"], [1, 3, 4])
    np.testing.assert_array_equal(run(np.zeros(5, bool))["boxes"], np.zeros([3, 4]))
    padded = run.get_concrete_function().structured_outputs
    assert [padded[field.name].shape for field in padded.fields] == [[3, *field.shape] for field in padded.fields]
