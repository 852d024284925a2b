"""COCO's results: what pycocotools makes of the pasted masks, and boxes as it writes them."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.masks.paste import paste, paste_crops
from maskx_tf.masks.results import coco_results
from maskx_tf.structures import Detections


@pytest.mark.parametrize("mode", ["continuous", "integer"])
def test_results_are_those_of_masks_pasted_in_full(mode: str) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(-20, 60, [12, 2])
    boxes = np.concatenate([corners, corners + random.uniform(0.2, 70, [12, 2])], axis=1).astype(np.float32)
    found = Detections(
        boxes=boxes,
        scores=random.uniform(0, 1, 12).astype(np.float32),
        classes=random.integers(1, 4, 12),
        valid=np.ones(12, bool),
        masks=random.uniform(0, 1, [12, 14, 14]).astype(np.float32),
    )
    crops = paste_crops(found.masks, boxes, (50, 70), mode)
    results = coco_results(found, (50, 70), 7, (3, 90, 1), crops)
    for result, box, score, number, mask in zip(results, boxes, found.scores, found.classes, found.masks, strict=True):
        pixels = paste(mask[None], box[None], 50, 70, mode=mode)[0]
        expected = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
        assert result["segmentation"] == {"size": [50, 70], "counts": expected["counts"].decode()}
        np.testing.assert_allclose(result["bbox"], [*box[:2], *(box[2:] - box[:2])], atol=6e-4)
        assert abs(result["score"] - score) < 1e-6
        assert (result["image_id"], result["category_id"]) == (7, (3, 90, 1)[number - 1])
    assert coco_results(found, (50, 70), 7, None, paste_crops(None, boxes, (50, 70), mode))[0].keys() == {
        "image_id",
        "category_id",
        "bbox",
        "score",
    }
