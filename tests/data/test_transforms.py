"""Every geometric step moves boxes and masks alike: the box afterwards is the box of the mask afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from maskx_tf.data.pipeline import copy_paste, transforms
from maskx_tf.data.pipeline.sample import Sample, drop_tiny, tidy
from maskx_tf.masks import paste as paste_ops
from maskx_tf.structures import MASK_SIDE
from tests.data.scenes import HEIGHT, WIDTH, Thing, box_of, gather, iou, photographed, sample, things

DRAWS = 300
EACH = 3  # objects a draw
CANVAS = {"canvas": (320, 320), "short_side": 300, "long_side": 320}
Found = dict[str, np.ndarray]


def over_draws(
    step: Callable[[Sample, Any], tuple[Sample, Any]], parameters: Any, pool: Sequence[Thing], image: Any = None
) -> tuple[np.ndarray, Found, Any]:
    """A step on some objects of the pool, once for each of the parameters, in one graph.

    Returns:
        Which objects, [DRAWS, EACH]; fields of the Samples that came out; whatever else the step gives.
    """
    random = np.random.RandomState(2)
    chosen = np.stack([random.permutation(len(pool))[:EACH] for _ in range(DRAWS)])
    every = sample(pool, image)

    def run(item: tuple[tf.Tensor, Any]) -> tuple[Any, ...]:
        found, other = step(gather(every, item[0]), item[1])
        return dict(found.values), other

    types = tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(None, tensor.dtype),
        run((chosen[0], tf.nest.map_structure(lambda values: values[0], parameters))),
    )
    mapped = tf.function(lambda *items: tf.map_fn(run, items, fn_output_signature=types))
    found, other = tf.nest.map_structure(lambda tensor: tensor.numpy(), mapped(chosen, parameters))
    return chosen, found, other


def agreeing(found: Found, draw: int, truth: Sequence[np.ndarray], factor: Sequence[float] = (1.0, 1.0)) -> list[float]:
    """IoU of boxes, as far as they are left, with those of masks, scaled by (y, x)."""
    overlaps = []
    for box, valid, mask in zip(found["boxes"][draw], found["valid"][draw], truth, strict=False):
        expected = box_of(mask)
        if expected is None:
            assert not valid
        elif valid:
            overlaps.append(iou(box, expected * np.tile(factor[::-1], 2)))
        else:  # less than half a cell, which is two pixels wide, may go
            assert min(expected[2:] - expected[:2]) <= 1
    return overlaps


def assert_equal(found: Sample, expected: Sample) -> None:
    np.testing.assert_array_equal(found.image, expected.image)
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def windows(least: float) -> np.ndarray:
    """Top, left, height and width of DRAWS windows."""
    random = np.random.RandomState(3)
    sides = (random.uniform(least, 1.0, [DRAWS, 2]) * [HEIGHT, WIDTH]).astype(np.int32)
    corners = (random.rand(DRAWS, 2) * ([HEIGHT + 1, WIDTH + 1] - sides)).astype(np.int32)
    return np.concatenate([corners, sides], axis=1)


def within(mask: np.ndarray, window: np.ndarray) -> np.ndarray:
    top, left, height, width = window
    return mask[top : top + height, left : left + width]


def test_flip_takes_box_and_mask_to_the_other_side() -> None:
    pool = things()
    chosen, found, _ = over_draws(lambda given, _: (transforms.flip(given), ()), np.zeros(DRAWS), pool)
    for draw, objects in enumerate(chosen):
        np.testing.assert_array_equal(found["boxes"][draw], [box_of(pool[one].mask[:, ::-1]) for one in objects])
        grids = np.unpackbits(found["masks"][draw], axis=1).reshape(EACH, MASK_SIDE, MASK_SIDE)
        np.testing.assert_array_equal(grids, [pool[one].grid[:, ::-1] for one in objects])


def test_flip_moves_pixels_and_comes_back() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, [HEIGHT, WIDTH, 3]).astype(np.uint8)
    before = sample(things()[:4], pixels, padding=2)
    once = transforms.flip(before)
    np.testing.assert_array_equal(once.image, pixels[:, ::-1])
    np.testing.assert_array_equal(once["boxes"][4:], 0.0)
    assert_equal(transforms.flip(once), before)


def test_crop_fits_boxes_to_what_is_left_of_masks() -> None:
    pool, cuts = things(), windows(0.2)
    chosen, found, _ = over_draws(lambda given, window: (transforms.cut(given, window), ()), cuts, pool)
    overlaps: list[float] = []
    for draw, (objects, window) in enumerate(zip(chosen, cuts, strict=True)):
        truth = [within(pool[one].mask, window) for one in objects]
        overlaps += agreeing(found, draw, truth)
        _, _, height, width = window
        assert (found["boxes"][draw] >= 0).all()
        assert (found["boxes"][draw] <= [width, height, width, height]).all()
    assert DRAWS < len(overlaps) < DRAWS * EACH
    assert min(overlaps) > 0.95


def test_crop_takes_masks_along() -> None:
    pool, cuts = photographed(), windows(0.2)
    chosen, found, _ = over_draws(lambda given, window: (transforms.cut(given, window), ()), cuts, pool)
    overlaps: list[float] = []
    masks: list[float] = []
    for draw, (objects, window) in enumerate(zip(chosen, cuts, strict=True)):
        truth = [within(pool[one].mask, window) for one in objects]
        boxes = [box_of(mask) for mask in truth]
        overlaps += [
            iou(box, expected)
            for box, valid, expected in zip(found["boxes"][draw], found["valid"][draw], boxes, strict=True)
            if valid and expected is not None
        ]
        if draw % 6 == 0:
            grids = np.unpackbits(found["masks"][draw], axis=1).reshape(EACH, MASK_SIDE, MASK_SIDE).astype(np.float32)
            mine = paste_ops.paste(grids, found["boxes"][draw], *window[2:])
            masks += [(a & b).sum() / (a | b).sum() for a, b in zip(mine, truth, strict=True) if b.sum() > 400]
    # An outline may have a thread finer than a cell of its grid, and nothing else be left in the window.
    assert np.mean(np.array(overlaps) > 0.95) > 0.98
    assert len(masks) > 50
    assert min(masks) > 0.85
    assert np.median(masks) > 0.97


def test_resize_scales_boxes_and_leaves_masks() -> None:
    pool, sizes = things(), np.random.RandomState(3).randint(8, 40, [DRAWS, 2]).astype(np.int32)
    chosen, found, _ = over_draws(lambda given, size: (transforms.resize(given, size), ()), sizes, pool)
    packed = sample(pool)["masks"].numpy()
    for draw, objects in enumerate(chosen):
        overlaps = agreeing(found, draw, [pool[one].mask for one in objects], sizes[draw] / [HEIGHT, WIDTH])
        assert len(overlaps) == EACH
        assert min(overlaps) > 0.999
        np.testing.assert_array_equal(found["masks"][draw], packed[objects])


def test_window_flip_and_size_in_a_row_agree_with_the_masks() -> None:
    def step(given: Sample, seed: tf.Tensor) -> tuple[Sample, Any]:
        window, size = transforms.random_window([HEIGHT, WIDTH], seed, least=0.4, jitter=(0.1, 2.0), **CANVAS)
        found = transforms.random_flip(transforms.crop(given, window), seed)
        found = transforms.resize(found, size)
        return found, (window, size, found.image[0, 0, 0] > found.image[0, -1, 0])

    # The first row of the image, which rises from left to right, says afterwards whether it was mirrored.
    ramp = np.broadcast_to((np.arange(WIDTH) * 255 // WIDTH).astype(np.uint8)[:, None], [HEIGHT, WIDTH, 3])
    pool, seeds = things(), np.stack([np.arange(DRAWS), np.full(DRAWS, 5)], axis=1).astype(np.int32)
    chosen, found, (cuts, sizes, flipped) = over_draws(step, seeds, pool, ramp)
    overlaps: list[float] = []
    for draw, objects in enumerate(chosen):
        truth = [within(pool[one].mask, cuts[draw])[:, :: -1 if flipped[draw] else 1] for one in objects]
        overlaps += agreeing(found, draw, truth, sizes[draw] / cuts[draw][2:])
    assert len(overlaps) > DRAWS
    assert min(overlaps) > 0.95
    assert 0.4 < flipped.mean() < 0.6


def test_paste_fits_boxes_below_to_what_is_seen() -> None:
    # Below, cells are pixels: what is seen between two things pasted may be as fine as that.
    pool = [one for one in things() if (one.box[2:] - one.box[:2] == MASK_SIDE).all()]
    random = np.random.RandomState(4)
    above, picked = random.randint(len(things()), size=[DRAWS, EACH]), random.rand(DRAWS, EACH) < 0.6
    every = sample(things())

    def step(given: Sample, parameters: tuple[tf.Tensor, tf.Tensor]) -> tuple[Sample, Any]:
        return copy_paste.paste(given, gather(every, parameters[0]), parameters[1]), ()

    chosen, found, _ = over_draws(step, (above, picked), pool)
    overlaps: list[float] = []
    hidden = 0
    for draw, objects in enumerate(chosen):
        over = [things()[one] for one in above[draw][picked[draw]]]
        cover = np.any([one.mask for one in over] + [np.zeros([HEIGHT, WIDTH], bool)], axis=0)
        for place, one in enumerate(objects):
            seen = pool[one].mask & ~cover
            share = seen.sum() / pool[one].mask.sum()
            assert found["valid"][draw][place] == (share >= copy_paste.MIN_VISIBLE)
            if found["valid"][draw][place]:
                overlaps.append(iou(found["boxes"][draw][place], box_of(seen)))
            hidden += not found["valid"][draw][place]
        np.testing.assert_array_equal(found["valid"][draw][EACH:], picked[draw])
        np.testing.assert_array_equal(
            found["boxes"][draw][EACH:][picked[draw]], np.array([one.box for one in over]).reshape(-1, 4)
        )
    assert hidden > 50
    assert min(overlaps) > 0.95


def test_paste_copies_the_pixels_of_masks() -> None:
    chosen = things()[:6]
    images = np.random.RandomState(0).randint(0, 256, [2, HEIGHT, WIDTH, 3]).astype(np.uint8)
    below, above = sample(chosen[:3], images[0]), sample(chosen[3:], images[1])
    found = copy_paste.paste(below, above, tf.constant([True, False, True]))
    cover = (chosen[3].mask | chosen[5].mask)[..., None]
    np.testing.assert_array_equal(found.image, np.where(cover, images[1], images[0]))
    np.testing.assert_array_equal(found["classes"][3:], [1, 0, 3])


def test_paste_treats_instances_without_masks_as_their_boxes() -> None:
    box, grid = np.array([10, 10, 122, 122], np.float32), np.ones([MASK_SIDE, MASK_SIDE], bool)
    over = Thing(np.array([10, 10, 66, 122], np.float32), grid, np.zeros([1, 1], bool))
    flags = {"has_mask": np.array([True, False, False]), "crowd": np.array([False, False, True])}
    below = tidy(sample([Thing(box, grid, over.mask)] * 3, **flags))
    found = copy_paste.paste(below, sample([over]), tf.constant([True]))
    np.testing.assert_array_equal(found["boxes"][:3], [[66, 10, 122, 122]] * 3)  # the left half is hidden
    np.testing.assert_array_equal(found["has_mask"], [True, False, False, True])
    np.testing.assert_array_equal(found["crowd"], [False, False, True, False])
    np.testing.assert_array_equal(found["masks"][1:3], np.zeros_like(found["masks"][1:3]))
    assert np.unpackbits(found["masks"][0].numpy()).all()


def test_cut_keeps_absent_masks_absent_and_crowds_crowds() -> None:
    has_mask, crowd = np.array([True, False, True, False, False]), np.array([False, True, True, False, False])
    given = tidy(sample(things()[:3], padding=2, has_mask=has_mask, crowd=crowd))
    found = transforms.cut(given, tf.constant([60, 80, 150, 180]))
    clipped = np.clip(given["boxes"][1] - [80, 60, 80, 60], 0, [180, 150, 180, 150])
    np.testing.assert_allclose(found["boxes"][1], clipped, atol=0.01)
    np.testing.assert_array_equal(found["has_mask"], has_mask)
    np.testing.assert_array_equal(found["crowd"], crowd)
    np.testing.assert_array_equal(found["masks"].numpy()[[1, 3, 4]], 0)
    np.testing.assert_array_equal(found["boxes"][3:], np.zeros([2, 4]))


def test_instances_outside_or_tiny_are_no_longer_valid() -> None:
    boxes = np.array([[0, 0, 20, 20], [100, 100, 150, 140], [30, 30, 30.5, 90]], np.float32)
    found = drop_tiny(sample(things()[:3], boxes=boxes))
    np.testing.assert_array_equal(found["valid"], [True, True, False])
    found = transforms.cut(found, tf.constant([50, 50, 100, 100]))
    np.testing.assert_array_equal(found["valid"], [False, True, False])
    for values in found.values.values():
        assert not values.numpy()[[0, 2]].any()


def test_nothing_is_cut_in_the_whole_window() -> None:
    given = sample(things()[:5], padding=1)
    assert_equal(transforms.cut(given, tf.constant([0, 0, HEIGHT, WIDTH])), given)
