"""Family fcis as a whole: it predicts, learns, segments given boxes, and refuses impossible settings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import losses as loss_ops
from maskx_tf.errors import BadInput
from maskx_tf.models.build import build
from maskx_tf.models.fcis import targets as fcis_targets
from maskx_tf.models.fcis.scores import AgnosticScores
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from tests.models import small
from tests.models.small_fcis import fcis_config, fcis_model

RFCN = {"scores": "average", "passes": 1, "size": 3}


@pytest.fixture(scope="module")
def model() -> RCNN:
    return fcis_model(fcis_config())


def test_it_finds_boxes_and_masks(model) -> None:
    """Boxes are the enclosing boxes of masks, of whole pixels, inside the images, best first, and zero in padding."""
    found = model(small.inputs())
    valid = found.valid.numpy()
    assert valid[:, 0].all()
    boxes = found.boxes.numpy()
    np.testing.assert_array_equal(boxes, np.round(boxes))
    height, width = small.IMAGE_SIZES.T
    assert (boxes[..., 2] <= width[:, None]).all()
    assert (boxes[..., 3] <= height[:, None]).all()
    assert (np.diff(found.scores.numpy()) <= 0).all()
    assert (np.diff(valid.astype(int)) <= 0).all()
    masks = found.masks.numpy()
    assert masks.shape == (2, 7, 6, 6)
    assert (masks[~valid] == 0).all()
    assert ((masks[valid] >= 0.5).any(axis=(1, 2))).all()


def test_traced_and_alone_it_finds_the_same(model) -> None:
    asked = small.inputs()
    expected = model(asked)
    predictor = Predictor(model, (small.SIDE, small.SIDE))
    small.assert_same_detections(predictor.detect(asked["images"], asked["image_sizes"]), expected)
    alone = predictor.detect(asked["images"][1:], asked["image_sizes"][1:])
    small.assert_same_detections(alone, small.of_image(expected, 1))


def test_masks_of_given_boxes(model, monkeypatch) -> None:
    """The mask of a given box is that of its own maps, without a vote; the class is the likeliest if none is given."""
    small.predict_eagerly(monkeypatch)
    asked = small.inputs()
    boxes = tf.constant([[[4.0, 6.0, 30.0, 38.0], [20.0, 10.0, 50.0, 45.0]]] * 2)
    predictor = Predictor(model, (small.SIDE, small.SIDE))
    likeliest = predictor.segment(asked["images"], asked["image_sizes"], boxes)
    again = predictor.segment(asked["images"], asked["image_sizes"], boxes, likeliest.classes)
    np.testing.assert_allclose(likeliest.masks, again.masks, atol=1e-6)
    others = predictor.segment(asked["images"], asked["image_sizes"], boxes, likeliest.classes % 3 + 1)
    assert np.abs(others.masks - again.masks).max() > 0.1


@pytest.mark.parametrize("ohem", [False, True])
def test_losses_and_gradients(ohem) -> None:
    """Every part has a loss that reaches its weights, and masks that are not known teach nothing."""
    settings = fcis_config(fcis={"ohem": ohem})
    model = fcis_model(settings)
    with tf.GradientTape() as tape:
        losses = model.losses_of(*small.loss_inputs())
        total = tf.add_n([loss_ops.mean(loss) for loss in losses.values()])
    assert tuple(losses) == model.loss_names()
    assert {"loss_class", "loss_mask", "loss_box"} < set(losses)
    variables = model.trainable_variables
    gradients = tape.gradient(total, [variable.value for variable in variables])
    for variable, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
    kept = 2 * 16  # of both images
    assert float(losses["loss_class"].count) == kept
    none = small.truth(has_mask=((False,) * 3,) * 2)
    without = model.losses_of(*small.loss_inputs(none))
    assert float(without["loss_mask"].total) == 0.0
    assert float(without["loss_box"].total) > 0.0


def test_one_cell_of_maps_is_plain_averaging() -> None:
    """k = 1: where in a region a pixel lies makes no difference to what it says."""
    model = fcis_model(fcis_config(fcis={"group": 1}))
    detector, maps = model.box, tf.random.stateless_normal([1, 4, 4, 8], [1, 2])
    box = tf.constant([[[16.0, 16.0, 48.0, 48.0]]])
    logits = detector.read((maps, maps[..., :4]), box).logits
    outside, inside = tf.split(maps[:, 1:3, 1:3], 2, axis=-1)
    np.testing.assert_allclose(logits[0, 0], tf.reduce_mean(tf.maximum(outside, inside), axis=[0, 1, 2]), atol=1e-5)


@pytest.mark.parametrize("scores", ["separate", "agnostic", "average"])
def test_what_it_is_compared_with(scores) -> None:
    """Separate and shared maps draw masks as well; R-FCN has none, and its boxes are moved by the deltas."""
    model = fcis_model(fcis_config(fcis=RFCN if scores == "average" else {"scores": scores, "pooling": "bilinear"}))
    found = model(small.inputs())
    assert found.valid.numpy().any()
    assert (found.masks is None) == (scores == "average")
    losses = model.losses_of(*small.loss_inputs())
    assert ("loss_mask" in losses) == (scores != "average")
    assert np.isfinite([float(loss_ops.mean(loss)) for loss in losses.values()]).all()


def test_a_shared_map_draws_the_same_mask_for_every_class() -> None:
    """InstanceFCN with R-FCN: the last channel is the mask, the others are averaged to scores."""
    pooled = tf.random.stateless_normal([1, 2, 6, 6, 5], [1, 2])
    scores = AgnosticScores()
    np.testing.assert_allclose(scores.class_logits(pooled), np.mean(pooled, axis=(2, 3))[..., :4], atol=1e-6)
    first, second = (scores.mask_logits(pooled, tf.constant([classes])) for classes in ([1, 2], [3, 1]))
    np.testing.assert_array_equal(first, pooled[..., 4])
    np.testing.assert_array_equal(first, second)
    model = fcis_model(fcis_config(fcis={"scores": "agnostic"}))
    assert model.box.maps.scores.filters == 3**2 * (3 + 1 + 1)


def test_rfcn_is_portable_and_fcis_says_why_not() -> None:
    plain = fcis_model(fcis_config(fcis=RFCN))
    portable = fcis_model(fcis_config(fcis=RFCN), portable=True)
    predictor = Predictor(portable, (small.SIDE, small.SIDE), jit=True)
    small.assert_same_detections(predictor.detect(*small.inputs().values()), plain(small.inputs()))
    with pytest.raises(BadInput, match="voted for in windows as large as their boxes"):
        build(fcis_config(), portable=True)


def test_regions_are_filled_up() -> None:
    """The reference's rule: foreground up to its share, background, and then all that is not foreground, in turn."""
    foreground = np.array([[True, True, False, False, False, True]])
    background = np.array([[False, False, True, False, False, False]])
    usable = np.array([[True, True, True, True, False, True]])
    keys = [tf.constant([[1, 9, 0, 2, 10, 5]])] * 3
    chosen = fcis_targets.choose_regions(foreground, background, usable, keys, size=9, foreground_limit=2)
    assert chosen.foreground.numpy().tolist() == [[True] * 2 + [False] * 7]
    assert chosen.valid.numpy().all()
    # 1 and 5 are the foreground, 2 is the background; 3, 0 and 2 fill up by their keys, again and again.
    assert chosen.indices.numpy().tolist() == [[1, 5, 2, 3, 0, 2, 3, 0, 2]]
    nothing = np.zeros_like(usable)
    empty = fcis_targets.choose_regions(nothing, nothing, nothing, keys, size=4, foreground_limit=1)
    assert not empty.valid.numpy().any()
