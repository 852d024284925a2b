"""Colours of regions: CIE LAB against constants and OpenCV, pixels against RoIAlign's loops, pairs against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import colour
from tests import reference_pooling as reference
from tests.checks import assert_forms_agree

SIDE = 6
RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 255, (2, 3, SIDE, SIDE, 3)).astype(np.float32)
# Greys and a little more: some neighbours look alike.
PIXELS[0, 0] = RNG.uniform(100, 106, (SIDE, SIDE, 1)) + RNG.uniform(0, 1, (SIDE, SIDE, 3))
SEEN = RNG.random((2, 3, SIDE, SIDE)) < 0.8


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # sRGB's primaries and greys, to two decimals, as tables of colours print them (D65, 2 degrees).
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 0), (97.14, -21.55, 94.48)),
        ((128, 128, 128), (53.59, 0.0, 0.0)),
        ((1, 1, 1), (0.27, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb, lab) -> None:
    np.testing.assert_allclose(colour.to_lab(tf.constant(rgb, tf.float32)), lab, atol=0.02)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.bfloat16])
def test_lab_is_opencvs(dtype) -> None:
    cv2 = pytest.importorskip("cv2", reason="the extra grabcut is not installed")
    rgb = RNG.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    expected = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = colour.to_lab(tf.cast(rgb, dtype))
    assert lab.dtype == tf.float32
    # OpenCV interpolates between the colours of a table with 33 entries a side.
    np.testing.assert_allclose(lab, expected, atol=0.5)
    assert np.abs(lab - expected).mean() < 0.1


@pytest.mark.parametrize("gather", [False, True])
def test_region_pixels(gather) -> None:
    images = RNG.integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    regions = np.float32([[[2.5, 3, 20, 18], [-4, -6, 8, 7]], [[25, 12, 40, 30], [5, 5, 6, 6]]])
    result = colour.region_pixels(tf.constant(images), tf.constant(regions), size=4, gather=gather)
    assert result.shape == (2, 2, 4, 4, 3)
    assert result.dtype == tf.float32
    bins = reference.align_bins([(20, 30)], regions, np.zeros([2, 2], int), [1], 4, 2, True)
    expected = reference.pooled([images.astype(np.float64)], bins, (2, 2, 4), "average")
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_similarity() -> None:
    """A pair at a time; 0 where an end is beyond the grid or the image."""
    result = colour.colour_similarity(tf.constant(PIXELS), tf.constant(SEEN), softness=3.0)
    assert result.shape == (2, 3, 4, SIDE, SIDE)
    lab = colour.to_lab(PIXELS).numpy().astype(np.float64)
    for image, region, pair, row, column in np.ndindex(*result.shape):
        down, right = colour.PAIRS[pair]
        other = row + down, column + right
        expected = 0.0
        if (
            all(0 <= place < SIDE for place in other)
            and SEEN[image, region, row, column]
            and SEEN[image, region][other]
        ):
            expected = math.exp(-math.dist(lab[image, region, row, column], lab[image, region][other]) / 3.0)
        np.testing.assert_allclose(result[image, region, pair, row, column], expected, rtol=1e-3, atol=1e-6)
    assert np.mean(result[0, 0] >= 0.3) > 0.3
    assert np.mean(result[1] >= 0.3) < 0.1


def test_pairs_tie_all_cells_together() -> None:
    """Steps along pairs lead from any cell to any other; none is shorter than two cells, and none is there twice."""
    reached = {(0, 0)}
    steps = {*colour.PAIRS, *((-down, -right) for down, right in colour.PAIRS)}
    for _ in range(4):
        reached |= {(row + down, column + right) for row, column in reached for down, right in steps}
    assert {(0, 1), (1, 0), (1, 1)} <= reached
    assert len(steps) == 8
    assert min(math.hypot(*step) for step in steps) == 2


def test_cells_beyond_the_image_have_no_similarity() -> None:
    """NaN there changes nothing, though all of the padding has one colour."""
    spoilt = np.where(SEEN[..., None], PIXELS, np.nan)
    similar = colour.colour_similarity(tf.constant(spoilt), tf.constant(SEEN))
    np.testing.assert_array_equal(similar, colour.colour_similarity(tf.constant(PIXELS), tf.constant(SEEN)))


def test_forms() -> None:
    assert_forms_agree(colour.colour_similarity, PIXELS, SEEN, tolerance=1e-4)
    images, regions = RNG.uniform(0, 255, (2, 9, 9, 3)), RNG.uniform(0, 9, (2, 3, 4))
    inputs = images.astype(np.float32), np.sort(regions, axis=-1).astype(np.float32)
    assert_forms_agree(lambda *values: colour.region_pixels(*values, size=4), *inputs, compiled=False)
    assert_forms_agree(lambda *values: colour.region_pixels(*values, size=4, gather=True), *inputs, tolerance=1e-4)
