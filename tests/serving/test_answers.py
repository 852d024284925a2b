"""Answers, made of the outputs of a server."""

from __future__ import annotations

import numpy as np
import pytest

from maskx_tf.serving.client.answers import of_image
from maskx_tf.visualize import draw

OUTPUTS = {
    "num_detections": np.array([3]),
    "image_info": np.array([[40.0, 60.0, 40.0, 60.0, 0.0]]),
    "image_status": np.array([b"ok"], object),
    "detection_boxes": np.array([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1], [0, 0, 0, 0]]]),
    "detection_scores": np.array([[0.9, 0.8, 0.7, 0.0]]),
    "detection_classes": np.array([[44, 7, 44, 0]]),
    "detection_class_names": np.array([[b"cat", b"dog", b"cat", b""]], object),
}


def test_classes_are_numbered_for_drawing() -> None:
    answer = of_image(OUTPUTS, 0)
    found, names = answer.numbered()
    assert names == ("cat", "dog")
    assert found.classes.tolist() == [1, 2, 1]
    assert answer.detections.classes.tolist() == [44, 7, 44]
    assert (draw(np.zeros([*answer.size, 3], np.uint8), found, names) > 0).any()


def test_classes_without_names_cannot_be_numbered() -> None:
    nameless = of_image({key: value for key, value in OUTPUTS.items() if key != "detection_class_names"}, 0)
    with pytest.raises(ValueError, match="needs names"):
        nameless.numbered()
