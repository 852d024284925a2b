"""Converts a server's answer for an image to `Detections` in that image's pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskx_tf.masks.outputs import detections_of
from maskx_tf.masks.paste import paste
from maskx_tf.structures import PASTE_MODES, Detections

# What an answer cannot be read without, and what may be left out of it, under the names of `Detections` and `Answer`.
ALWAYS = ("num_detections", "image_info", "image_status")
PARTS = {
    "boxes": "detection_boxes",
    "scores": "detection_scores",
    "classes": "detection_classes",
    "masks": "detection_masks",
    "keypoints": "detection_keypoints",
    "keypoint_scores": "detection_keypoint_scores",
    "names": "detection_class_names",
}
OUTPUT_TYPES = {  # for JSON, which has one type of number
    "num_detections": np.int32,
    "image_info": np.float32,
    "image_status": np.object_,
    "detection_boxes": np.float32,
    "detection_scores": np.float32,
    "detection_classes": np.int32,
    "detection_masks": np.uint8,
    "detection_keypoints": np.float32,
    "detection_keypoint_scores": np.float32,
    "detection_class_names": np.object_,
}


class Answer(NamedTuple):
    """The detections in one image.

    Attributes:
        detections: best first, without padding: boxes [D, 4] in pixels of the image as people see it; classes are
            ids of the data set; masks float32 [D, M, M]; keypoints [D, P, 2], x and y in pixels of the image. What was
            not asked for, or the model does not have, is None.
        names: the names of the detections' classes; None if not asked for.
        size: height and width of the image; zeros if it could not be read.
        status: "ok", or a word, a colon and the reason why there are no detections.
        paste: the mode of `ops.masks.paste` in which the model's masks are pasted.
    """

    detections: Detections
    names: tuple[str, ...] | None
    size: tuple[int, int]
    status: str
    paste: str

    @property
    def ok(self) -> bool:
        """Whether the image could be read."""
        return self.status == "ok"

    def pasted(self, threshold: float = 0.5) -> NDArray[np.bool_]:
        """The masks in the image, bool [D, height, width]."""
        found = self.detections
        if found.masks is None or found.boxes is None:
            raise ValueError("pasting needs boxes and masks, and the answer lacks one of them")
        return paste(found.masks, found.boxes, *self.size, threshold=threshold, mode=self.paste)

    def numbered(self) -> tuple[Detections, tuple[str, ...]]:
        """The detections with classes 1..n instead of the data set's ids, and their n names: what drawing asks for."""
        if self.names is None:
            raise ValueError("drawing needs names, which the answer lacks")
        names = tuple(dict.fromkeys(self.names))
        classes = np.array([names.index(name) + 1 for name in self.names], np.int32)
        return self.detections._replace(classes=classes), names


def output_filter(parts: tuple[str, ...] | None) -> list[str]:
    """Names of outputs for names of parts; none for all of them.

    Raises:
        ValueError: a part of that name does not exist.
    """
    if parts is None:
        return []
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part {part!r}, expected some of {', '.join(PARTS)}")
    return [*ALWAYS, *(PARTS[part] for part in parts)]


def of_image(outputs: Mapping[str, np.ndarray], index: int) -> Answer:
    """The answer for one image of a batch.

    Raises:
        ValueError: outputs are missing: the server's model is none of ours.
    """
    missing = [name for name in ALWAYS if name not in outputs]
    if missing:
        raise ValueError(f"the answer lacks {', '.join(missing)}, expected a model exported by maskx")
    height, width, *_, mode = map(int, outputs["image_info"][index])
    found = detections_of(outputs, index)
    names = outputs.get(PARTS["names"])
    return Answer(
        found,
        None if names is None else tuple(_text(name) for name in names[index][: len(found.valid)]),
        (height, width),
        _text(outputs["image_status"][index]),
        PASTE_MODES[mode],
    )


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
