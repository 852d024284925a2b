"""The mask branch computes the regions that teach, and learns what it would learn from all."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.models import masks
from maskx_tf.models.rcnn import RCNN
from tests.models.small import config, loss_inputs, small_model, truth


@pytest.fixture(scope="module")
def model() -> RCNN:
    return small_model(config(family="mask_rcnn", box={"rois": 64}, backbone={"name": "resnet_small"}))


def test_sizes() -> None:
    assert masks.region_sizes(128) == [16, 32, 64, 128]
    assert masks.region_sizes(32) == [16, 32]
    assert masks.region_sizes(8) == [8]


@pytest.mark.parametrize("side", [14, 16])
def test_packed_masks_of_any_side(side: int) -> None:
    cells = np.random.default_rng(0).integers(0, 2, [3, side * side], np.uint8)
    batch = {
        "pooled": np.zeros([3, 2, 2, 1], np.float16),
        "pixels": np.zeros([3, 0], np.uint8),
        "classes": np.ones(3, np.int32),
        "masks": np.packbits(cells, axis=1),
        "has_mask": np.ones(3, np.uint8),
        "boxes": np.zeros([3, 4], np.float32),
        "truth_boxes": np.zeros([3, 4], np.float32),
        "image_sizes": np.ones([3, 2], np.float32),
    }
    regions = masks.pooled_regions_of({name: tf.constant(value) for name, value in batch.items()}, side)
    np.testing.assert_array_equal(regions.truth, cells.reshape(3, 1, side, side))


@pytest.mark.parametrize(
    ("sections", "side"),
    [
        ({}, 28),
        ({"roi": {"mask_size": 7}}, 14),
        ({"mask": {"head": "mlp", "mlp_side": 9}}, 9),
        ({"backbone": {"name": "resnet50", "neck": "c4"}}, 14),
        ({"backbone": {"name": "resnet50", "neck": "c4"}, "roi": {"mask_size": 7}}, 8),
    ],
)
def test_side_of_a_mask(sections: dict, side: int) -> None:
    """See also `test_c4_with_an_odd_mask_size`."""
    assert config(**{"family": "mask_rcnn", **sections}).mask_side == side


@pytest.mark.parametrize("has_mask", [((True, True, False), (False, True, False)), ((False,) * 3,) * 2])
def test_losses_and_gradients_are_those_of_all_regions(
    model: RCNN, has_mask: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = loss_inputs(truth(has_mask=has_mask))
    computed: list[int] = []
    pool = masks.MaskBranch.pool_regions
    monkeypatch.setattr(
        masks.MaskBranch,
        "pool_regions",
        lambda self, scene, chosen, truth: computed.append(chosen.boxes.shape[1]) or pool(self, scene, chosen, truth),
    )

    def learn() -> tuple[masks.Loss, list[tf.Tensor]]:
        weights = [variable.value for variable in model.mask.head.trainable_variables]
        with tf.GradientTape() as tape:
            loss = model.losses_of(*inputs)["loss_mask"]
        return loss, [tf.convert_to_tensor(one) for one in tape.gradient(loss.total, weights)]

    few, few_gradients = learn()
    monkeypatch.setattr(masks, "SMALLEST", 1000)
    full, gradients = learn()
    assert computed[1] == 32
    assert computed[0] < 32
    assert (float(full.count) > 0) == np.any(has_mask)
    np.testing.assert_array_equal(few.count, full.count)
    np.testing.assert_allclose(few.total, full.total, rtol=1e-5)
    for one, other in zip(few_gradients, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(tf.reduce_max(tf.abs(other))) + 1e-9)
