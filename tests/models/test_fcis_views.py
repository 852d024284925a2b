"""FCIS on several views of an image, against one view and against what follows from the definition."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.models.branch import Scene
from maskx_tf.models.fcis.views import RegionView, detect_in_views
from maskx_tf.prediction.images import ImagePredictor, View
from maskx_tf.prediction.views import Look, agreed
from maskx_tf.structures import Proposals
from tests.models import small
from tests.models.small_fcis import fcis_config, fcis_model

CELLS, STRIDE = 8, 16
SIZE = tf.constant([[CELLS * STRIDE, CELLS * STRIDE]], tf.float32)


@pytest.fixture(scope="module")
def settings():
    return fcis_config(fcis={"pooling": "bilinear"})


@pytest.fixture(scope="module")
def model(settings):
    return fcis_model(settings)


def maps_of(model, number: int, rng: np.random.Generator | None = None, times: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps whose scores speak for one class everywhere, or random ones, and deltas that move nothing."""
    detector = model.box
    group, rows = detector.pool.group**2, len(small.CLASSES) + 1
    side = times * CELLS
    shape = (1, side, side, group, 2, rows)
    scores = np.zeros(shape, np.float32) if rng is None else rng.normal(size=shape).astype(np.float32)
    if rng is None:
        scores[..., number] = 9.0
    deltas = np.zeros((1, side, side, group * 4), np.float32)
    return tf.constant(scores.reshape(1, side, side, -1)), tf.constant(deltas)


def mirrored(maps: tf.Tensor, group: int) -> tf.Tensor:
    """The maps of the mirrored image: cells and columns of the grid change places."""
    cells = maps.numpy().reshape(1, CELLS, CELLS, group, group, -1)
    return tf.constant(cells[:, :, ::-1, :, ::-1].reshape(maps.shape))


def test_mirrored_view_reads_the_same(model) -> None:
    plain = RegionView(model.box, maps_of(model, 0, np.random.default_rng(0)), SIZE, flip=False)
    maps = tuple(mirrored(part, model.box.pool.group) for part in plain.maps)
    boxes = tf.constant([[[16.0, 32, 64, 112], [0, 0, 128, 128], [80, 16, 128, 64]]])
    ours, theirs = (view.read(boxes, SIZE) for view in (plain, RegionView(model.box, maps, SIZE, flip=True)))
    np.testing.assert_allclose(ours.pooled, theirs.pooled, atol=1e-4)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)


def test_mirrored_deltas_move_the_other_way(model) -> None:
    group = model.box.pool.group
    scores, _ = maps_of(model, 1)
    right = tf.constant(np.tile(np.array([0.3, 0.1, 0.2, 0.0], np.float32), [1, CELLS, CELLS, group**2]))
    boxes = tf.constant([[[16.0, 32, 64, 112]]])
    reading = RegionView(model.box, (scores, right), SIZE, flip=True).read(boxes, SIZE)
    np.testing.assert_allclose(reading.deltas, [[[-0.3, 0.1, 0.2, 0.0]]], atol=1e-6)


def test_region_reads_the_scale_that_suits_it(model) -> None:
    """Sides of 112 and 56 are 224 in views twice and four times as large."""
    views = [
        [RegionView(model.box, maps_of(model, 1, times=2), 2 * SIZE, flip=False)],
        [RegionView(model.box, maps_of(model, 2, times=4), 4 * SIZE, flip=False)],
    ]
    boxes = tf.constant([[[0.0, 0, 112, 112], [64, 64, 120, 120]]])
    found = detect_in_views(views, Proposals(boxes, tf.ones([1, 2]), tf.ones([1, 2], tf.bool)), SIZE)
    kept = found.valid[0].numpy()
    large = found.boxes[0, :, 2].numpy() - found.boxes[0, :, 0].numpy() > 80
    assert set(found.classes[0].numpy()[kept & large]) == {1}
    assert set(found.classes[0].numpy()[kept & ~large]) == {2}


def test_small_region_that_grows_votes_as_in_one_view(model) -> None:
    """It is too small to vote in the first pass, and reads the maps again where the first has moved it."""
    scores, _ = maps_of(model, 1)
    growth = np.array([0.0, 0.0, 5.0, 5.0], np.float32)  # with weights of 2: exp(2.5) times as large
    maps = scores, tf.constant(np.tile(growth, [1, CELLS, CELLS, model.box.pool.group**2]))
    proposals = Proposals(tf.constant([[[60.0, 60, 60.9, 60.9]]]), tf.ones([1, 1]), tf.ones([1, 1], tf.bool))
    one = model.box.detect_on(maps, Scene(tf.zeros([1, 128, 128, 3]), SIZE, []), proposals)
    several = detect_in_views([[RegionView(model.box, maps, SIZE, flip=False)]], proposals, SIZE)
    assert one.valid.numpy().any()
    for name in ("boxes", "scores", "classes", "valid", "masks"):
        np.testing.assert_allclose(getattr(several, name), getattr(one, name), atol=1e-5, err_msg=name)


def test_views_are_averaged(model) -> None:
    """One view is sure of class 1, the mirrored one of class 2: each has half of the score."""
    views = [[RegionView(model.box, maps_of(model, number), SIZE, flip=number == 2) for number in (1, 2)]]
    boxes = tf.constant([[[0.0, 0, 112, 112]]])
    found = detect_in_views(views, Proposals(boxes, tf.ones([1, 1]), tf.ones([1, 1], tf.bool)), SIZE)
    kept = found.valid[0].numpy()
    assert set(found.classes[0].numpy()[kept]) == {1, 2}
    np.testing.assert_allclose(found.scores[0].numpy()[kept], 0.5, atol=1e-3)


def test_agreed_votes_over_views_and_models(model, settings, monkeypatch) -> None:
    small.predict_eagerly(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    models = [ImagePredictor(one, settings) for one in (model, fcis_model(settings, seed=1))]
    alone = agreed([Look(models[0], View())], image)
    expected = models[0](image)
    np.testing.assert_allclose(alone.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(alone.masks, expected.masks, atol=1e-3)
    looks = [Look(models[0], View()), Look(models[0], View(1.5, flip=True)), Look(models[1], View())]
    found = agreed(looks, image)
    assert len(found.scores) > 0
    assert found.masks.shape[1:] == expected.masks.shape[1:]
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, [2, 3]] <= [60 + 1e-3, 50 + 1e-3]).all()
    assert (np.diff(found.scores) <= 0).all()
