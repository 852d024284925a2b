"""The losses of masks that are known by boxes, colours and points: loops, gradients, and what they must favour."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses
from maskx_tf.ops import colour
from maskx_tf.ops import masks as mask_ops
from tests import reference_losses as slow
from tests.checks import assert_forms_agree
from tests.test_losses import NOTHING, SHAPE, check, check_nothing_counts, random, value_and_gradient

SIDE = 5
APPLIES = np.array([[True, True, False, True, False, True], [False, True, False, False, False, True]])
RNG = np.random.default_rng(0)


def boxes_on_the_grid(side: int = SIDE) -> np.ndarray:
    """Cells in boxes that lie inside, reach out of the region, and miss it: bool [2, 6, side, side]."""
    regions = np.tile(np.float32([10, 20, 10 + side, 20 + side]), (*SHAPE, 1))
    boxes = regions + RNG.uniform(-2.5, 2.5, (*SHAPE, 4)).astype(np.float32)
    boxes[0, 1] = [11.2, 22.6, 12.9, 25.4]
    boxes[1, 5] = [100, 100, 120, 120]
    return mask_ops.cells_inside(regions, boxes, size=side).numpy()


INSIDE = boxes_on_the_grid()
SEEN = RNG.random((*SHAPE, SIDE, SIDE)) < 0.9
# Few colours, some a little apart: LAB distances below and above 2.4.
PIXELS = np.float32([[90, 60, 40], [91, 61, 40], [94, 66, 44], [20, 200, 90]])[RNG.integers(0, 4, SEEN.shape)]


def similarity(pixels: np.ndarray = PIXELS, seen: np.ndarray = SEEN) -> tf.Tensor:
    return colour.colour_similarity(tf.constant(pixels), tf.constant(seen))


def test_projection_loss() -> None:
    check(
        lambda values: losses.projection_loss(values, INSIDE, APPLIES),
        lambda values: slow.projection_loss(values, INSIDE, APPLIES),
        random(0, SIDE, SIDE, scale=2),
    )
    result = losses.projection_loss(random(0, SIDE, SIDE), INSIDE, APPLIES)
    assert float(result.count) == APPLIES.sum() - 1  # a box that misses its region says nothing


def test_pairwise_loss() -> None:
    """Each pair once has the mean of each pair from both of its ends."""
    similar = similarity()
    pairs = slow.pairs_alike(colour.to_lab(PIXELS), SEEN, INSIDE, APPLIES, colour.PAIRS)
    assert 50 < len(pairs) < 8 * SIDE**2 * APPLIES.sum() / 4

    def halved(values: np.ndarray) -> tuple[float, float]:
        total, count = slow.pairwise_loss(values, pairs)
        return total / 2, count / 2

    check(
        lambda values: losses.pairwise_loss(values, similar, INSIDE, APPLIES),
        halved,
        random(1, SIDE, SIDE, scale=3),
    )


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1e4, 1e4, 0.0), (-1e4, -1e4, 0.0), (1e4, -50.0, 50.0), (-80.0, 90.0, 80.0), (0.0, 1e4, np.log(2))],
)
def test_pairwise_loss_of_large_logits(left, right, expected) -> None:
    """Ends that agree cost nothing, others what the less certain of the two says; no exponential overflows."""
    logits = np.zeros([*SHAPE, 3, 3], np.float32)
    logits[..., 1, 0], logits[..., 1, 2] = left, right
    similar = np.zeros([*SHAPE, 4, 3, 3], np.float32)
    similar[..., 0, 1, 0] = 1.0  # this pair alone: the first of its row, and two to the right of it
    result, mean, gradient = value_and_gradient(
        lambda values: losses.pairwise_loss(values, similar, np.ones(logits.shape, bool), APPLIES), logits
    )
    assert float(result.count) == APPLIES.sum()
    np.testing.assert_allclose(mean, expected, atol=1e-3)
    assert np.isfinite(gradient).all()


def test_point_loss() -> None:
    points = RNG.uniform(-0.1, 1.1, (*SHAPE, 4, 2)).astype(np.float32)
    points[0, 0, 0], points[0, 0, 1] = [0, 1], [0.5, 0.01]
    valid, labels = RNG.random(points.shape[:3]) < 0.7, RNG.random(points.shape[:3]) < 0.5
    valid[0, 2] = False
    check(
        lambda values: losses.point_loss(values, points, labels, valid),
        lambda values: slow.point_loss(values, points, labels, valid),
        random(2, SIDE, SIDE, scale=2),
    )


def test_a_point_reads_the_cell_that_it_lies_in() -> None:
    """x goes along columns; at the centre of a cell no other counts."""
    logits = np.full([1, 1, 4, 4], 7.0, np.float32)
    logits[0, 0, 3, 1] = -2.0
    points = np.float32([[[[1.5 / 4, 3.5 / 4]]]])
    for label, expected in ((True, np.log1p(np.exp(2.0))), (False, np.log1p(np.exp(-2.0)))):
        flags = np.full([1, 1, 1], label), np.ones([1, 1, 1], bool)
        np.testing.assert_allclose(losses.mean(losses.point_loss(logits, points, *flags)), expected, rtol=1e-6)


def all_losses(logits, similar, inside, points, applies) -> list[losses.Loss]:
    """The three, where the regions of `applies` have points."""
    labels = tf.zeros(tf.shape(points)[:-1], tf.bool)
    return [
        losses.projection_loss(logits, inside, applies),
        losses.pairwise_loss(logits, similar, inside, applies),
        losses.point_loss(logits, points, labels, tf.broadcast_to(applies[..., None], tf.shape(labels))),
    ]


POINTS = RNG.uniform(0, 1, (*SHAPE, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("which", range(3))
def test_nothing_applies(which) -> None:
    rest = similarity(), INSIDE, tf.constant(POINTS), tf.constant(NOTHING)
    check_nothing_counts(lambda values: all_losses(values, *rest)[which], random(3, SIDE, SIDE))


def test_boxes_that_miss_their_regions_say_nothing() -> None:
    """Not even that the mask is empty: the region may be a bad one."""
    rest = similarity(), np.zeros_like(INSIDE), tf.constant(POINTS), tf.constant(APPLIES)
    for which in range(2):
        result, mean, gradient = value_and_gradient(
            lambda values, which=which: all_losses(values, *rest)[which], random(3, SIDE, SIDE)
        )
        assert float(result.count) == mean == 0.0
        assert (gradient == 0.0).all()


@pytest.mark.parametrize("which", range(3))
def test_regions_where_it_does_not_apply_are_not_seen(which) -> None:
    """NaN and infinity there change neither loss nor gradient elsewhere."""

    def loss(values: tf.Tensor, spoil: float = 0.0) -> losses.Loss:
        other = tf.where(APPLIES[..., None, None], 0.0, spoil)
        similar = similarity() + other[..., None]
        points = POINTS + np.where(APPLIES[..., None, None], 0.0, spoil).astype(np.float32)
        return all_losses(values, similar, INSIDE, tf.constant(points), tf.constant(APPLIES))[which]

    logits = random(4, SIDE, SIDE)
    _, mean, gradient = value_and_gradient(loss, logits)
    assert mean > 0
    assert np.abs(gradient).max() > 0
    for anything in (np.nan, np.inf, -np.inf):
        spoilt = logits.copy()
        spoilt[~APPLIES] = anything
        _, spoilt_mean, spoilt_gradient = value_and_gradient(lambda values, a=anything: loss(values, a), spoilt)
        assert spoilt_mean == mean
        np.testing.assert_array_equal(spoilt_gradient, gradient)
        assert (spoilt_gradient[~APPLIES] == 0).all()


def test_losses_of_parts_add_up() -> None:
    """However a batch is split, and however many regions of padding it has."""
    logits, similar = random(5, SIDE, SIDE), similarity()

    def of(image: slice, padding: int = 0) -> list[losses.Loss]:
        def padded(values: tf.Tensor) -> tf.Tensor:
            values = tf.convert_to_tensor(values)[image]
            return tf.pad(values, [[0, 0], [0, padding]] + [[0, 0]] * (values.shape.rank - 2))

        return all_losses(*(padded(values) for values in (logits, similar, INSIDE, POINTS, APPLIES)))

    whole, parts = of(slice(None)), [of(slice(0, 1), padding=3), of(slice(1, 2), padding=1)]
    for index, loss in enumerate(whole):
        for field in range(2):
            np.testing.assert_allclose(sum(float(part[index][field]) for part in parts), loss[field], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_logits_give_float32_losses(dtype) -> None:
    logits = tf.cast(random(6, SIDE, SIDE), dtype)
    rest = similarity(), INSIDE, tf.constant(POINTS), tf.constant(APPLIES)
    for half, full in zip(all_losses(logits, *rest), all_losses(tf.cast(logits, tf.float32), *rest), strict=True):
        assert half.total.dtype == half.count.dtype == tf.float32
        np.testing.assert_array_equal(half, full)


def test_forms() -> None:
    assert_forms_agree(all_losses, random(7, SIDE, SIDE), similarity().numpy(), INSIDE, POINTS, APPLIES)


def disc(side: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] + 0.5
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def box_of(mask: np.ndarray) -> np.ndarray:
    return mask.any(axis=1)[:, None] & mask.any(axis=0)


def logits_of(mask: np.ndarray, size: float = 30.0) -> np.ndarray:
    return np.where(mask, size, -size).astype(np.float32)[None, None]


@pytest.mark.parametrize("radius", [2.0, 5.3, 9.0])
def test_an_exact_mask_has_no_projection_loss(radius) -> None:
    """Nor has the filled box, since it says nothing about shape; a mask that is larger, smaller or moved has."""
    one = np.ones([1, 1], bool)
    mask = disc(32, 15.2, 17.9, radius)

    def projection(other: np.ndarray) -> float:
        return float(losses.mean(losses.projection_loss(logits_of(other), box_of(mask)[None, None], one)))

    assert projection(mask) < 1e-6
    assert projection(box_of(mask)) < 1e-6
    for other in (disc(32, 15.2, 17.9, radius + 1.5), disc(32, 15.2, 17.9, radius - 1.5), np.roll(mask, 2, axis=1)):
        assert projection(other) > 0.01


def test_a_mask_that_fills_its_region_is_pushed_back_to_its_box() -> None:
    """Also where it is sure of itself, so that no probability of a column can move."""
    box = box_of(disc(32, 15.2, 17.9, 8.0))[None, None]
    logits = tf.Variable(np.full([1, 1, 32, 32], 15.0, np.float32))
    with tf.GradientTape() as tape:
        loss = losses.mean(losses.projection_loss(logits, box, np.ones([1, 1], bool)))
    gradient = tape.gradient(loss, [logits])[0].numpy()
    np.testing.assert_allclose(gradient[~box], 1 / (~box).sum(), rtol=1e-3)
    np.testing.assert_allclose(gradient[box], 0.0, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_edges_that_agree_with_colours_cost_less_than_any_shifted_mask(noise) -> None:
    side, mask = 32, disc(32, 15.2, 16.4, 8.0)
    rng = np.random.default_rng(0)
    pixels = np.where(mask[..., None], [150.0, 60.0, 50.0], [60.0, 120.0, 70.0])
    pixels = (pixels + rng.normal(0, noise, pixels.shape)).astype(np.float32)[None, None]
    one, everything = np.ones([1, 1], bool), np.ones([1, 1, side, side], bool)
    similar = colour.colour_similarity(tf.constant(pixels), tf.constant(everything))

    def pairwise(other: np.ndarray) -> float:
        box = box_of(mask)[None, None]
        return float(losses.mean(losses.pairwise_loss(logits_of(other, 8.0), similar, box, one)))

    exact = pairwise(mask)
    assert exact < 0.01
    shifts = [shift for shift in itertools.product(range(-3, 4), repeat=2) if shift != (0, 0)]
    assert min(pairwise(np.roll(mask, shift, axis=(0, 1))) for shift in shifts) > 5 * exact
    assert pairwise(disc(side, 15.2, 16.4, 9.5)) > 5 * exact


def test_no_pattern_of_a_surface_is_free() -> None:
    """On one colour, only masks of one value cost nothing: not chessboards, nor stripes."""
    side, one = 32, np.ones([1, 1], bool)
    everything = np.ones([1, 1, side, side], bool)
    similar = colour.colour_similarity(tf.zeros([1, 1, side, side, 3]), tf.constant(everything))

    def pairwise(mask: np.ndarray) -> float:
        return float(losses.mean(losses.pairwise_loss(logits_of(mask, 8.0), similar, everything, one)))

    rows, columns = np.indices([side, side])
    assert pairwise(np.ones([side, side], bool)) < 0.01
    for period in (2, 3, 4):
        for line in (rows, columns, rows + columns, rows - columns, rows + 2 * columns, 2 * rows + columns):
            assert pairwise(line % period == 0) > 1.0


def test_box_and_colours_together_find_a_shape() -> None:
    """Descending on both from a blurred box ends at the disc that only the colours show."""
    side, mask = 24, disc(24, 12.0, 12.0, 7.0)
    pixels = np.where(mask[..., None], [150.0, 60.0, 50.0], [60.0, 120.0, 70.0]).astype(np.float32)[None, None]
    one, box = np.ones([1, 1], bool), box_of(mask)[None, None]
    similar = colour.colour_similarity(tf.constant(pixels), tf.ones([1, 1, side, side], tf.bool))
    rows, columns = np.mgrid[:side, :side] + 0.5
    start = 1.0 - np.hypot(rows - 12, columns - 12) / 6
    logits = tf.Variable(start[None, None], dtype=tf.float32)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = losses.mean(losses.projection_loss(logits, box, one))
            loss += losses.mean(losses.pairwise_loss(logits, similar, box, one))
        logits.assign_sub(30.0 * tape.gradient(loss, [logits])[0])

    for _ in range(200):
        step()
    found = logits.numpy()[0, 0] > 0
    assert (found & mask).sum() / (found | mask).sum() > 0.95


def test_teacher_loss() -> None:
    """Against NumPy; what does not apply may hold anything."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 5, 5)).astype(np.float32)
    taught = generator.random((2, 3, 5, 5), np.float32)
    weights = generator.random((2, 3), np.float32)
    applies = np.array([[True, False, True], [False, True, True]])
    probabilities = 1 / (1 + np.exp(-logits))
    entropy = -(taught * np.log(probabilities) + (1 - taught) * np.log(1 - probabilities)).sum(axis=(2, 3))
    logits[~applies], taught[~applies], weights[~applies] = np.nan, np.nan, np.nan
    loss = losses.teacher_loss(*(tf.constant(values) for values in (logits, taught, weights, applies)))
    assert float(loss.total) == pytest.approx((entropy * weights)[applies].sum(), rel=1e-5)
    assert float(loss.count) == pytest.approx(25 * weights[applies].sum(), rel=1e-6)


def test_extent_iou() -> None:
    masks = np.zeros((1, 3, 6, 6), bool)
    masks[0, 0, 1, 2] = masks[0, 0, 3, 4] = True  # its extent is rows 1 to 3, columns 2 to 4
    masks[0, 1, :, :] = True
    boxes = np.zeros((1, 3, 6, 6), bool)
    boxes[:, :, 1:4, 2:6] = True  # 12 cells
    found = mask_ops.extent_iou(tf.constant(masks), tf.constant(boxes))
    np.testing.assert_allclose(found, [[9 / 12, 12 / 36, 0.0]], rtol=1e-6)
