"""The operations of a mobile model convert to LiteRT's own operators and give the same there."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf.ops import nms as nms_ops
from maskx_tf.ops import roi_align as align_ops
from tests.litert import converted
from tests.pyramid import BOXES, LEVELS, STRIDES, feature_maps


@pytest.mark.parametrize("samples", [2, 0])
def test_roi_align_gather(samples: int) -> None:
    options = {"strides": STRIDES, "size": 3, "samples": samples}

    def pool(p2: tf.Tensor, p3: tf.Tensor, p4: tf.Tensor, boxes: tf.Tensor, levels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pooled": align_ops.roi_align_gather([p2, p3, p4], boxes, levels, **options)}

    maps = [level.astype(np.float32) for level in feature_maps(batch=1)]
    inputs = dict(zip(["p2", "p3", "p4", "boxes", "levels"], [*maps, BOXES[:1], LEVELS[:1]], strict=True))
    np.testing.assert_allclose(converted(pool, inputs)["pooled"], pool(**inputs)["pooled"], atol=1e-5)


def test_nms() -> None:
    def suppress(boxes: tf.Tensor, scores: tf.Tensor, groups: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        indices, kept = nms_ops.nms(boxes, scores, groups, valid, iou_threshold=0.5, limit=10)
        soft = nms_ops.soft_nms(boxes, scores, groups, valid, least=0.1, limit=10)
        return {"indices": indices, "kept": kept, "soft": soft[0], "soft_scores": soft[2]}

    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 30, (1, 25, 2))
    inputs = {
        "boxes": np.concatenate([corner, corner + rng.uniform(5, 20, (1, 25, 2))], axis=-1).astype(np.float32),
        "scores": rng.permutation(25)[None].astype(np.float32) / 25,
        "groups": rng.integers(1, 3, (1, 25), dtype=np.int32),
        "valid": rng.random((1, 25)) < 0.9,
    }
    found, expected = converted(suppress, inputs), suppress(**inputs)
    assert 3 < expected["kept"].numpy().sum() <= 10
    np.testing.assert_array_equal(found["indices"], expected["indices"])
    np.testing.assert_array_equal(found["kept"], expected["kept"])
    np.testing.assert_array_equal(found["soft"], expected["soft"])
    np.testing.assert_allclose(found["soft_scores"], expected["soft_scores"], atol=1e-6)
