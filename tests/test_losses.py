"""Every loss, with and without anything that counts, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses
from tests import reference
from tests import reference_losses as slow
from tests.checks import assert_forms_agree

BETAS = pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
NORMALISERS = pytest.mark.parametrize("normaliser", ["sampled", "fixed"])
SHAPE = (2, 6)
# Some foreground, some background, some padding; then an image of padding.
VALID = np.array([[True] * 5 + [False], [True, True, False, False, False, False]])
FOREGROUND = np.array([[True, True, False, False, True, True], [True, False, True, False, False, False]])
NOTHING = np.zeros(SHAPE, bool)


def random(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (*SHAPE, *shape)).astype(np.float32)


def value_and_gradient(
    loss: Callable[[tf.Tensor], losses.Loss], values: np.ndarray
) -> tuple[losses.Loss, float, np.ndarray]:
    """The loss, its mean, and the gradient of the mean."""
    tensor = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        result = loss(tensor)
        mean = losses.mean(result)
    assert result.total.shape == result.count.shape == mean.shape == ()
    return result, float(mean), tape.gradient(mean, tensor).numpy()


def check(
    loss: Callable[[tf.Tensor], losses.Loss],
    expected: Callable[[np.ndarray], tuple[float, float]],
    values: np.ndarray,
) -> None:
    """Total, count, mean and gradient against the loops; the gradient by central differences of the loops' mean."""
    result, mean, gradient = value_and_gradient(loss, values)
    total, count = expected(values.astype(np.float64))
    np.testing.assert_allclose(result.total, total, rtol=1e-5, atol=1e-6)
    assert float(result.count) == count
    np.testing.assert_allclose(mean, slow.mean((total, count)), rtol=1e-5, atol=1e-6)
    numeric = reference.numeric_gradient(lambda moved: slow.mean(expected(moved)), values)
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)


def check_nothing_counts(loss: Callable[[tf.Tensor], losses.Loss], values: np.ndarray) -> None:
    """Loss and gradient exactly zero, whatever stands in the values."""
    for anything in (values, np.full_like(values, np.nan), np.full_like(values, np.inf)):
        result, mean, gradient = value_and_gradient(loss, anything)
        assert float(result.total) == 0.0
        assert mean == 0.0
        assert gradient.shape == values.shape
        assert (gradient == 0.0).all()


def test_mean() -> None:
    assert float(losses.mean(losses.Loss(tf.constant(3.0), tf.constant(4.0)))) == 0.75
    assert float(losses.mean(losses.Loss(tf.constant(0.0), tf.constant(0.0)))) == 0.0
    assert np.isnan(losses.mean(losses.Loss(tf.constant(np.nan), tf.constant(0.0))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_loss_is_nan_if_an_output_is_not_finite(bad: float) -> None:
    """With its gradient; otherwise both stay equal to the bit."""
    outputs = [tf.ones([2, 3]), tf.constant([1.0, bad], tf.bfloat16)]
    for seen, factor in ((outputs[:1], 1.0), (outputs, np.nan)):
        total = tf.constant(3.3)
        with tf.GradientTape() as tape:
            tape.watch(total)
            loss = losses.nan_unless_finite(losses.Loss(total, tf.constant(4.0)), seen)
        np.testing.assert_array_equal(loss.total, np.float32(3.3) * np.float32(factor))
        np.testing.assert_array_equal(tape.gradient(loss.total, total), factor)
        assert float(loss.count) == 4.0


@BETAS
def test_smooth_l1(beta) -> None:
    errors = np.array([-3, -1.01, -1, -0.5, -1 / 9, -0.05, 0, 0.05, 0.12, 0.99, 1, 2.5, 1e4], np.float32)
    expected = [slow.smooth_l1(error, beta) for error in errors.astype(np.float64)]
    np.testing.assert_allclose(losses.smooth_l1(tf.constant(errors), beta), expected, rtol=1e-5, atol=1e-7)


def test_smooth_l1_known_values() -> None:
    np.testing.assert_allclose(losses.smooth_l1(tf.constant([0.5, 2.0, -2.0]), 1.0), [0.125, 1.5, 1.5])
    np.testing.assert_allclose(losses.smooth_l1(tf.constant([0.5, 2.0, -2.0]), 0.0), [0.5, 2.0, 2.0])


@BETAS
def test_smooth_l1_gradient(beta) -> None:
    errors = np.array([-3, -0.5, -0.05, 0.05, 0.3, 2.5, 1e4], np.float32)
    tensor = tf.constant(errors)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(losses.smooth_l1(tensor, beta))
    numeric = reference.numeric_gradient(lambda moved: sum(slow.smooth_l1(error, beta) for error in moved), errors)
    np.testing.assert_allclose(tape.gradient(total, tensor), numeric, atol=1e-4)


@BETAS
def test_smooth_l1_gradient_at_zero(beta) -> None:
    tensor = tf.zeros([3])
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(losses.smooth_l1(tensor, beta))
    np.testing.assert_array_equal(tape.gradient(total, tensor), [0, 0, 0])


@NORMALISERS
def test_objectness_loss(normaliser) -> None:
    deltas = tf.constant(random(1, 4))
    logits = random(0, scale=3)
    logits[0, :3] = [60, -60, 0]
    check(
        lambda values: losses.rpn_losses(values, deltas, deltas, FOREGROUND, VALID, normaliser=normaliser)[0],
        lambda values: slow.objectness_loss(values, FOREGROUND, VALID, normaliser),
        logits,
    )


@NORMALISERS
@BETAS
def test_rpn_box_loss(normaliser, beta) -> None:
    logits, targets = tf.constant(random(0)), random(2, 4)
    check(
        lambda values: losses.rpn_losses(logits, values, targets, FOREGROUND, VALID, beta=beta, normaliser=normaliser)[
            1
        ],
        lambda values: slow.box_loss(values, targets, FOREGROUND, VALID, beta, fixed=normaliser == "fixed"),
        random(1, 4),
    )


@NORMALISERS
def test_rpn_losses_of_nothing(normaliser) -> None:
    targets = random(2, 4)
    for which, values in enumerate((random(0), random(1, 4))):
        other = tf.constant(random(3, *([4] if which == 0 else [])))

        def loss(moved: tf.Tensor, which: int = which, other: tf.Tensor = other) -> losses.Loss:
            inputs = (moved, other) if which == 0 else (other, moved)
            return losses.rpn_losses(*inputs, targets, FOREGROUND, NOTHING, normaliser=normaliser)[which]

        check_nothing_counts(loss, values)


def test_rpn_normaliser_is_one_of_two() -> None:
    deltas = tf.zeros([*SHAPE, 4])
    with pytest.raises(ValueError, match="normaliser is 'images', expected sampled or fixed"):
        losses.rpn_losses(tf.zeros(SHAPE), deltas, deltas, FOREGROUND, VALID, normaliser="images")


@pytest.mark.parametrize("classes", [1, 4, 3000])
def test_class_loss(classes) -> None:
    labels = np.random.default_rng(4).integers(0, classes + 1, SHAPE)
    labels[0, 0] = classes
    logits = random(5, classes + 1, scale=2)
    logits[0, 1, 0] = 80
    if classes < 10:
        check(
            lambda values: losses.class_loss(values, labels, VALID),
            lambda values: slow.class_loss(values, labels, VALID),
            logits,
        )
    else:
        expected = slow.mean(slow.class_loss(logits.astype(np.float64), labels, VALID))
        np.testing.assert_allclose(losses.mean(losses.class_loss(logits, labels, VALID)), expected, rtol=1e-5)


def test_class_loss_of_equal_logits() -> None:
    """log(K + 1), over the regions that are there."""
    loss = losses.class_loss(tf.zeros([*SHAPE, 5]), np.zeros(SHAPE, np.int32), VALID)
    assert float(loss.count) == 7
    np.testing.assert_allclose(losses.mean(loss), np.log(5), rtol=1e-6)


def test_class_loss_of_nothing() -> None:
    labels = np.zeros(SHAPE, np.int32)
    check_nothing_counts(lambda values: losses.class_loss(values, labels, NOTHING), random(6, 5))


@pytest.mark.parametrize("soft", [True, False])
def test_mask_loss(soft) -> None:
    targets = np.random.default_rng(9).random((*SHAPE, 3, 3)).astype(np.float32)
    targets = targets if soft else np.round(targets)
    logits = random(10, 3, 3, scale=3)
    logits[0, 0, 0] = [70, -70, 0]
    check(
        lambda values: losses.mask_loss(values, targets, FOREGROUND),
        lambda values: slow.mask_loss(values, targets, FOREGROUND),
        logits,
    )


def test_softmax_mask_loss() -> None:
    targets = np.random.default_rng(11).random((*SHAPE, 2, 2)).astype(np.float32)
    targets[0, 0, 0] = [0.5, 0.25]
    classes = np.random.default_rng(12).integers(1, 4, SHAPE)
    check(
        lambda values: losses.softmax_mask_loss(values, targets, classes, FOREGROUND),
        lambda values: slow.softmax_mask_loss(values, targets, classes, FOREGROUND),
        random(13, 2, 2, 4, scale=2),
    )


def mask_losses(
    targets: np.ndarray, has_mask: np.ndarray
) -> list[tuple[Callable[[tf.Tensor], losses.Loss], np.ndarray]]:
    """Both mask losses with logits that fit."""
    classes = np.full(SHAPE, 2)
    return [
        (lambda values: losses.mask_loss(values, targets, has_mask), random(14, 3, 3)),
        (lambda values: losses.softmax_mask_loss(values, targets, classes, has_mask), random(15, 3, 3, 4)),
    ]


def test_mask_losses_without_any_mask() -> None:
    for targets in (random(16, 3, 3), np.full([*SHAPE, 3, 3], np.nan, np.float32)):
        for loss, logits in mask_losses(targets, NOTHING):
            check_nothing_counts(loss, logits)


def test_mask_losses_do_not_see_regions_without_mask() -> None:
    """NaN and infinity there, in logits and targets, change neither loss nor gradient elsewhere."""
    targets = np.random.default_rng(17).random((*SHAPE, 3, 3)).astype(np.float32)
    spoilt_targets = targets.copy()
    spoilt_targets[~FOREGROUND] = np.nan
    for (loss, logits), (spoilt_loss, _) in zip(
        mask_losses(targets, FOREGROUND), mask_losses(spoilt_targets, FOREGROUND), strict=True
    ):
        _, mean, gradient = value_and_gradient(loss, logits)
        assert mean > 0
        assert np.abs(gradient).max() > 0
        for anything in (np.nan, np.inf, -np.inf, 1e30):
            spoilt = logits.copy()
            spoilt[~FOREGROUND] = anything
            _, spoilt_mean, spoilt_gradient = value_and_gradient(spoilt_loss, spoilt)
            assert spoilt_mean == mean
            np.testing.assert_array_equal(spoilt_gradient, gradient)
            assert (spoilt_gradient[~FOREGROUND] == 0).all()


@pytest.mark.parametrize("where", ["background", "padding"])
def test_no_loss_sees_what_does_not_count(where) -> None:
    """NaN in padding everywhere, and in the deltas of background."""
    spoilt = ~VALID if where == "padding" else ~FOREGROUND
    targets, labels = random(18, 4), np.where(FOREGROUND & VALID, 1, 0)
    cases = [
        (lambda values: losses.rpn_losses(tf.zeros(SHAPE), values, targets, FOREGROUND, VALID)[1], random(20, 4)),
    ]
    if where == "padding":
        cases += [
            (lambda values: losses.class_loss(values, labels, VALID), random(21, 3)),
            (lambda values: losses.rpn_losses(values, targets, targets, FOREGROUND, VALID)[0], random(22)),
        ]
    for loss, values in cases:
        _, mean, gradient = value_and_gradient(loss, values)
        assert mean > 0
        with_nan = values.copy()
        with_nan[spoilt] = np.nan
        _, spoilt_mean, spoilt_gradient = value_and_gradient(loss, with_nan)
        assert spoilt_mean == mean
        np.testing.assert_array_equal(spoilt_gradient, gradient)


def test_losses_of_parts_add_up() -> None:
    """However a batch is split, sums and counts give the loss of the whole."""
    targets = np.random.default_rng(23).random((*SHAPE, 3, 3)).astype(np.float32)
    for loss, logits in [
        (lambda values, image: losses.mask_loss(values, targets[image], FOREGROUND[image]), random(24, 3, 3)),
        (lambda values, image: losses.class_loss(values, np.ones(values.shape[:2], int), VALID[image]), random(25, 4)),
    ]:
        whole = losses.mean(loss(logits, slice(None)))
        parts = [loss(logits[image : image + 1], slice(image, image + 1)) for image in range(2)]
        total, count = (sum(float(part[index]) for part in parts) for index in range(2))
        np.testing.assert_allclose(total / count, whole, rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_logits_give_float32_losses(dtype) -> None:
    """Summed in float32, as of the same logits in float32."""
    deltas, logits, masks = (
        tf.cast(random(seed, *shape), dtype) for seed, shape in ((26, [4]), (27, []), (28, [3, 3]))
    )
    targets = random(29, 4)

    def all_losses(*values: tf.Tensor) -> list[losses.Loss]:
        return [
            *losses.rpn_losses(values[0], values[1], targets, FOREGROUND, VALID),
            losses.class_loss(values[1], np.ones(SHAPE, int), VALID),
            losses.mask_loss(values[2], np.ones([*SHAPE, 3, 3], np.float32), FOREGROUND),
        ]

    halves = all_losses(logits, deltas, masks)
    exact = all_losses(*(tf.cast(values, tf.float32) for values in (logits, deltas, masks)))
    for half, full in zip(halves, exact, strict=True):
        assert half.total.dtype == half.count.dtype == tf.float32
        np.testing.assert_allclose(half.total, full.total, rtol=1e-6)


def test_forms() -> None:
    targets, labels = random(30, 4), np.where(FOREGROUND & VALID, 3, 0).astype(np.int32)
    masks = np.random.default_rng(31).random((*SHAPE, 3, 3)).astype(np.float32)

    def all_losses(logits: tf.Tensor, deltas: tf.Tensor, classes: tf.Tensor, pixels: tf.Tensor) -> list[losses.Loss]:
        return [
            *losses.rpn_losses(logits, deltas, targets, FOREGROUND, VALID),
            losses.class_loss(classes, labels, VALID),
            losses.mask_loss(pixels, masks, FOREGROUND),
            losses.mask_loss(pixels * np.nan, masks, NOTHING),
            losses.softmax_mask_loss(tf.stack([pixels] * 4, axis=-1), masks, labels, FOREGROUND & VALID),
        ]

    assert_forms_agree(all_losses, random(32), random(33, 4), random(34, 5), random(35, 3, 3))
