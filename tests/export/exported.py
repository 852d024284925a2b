"""A small model, exported once per session, and images for it."""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from maskx_tf import cli
from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.config import Config, ModelConfig
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import Detections
from tests.models.small import config, small_model

CATEGORY_IDS = (17, 18, 99)
SIZES = ((64, 64), (50, 90), (33, 44), (120, 70))  # of the images: one of them fills its canvas


@functools.cache
def model() -> tuple[RCNN, ModelConfig]:
    settings = config(backbone={"name": "resnet_small", "frozen_stages": 0})
    return small_model(settings), settings


@functools.cache
def fine_model() -> tuple[RCNN, ModelConfig]:
    """One whose mask head reads pixels and draws 64 x 64 masks, and which finds as much as a model may."""
    mask = {"channels": 16, "convs": 1, "trunk": "hourglass", "pixels": True, "margin": 0.1}
    settings = config(
        backbone={"name": "resnet_small", "frozen_stages": 0},
        mask=mask,
        roi={"mask_size": 32},
        rpn={"pre_nms_test": 200, "post_nms_test": 200, "nms_iou": 0.9},
        detections={"limit": 100, "score": 0.0, "nms_iou": 0.9},
    )
    return small_model(settings), settings


def saved(name: str, model: tuple[RCNN, ModelConfig], **facts: Any) -> Path:
    """The folder of a model, written now."""
    network, settings = model
    path = folder() / name
    checkpoints.save(network, Config(model=settings), path, category_ids=CATEGORY_IDS, **facts)
    return path


@functools.cache
def fine_folder() -> Path:
    return saved("fine", fine_model())


@functools.cache
def keypoint_model() -> tuple[RCNN, ModelConfig]:
    """One with boxes, masks, and keypoints of two of its three classes."""
    names = ("nose", "left ear", "right ear")
    settings = config(
        family="mask_rcnn",
        backbone={"name": "resnet_small", "frozen_stages": 0},
        roi={"keypoint_size": 6},
        keypoint={
            "use": True,
            "names": names,
            "flip": (names[1:],),
            "skeleton": (("nose", "left ear"), ("nose", "right ear")),
            "classes": ("dog", "horse"),
            "convs": 2,
            "channels": 16,
        },
    )
    return small_model(settings), settings


@functools.cache
def keypoint_folder() -> Path:
    return saved("keypoints", keypoint_model())


@functools.cache
def folder() -> Path:
    """A place for the session's exports."""
    path = Path(tempfile.mkdtemp(prefix="maskx-exports-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def model_folder() -> Path:
    return saved("model", model(), a_classes=["cat"])


@functools.cache
def exported() -> Path:
    """The folder of one version, written by the command."""
    metrics = folder() / "metrics.json"
    metrics.write_text('{"mask_ap": 0.25}')
    arguments = [str(model_folder()), "--out", str(folder() / "pets"), "--metrics", str(metrics)]
    assert cli.run(["export", "saved-model", *arguments]) == 0
    return folder() / "pets" / "1"


@functools.cache
def signatures() -> Any:
    return tf.saved_model.load(str(exported())).signatures


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of colour, uint8 [height, width, 3]."""
    blocks = np.random.default_rng(seed).uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3))
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def detections(outputs: dict[str, Any], index: int) -> Detections:
    """What an answer says of one image, as the Python model would: pixels, classes 1..K, only what is there."""
    values = {name: np.asarray(value)[index] for name, value in outputs.items()}
    count = int(values["num_detections"])
    height, width = values["image_info"][:2]
    classes = np.searchsorted(CATEGORY_IDS, values["detection_classes"][:count]) + 1
    boxes = values["detection_boxes"][:count][:, [1, 0, 3, 2]] * [width, height, width, height]
    masks = values["detection_masks"][:count] / np.float32(255)
    return Detections(boxes, values["detection_scores"][:count], classes, np.ones(count, bool), masks)
