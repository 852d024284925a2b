"""The box head against loops: what is flattened how, and rows of weights by class."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.layers import box_head
from maskx_tf.layers.box_head import BoxPredictor, FullyConnectedHead, Res5Head, Res5Pool
from maskx_tf.layers.roi_pool import RoiPooler
from tests import reference_layers as reference
from tests.layers.catalogue import boxes, normal

FEATURES = normal(2, 3, 7)  # two images, three regions, seven features


def randomise(layer: keras.layers.Layer) -> None:
    for number, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=number))


def predictor(**options) -> BoxPredictor:
    layer = BoxPredictor(4, **options)
    layer.build(FEATURES.shape)
    randomise(layer)
    return layer


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fully_connected(layers) -> None:
    """Regions are flattened row by row, pixel by pixel (HWC); ReLU follows every layer."""
    layer = FullyConnectedHead(5, layers=layers)
    pooled = normal(2, 3, 2, 2, 4)
    layer.build(pooled.shape)
    randomise(layer)
    for image, region in np.ndindex(2, 3):
        row = np.array([pooled[image, region, y, x, c] for y in range(2) for x in range(2) for c in range(4)])
        for dense in layer.dense:
            row = reference.relu(reference.dense(row, (np.array(dense.kernel), np.array(dense.bias))))
        np.testing.assert_allclose(layer(pooled)[image, region], row, atol=1e-4)


def test_fully_connected_start() -> None:
    """Caffe2's XavierFill: uniform within the root of 3 / fan-in (spec/maskx.md, section 1)."""
    layer = FullyConnectedHead(64)
    layer.build((None, None, 7, 7, 32))
    for dense, fan_in in zip(layer.dense, (7 * 7 * 32, 64), strict=True):
        bound, kernel = (3.0 / fan_in) ** 0.5, np.abs(dense.kernel)
        assert 0.98 * bound < kernel.max() <= bound
        np.testing.assert_allclose(kernel.mean(), bound / 2, rtol=0.05)
        np.testing.assert_array_equal(dense.bias, 0.0)


def test_class_logits() -> None:
    layer = predictor()
    assert layer.class_rows.shape == (5, 7)
    logits = layer(FEATURES)
    assert logits.dtype == tf.float32
    for image, region, number in np.ndindex(2, 3, 5):
        expected = float(np.dot(layer.class_rows.numpy()[number], FEATURES[image, region])) + layer.class_bias[number]
        np.testing.assert_allclose(logits[image, region, number], expected, atol=1e-5)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_deltas(class_agnostic) -> None:
    """Rows 4 (c - 1) .. 4 (c - 1) + 3 of Detectron's bbox_pred without its background, for class c."""
    layer = predictor(class_agnostic=class_agnostic)
    rows = 1 if class_agnostic else 4
    assert layer.box_rows.shape == (rows, 4, 7)
    flat, bias = layer.box_rows.numpy().reshape(4 * rows, 7), layer.box_bias.numpy().reshape(4 * rows)
    classes = np.array([[1, 4, 2], [3, 3, 1]], np.int32)
    deltas = layer.deltas(tf.constant(FEATURES), tf.constant(classes))
    assert deltas.dtype == tf.float32
    for image, region, coordinate in np.ndindex(2, 3, 4):
        row = coordinate if class_agnostic else 4 * (classes[image, region] - 1) + coordinate
        expected = float(np.dot(flat[row], FEATURES[image, region])) + bias[row]
        np.testing.assert_allclose(deltas[image, region, coordinate], expected, atol=1e-5)


@pytest.mark.parametrize("few", [1, 4])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_deltas_of_pairs(class_agnostic, few, monkeypatch) -> None:
    """Those of all classes, of which some are taken, and those computed for the pairs alone."""
    monkeypatch.setattr(box_head, "FEW_CLASSES", few)
    layer = predictor(class_agnostic=class_agnostic)
    regions, classes = np.array([[2, 0, 2, 1, 0], [1, 1, 0, 2, 2]]), np.array([[1, 4, 2, 3, 0], [3, 3, 1, 4, 0]])
    deltas = layer.deltas_of_pairs(tf.constant(FEATURES), tf.constant(regions), tf.constant(classes))
    expected = layer.deltas(np.take_along_axis(FEATURES, regions[..., None], axis=1), tf.constant(classes))
    assert deltas.shape == (2, 5, 4)
    np.testing.assert_allclose(deltas, expected, atol=1e-5)


def test_deltas_of_background_are_harmless() -> None:
    """Padding has class 0: it reads the first class's rows and must not fail, nor under XLA."""
    layer = predictor()
    of_zero, of_one = (layer.deltas(tf.constant(FEATURES), tf.fill([2, 3], number)) for number in (0, 1))
    np.testing.assert_array_equal(of_zero, of_one)


def test_predictor_start() -> None:
    layer = BoxPredictor(50)
    layer.build((None, None, 256))
    np.testing.assert_allclose(np.std(layer.class_rows), 0.01, rtol=0.05)
    np.testing.assert_allclose(np.std(layer.box_rows), 0.001, rtol=0.05)
    np.testing.assert_array_equal(layer.class_bias, 0.0)
    np.testing.assert_array_equal(layer.box_bias, 0.0)


@pytest.fixture(scope="module")
def res5() -> Res5Head:
    keras.utils.set_random_seed(0)
    layer = Res5Head("resnet50", epsilon=1e-3)
    layer.build((None, None, 4, 4, 8))
    return layer


def test_res5_head(res5) -> None:
    """The stage on every region by itself, then the average over its cells."""
    pooled = normal(2, 3, 4, 4, 8)
    spatial, vectors = res5.spatial(tf.constant(pooled)), res5(tf.constant(pooled))
    assert spatial.shape == (2, 3, 2, 2, 2048)
    expected = res5.stage(tf.constant(pooled[1, 2][None]))[0]
    np.testing.assert_allclose(spatial[1, 2], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(vectors, np.mean(spatial, axis=(2, 3)), rtol=1e-4, atol=1e-4)


def test_res5_pool(res5) -> None:
    pool = RoiPooler(4, strides=(16,))
    layer = Res5Pool(pool, res5)
    features, regions = [tf.constant(normal(2, 4, 4, 8))], tf.constant(boxes())
    assert (layer.size, layer.strides) == (2, (16,))
    expected = res5.spatial(pool(features, regions))
    result = layer(features, regions)
    assert result.shape[2] == layer.size
    np.testing.assert_array_equal(result, expected)


def test_res5_pool_of_odd_size(res5) -> None:
    layer = Res5Pool(RoiPooler(7, strides=(16,)), res5)
    assert layer([tf.constant(normal(2, 4, 4, 8))], tf.constant(boxes())).shape[2] == layer.size


def test_embedding_layout() -> None:
    """w_det = [w_cls; w_box], w_box the four rows one after the other (spec/maskx.md, section 1)."""
    layer = predictor()
    rows = reference.embeddings(layer.class_rows.numpy(), layer.box_rows.numpy(), "cls_box")
    assert rows.shape == (4, 35)
    flat = layer.box_rows.numpy().reshape(16, 7)
    np.testing.assert_array_equal(rows[2, :7], layer.class_rows.numpy()[3].astype(np.float64))
    for coordinate in range(4):
        np.testing.assert_array_equal(rows[2, 7 + 7 * coordinate :][:7], flat[8 + coordinate].astype(np.float64))
