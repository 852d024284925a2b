"""A small model of family fcis for tests, with weights that give detections."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from maskx_tf.config import ModelConfig
from maskx_tf.models.build import build
from maskx_tf.models.rcnn import RCNN
from tests.models import small

FCIS: dict[str, Any] = {
    "family": "fcis",
    "class_names": small.CLASSES,
    "input": {"canvas": (small.SIDE, small.SIDE), "short_side": small.SIDE, "long_side": small.SIDE},
    "backbone": {"name": "resnet_small", "neck": "dc5", "norm": "group", "stem_pool": "ceil", "stride_in_1x1": True},
    "anchors": {"sizes": ((8.0, 16.0, 32.0),), "rounding": "detectron"},
    "rpn": {"pre_nms_test": 60, "post_nms_test": 20, "pre_nms_train": 60, "post_nms_train": 20, "samples": 64},
    "box": {"rois": 16, "delta_weights": (5.0, 5.0, 2.0, 2.0), "smooth_l1_beta": 1.0, "background_iou": (0.0, 0.5)},
    "fcis": {"group": 3, "size": 6, "channels": 32, "rpn_channels": 32},
    "mask": {},
    "detections": {"limit": 7, "score": 0.05, "nms_iou": 0.3, "paste": "replicate"},
}


def fcis_config(**sections: Any) -> ModelConfig:
    """The settings above, replaced one by one."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in FCIS.items()}
    for key, value in sections.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return ModelConfig(**merged)


def fcis_model(settings: ModelConfig, *, portable: bool = False, seed: int = 0) -> RCNN:
    """A model whose scores, boxes and masks differ from region to region."""
    keras.utils.set_random_seed(seed)
    model = build(settings, portable=portable)
    rng = np.random.default_rng(seed)
    features = model.features(small.images(), small.IMAGE_SIZES)
    heads = [
        (model.rpn.head.objectness, model.rpn.head.conv(features[0]), 2.0),
        (model.rpn.head.deltas, model.rpn.head.conv(features[0]), 0.2),
        (model.box.maps.scores, features[1], 6.0),
        (model.box.maps.deltas, features[1], 0.5),
    ]
    for conv, read, spread in heads:
        weights, bias = small.spread_out(rng, small.flat(read), conv.filters, spread)
        conv.kernel.assign(weights.T[None, None])
        conv.bias.assign(bias)
    return model
