"""Matching and random choice."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from maskx_tf.ops import sampling
from tests import reference
from tests.checks import assert_forms_agree
from tests.strategies import boxes as drawn_boxes

SEED = np.int32([3, 14])


def quarter_boxes(seed: int, *shape: int) -> np.ndarray:
    """On a grid of quarters, so that equal overlaps are equal in float32 as well."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 80, (*shape, 2))
    return (np.concatenate([corner, corner + rng.integers(4, 60, (*shape, 2))], axis=-1) / 4).astype(np.float32)


def check_match(boxes: np.ndarray, truths: np.ndarray, valid: np.ndarray) -> None:
    """Boxes [B, A, 4] against truths [B, G, 4]."""
    result = sampling.match(tf.constant(boxes), tf.constant(truths), tf.constant(valid))
    assert [part.shape for part in result] == [(len(truths), boxes.shape[1])] * 3
    for image in range(len(truths)):
        truth, overlap, best = reference.match(boxes[image % len(boxes)], truths[image], valid[image])
        np.testing.assert_allclose(result.overlaps[image], overlap, atol=1e-6)
        np.testing.assert_array_equal(result.truths[image].numpy()[overlap > 0], truth[overlap > 0])
        np.testing.assert_array_equal(result.best_of_truth[image], best)
        found = result.truths[image].numpy()
        assert valid[image][found].all() or not valid[image].any()
        if not valid[image].any():
            assert not found.any()


def test_match() -> None:
    valid = np.random.default_rng(0).random((3, 5)) < 0.6
    check_match(quarter_boxes(1, 3, 30), quarter_boxes(2, 3, 5), valid)


def test_match_one_set_of_boxes_with_every_image() -> None:
    check_match(quarter_boxes(3, 1, 30), quarter_boxes(4, 3, 5), np.ones([3, 5], bool))


def test_match_images_without_truth() -> None:
    """Padding holds anything: here boxes that would match."""
    boxes = quarter_boxes(5, 2, 6)
    check_match(boxes, boxes, np.zeros([2, 6], bool))
    check_match(boxes, boxes, np.stack([np.zeros(6, bool), np.ones(6, bool)]))


def test_match_no_truth_slots() -> None:
    result = sampling.match(tf.constant(quarter_boxes(6, 2, 4)), tf.zeros([2, 0, 4]), tf.zeros([2, 0], tf.bool))
    assert not any(part.numpy().any() for part in result)


def test_match_no_boxes() -> None:
    result = sampling.match(tf.zeros([2, 0, 4]), tf.constant(quarter_boxes(7, 2, 4)), tf.ones([2, 4], tf.bool))
    assert [part.shape for part in result] == [(2, 0)] * 3


def test_match_ties() -> None:
    """Of equal truths the first is taken; of equally good boxes each is the truth's best."""
    truths = np.float32([[[0, 0, 8, 8], [0, 0, 8, 8], [20, 0, 28, 8], [90, 90, 99, 99], [5, 5, 5, 5]]])
    boxes = np.float32([[[0, 0, 8, 4], [0, 4, 8, 8], [0, 0, 4, 4], [18, 0, 26, 8], [22, 0, 30, 8], [50, 50, 60, 60]]])
    result = sampling.match(boxes, truths, tf.ones([1, 5], tf.bool))
    np.testing.assert_array_equal(result.truths[0][:5], [0, 0, 0, 2, 2])
    np.testing.assert_array_equal(result.best_of_truth, [[True, True, False, True, True, False]])
    check_match(boxes, truths, np.ones([1, 5], bool))


@given(drawn_boxes(count=8), drawn_boxes(count=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_match_of_any_boxes(boxes, truths, valid) -> None:
    check_match(boxes[None], truths[None], np.array([valid]))


def check_sample(
    chosen: sampling.Sample, foreground: np.ndarray, background: np.ndarray, size: int, limit: int
) -> None:
    """Counts, order and membership of a choice from [B, A] candidates."""
    for image in range(len(foreground)):
        flags = chosen.foreground[image].numpy()
        valid = chosen.valid[image].numpy()
        indices = chosen.indices[image].numpy()
        assert len(indices) == len(valid) == len(flags) == size
        many = min(limit, int(foreground[image].sum()), size)
        count = min(size, many + int(background[image].sum()))
        np.testing.assert_array_equal(flags, np.arange(size) < many)
        np.testing.assert_array_equal(valid, np.arange(size) < count)
        assert not indices[~valid].any()
        assert foreground[image][indices[flags]].all()
        assert background[image][indices[valid & ~flags]].all()
        assert len(set(indices[valid])) == count


@pytest.mark.parametrize(("size", "limit"), [(1, 1), (8, 4), (8, 8), (16, 4), (40, 20), (60, 60)])
def test_sample(size, limit) -> None:
    rng = np.random.default_rng(8)
    draw = rng.random((5, 40))
    # Many of both, no foreground, no background, neither, more foreground than the limit.
    foreground = draw < [[0.2], [0.0], [0.3], [0.0], [0.9]]
    background = (draw > [[0.5], [0.5], [1.0], [1.0], [0.95]]) & ~foreground
    chosen = sampling.sample(
        tf.constant(foreground), tf.constant(background), size=size, foreground_limit=limit, seed=SEED
    )
    check_sample(chosen, foreground, background, size, limit)


def test_sample_without_room_for_foreground() -> None:
    """A fraction of a small size rounds down to none."""
    foreground, background = tf.constant([[True, True, False]]), tf.constant([[False, False, True]])
    chosen = sampling.sample(foreground, background, size=2, foreground_limit=0, seed=SEED)
    check_sample(chosen, foreground.numpy(), background.numpy(), 2, 0)


@given(
    st.lists(st.sampled_from(["foreground", "background", "neither"]), min_size=12, max_size=12),
    st.sampled_from([(4, 2), (6, 6), (12, 3), (20, 10)]),
    st.integers(-(2**31), 2**31 - 1),
)
def test_sample_of_any_candidates(kinds, sizes, seed) -> None:
    foreground, background = (np.array([[kind == name for kind in kinds]]) for name in ("foreground", "background"))
    size, limit = sizes
    options = {"size": size, "foreground_limit": limit, "seed": np.int32([seed, 5])}
    chosen = sampling.sample(tf.constant(foreground), tf.constant(background), **options)
    check_sample(chosen, foreground, background, size, limit)
    again = sampling.sample(tf.constant(foreground), tf.constant(background), **options)
    for first, second in zip(chosen, again, strict=True):
        np.testing.assert_array_equal(first, second)


def draws(seeds: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of 30 boxes were chosen as foreground and as background, each bool [seeds, images, 30].

    12 boxes are foreground, of which 4 are chosen; 15 are background, of which 5 are.
    """
    foreground, background = np.arange(30) % 5 < 2, np.arange(30) % 2 == 1
    background = background & ~foreground | (np.arange(30) % 10 == 2) | (np.arange(30) % 10 == 4)
    assert (foreground.sum(), background.sum()) == (12, 15)
    candidates = [tf.constant(np.tile(flags, (images, 1))) for flags in (foreground, background)]
    choose = tf.function(lambda seed: sampling.sample(*candidates, size=9, foreground_limit=4, seed=seed))
    chosen = np.zeros([2, seeds, images, 30], bool)
    for seed in range(seeds):
        indices = choose(tf.constant([seed, 7])).indices.numpy()
        np.put_along_axis(chosen[0, seed], indices[:, :4], values=True, axis=1)
        np.put_along_axis(chosen[1, seed], indices[:, 4:], values=True, axis=1)
    return chosen[0], chosen[1]


def test_sample_is_uniform_over_seeds_and_images() -> None:
    for chosen, of, most in zip(draws(60, 100), (12, 15), (4, 5), strict=True):
        rows = chosen.reshape(6000, 30)
        candidates = np.flatnonzero(rows.any(axis=0))
        assert len(candidates) == of
        share = most / of
        five_sigma = 5 * np.sqrt(share * (1 - share) / 6000)
        np.testing.assert_allclose(rows[:, candidates].mean(axis=0), share, atol=five_sigma)
        # Any two are chosen together as often as any other two.
        together = (rows[:, candidates, None] & rows[:, None, candidates]).mean(axis=0)
        pair = share * (most - 1) / (of - 1)
        pairs = together[~np.eye(of, dtype=bool)]
        np.testing.assert_allclose(pairs, pair, atol=5 * np.sqrt(pair * (1 - pair) / 6000))


def test_sample_differs_between_seeds_and_between_images() -> None:
    chosen = np.concatenate(draws(20, 20), axis=-1)
    one_image, one_seed = chosen[:, 0], chosen[0]
    # 495 times 3003 choices: twenty that are not all different would be a wonder.
    assert len({row.tobytes() for row in one_image}) == 20
    assert len({row.tobytes() for row in one_seed}) == 20
    second_half = sampling.sample(
        tf.ones([1, 50], tf.bool), tf.zeros([1, 50], tf.bool), size=5, foreground_limit=5, seed=np.int32([0, 8])
    )
    first_half = sampling.sample(
        tf.ones([1, 50], tf.bool), tf.zeros([1, 50], tf.bool), size=5, foreground_limit=5, seed=np.int32([1, 8])
    )
    assert set(second_half.indices[0].numpy()) != set(first_half.indices[0].numpy())


def test_forms_of_match() -> None:
    valid = np.array([[True, False, True, True], [False] * 4])
    assert_forms_agree(sampling.match, quarter_boxes(9, 2, 20), quarter_boxes(10, 2, 4), valid)


def test_forms_of_sample() -> None:
    """XLA draws the same numbers: the generator is named."""
    draw = np.random.default_rng(11).random((2, 30))
    assert_forms_agree(
        lambda foreground, background, seed: sampling.sample(
            foreground, background, size=8, foreground_limit=4, seed=seed
        ),
        draw < 0.3,
        draw > 0.5,
        SEED,
    )
