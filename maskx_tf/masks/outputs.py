"""Converts an export's arrays for an image to `Detections`; a server sends the same arrays as the SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskx_tf.structures import Detections


def detections_of(outputs: Mapping[str, np.ndarray], index: int) -> Detections:
    """The detections of one image of a batch, without padding, in its pixels; parts that are not there are None."""
    count = int(outputs["num_detections"][index])
    corner = outputs["image_info"][index][1::-1].astype(np.float32)  # width and height

    def part(name: str) -> Any:
        values = outputs.get(f"detection_{name}")
        return None if values is None else values[index][:count]

    boxes, masks, points = part("boxes"), part("masks"), part("keypoints")
    return Detections(
        None if boxes is None else (boxes[:, [1, 0, 3, 2]] * np.tile(corner, 2)).astype(np.float32),
        part("scores"),
        part("classes"),
        np.ones(count, bool),
        None if masks is None else masks.astype(np.float32) / np.float32(255),
        None if points is None else (points[..., ::-1] * corner).astype(np.float32),
        part("keypoint_scores"),
    )
