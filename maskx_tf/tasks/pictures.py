"""Pictures of data sets and of what a model finds: drawn, put on sheets, written. No TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskx_tf import visualize
from maskx_tf.data import splits
from maskx_tf.data.dataset import Dataset, ImageRecord, area_of, for_learning, loaded
from maskx_tf.data.images import load_pixels, naming
from maskx_tf.errors import BadInput
from maskx_tf.files import new_file
from maskx_tf.masks.crops import crop_mask
from maskx_tf.structures import MASK_SIDE, Detections

MOST_COLUMNS = 6


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes pixels uint8 [H, W, 3], or [H, W] in grey, as a PNG file, in one step.

    Raises:
        BadInput: it cannot be written.
    """
    with new_file(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG")


def contact_sheet(
    dataset: Dataset, policy: splits.Policy, a_names: Set[str], count: int, cell: int, seed: int
) -> NDArray[np.uint8]:
    """Images of a data set, drawn at random, on one sheet with a legend.

    Args:
        dataset: the data set with all masks of its files.
        policy: whose masks are drawn.
        a_names: the classes of A, which have masks to learn from.
        count: the largest number of images.
        cell: side of the place for each, in pixels.
        seed: the seed of the choice.
    """
    seen = for_learning(splits.apply(dataset, policy))
    if not seen.images:
        raise BadInput(f"{dataset.name}: expected images to show, found none")
    chosen = np.random.RandomState(seed).permutation(len(seen.images))[:count]
    records = [seen.images[index] for index in sorted(chosen.tolist())]
    pictures = [picture(record, seen, a_names, cell) for record in records]
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(pictures))))
    captions = [str(record.id) if isinstance(record.file, bytes) else record.file.name for record in records]
    sheet = visualize.contact_sheet(pictures, columns, (cell, cell), captions)
    shown = {one.label for record in records for one in record.instances}
    if shown:
        strip = visualize.legend(seen.class_names, a_names, sheet.shape[1], classes=shown)
        sheet = np.vstack([sheet, strip])
    return sheet


def picture(record: ImageRecord, dataset: Dataset, a_names: Set[str], cell: int) -> NDArray[np.uint8]:
    """One image, drawn in the size in which it is shown, so that its lines and letters can be seen."""
    with naming(record, dataset.name):
        pixels = load_pixels(record)
    instances = sorted(record.instances, key=lambda one: -area_of(one.box))
    masks = np.zeros([len(instances), MASK_SIDE, MASK_SIDE], np.float32)
    for index, one in enumerate(instances):
        if one.segmentation is not None:
            form = loaded(one.segmentation, record.height, record.width)
            masks[index] = crop_mask(form, one.box, record.height, record.width, MASK_SIDE)
    boxes = np.array([one.box for one in instances], np.float32).reshape(-1, 4)
    classes = np.array([one.label for one in instances], np.int32)
    detections = Detections(boxes, None, classes, np.ones(len(instances), bool), masks)
    skeleton: Sequence[tuple[int, int]] = ()
    if dataset.keypoints is not None:
        absent = np.zeros([len(dataset.keypoints.names), 3], np.float32)
        points = np.array([absent if one.keypoints is None else one.keypoints for one in instances], np.float32)
        detections = detections._replace(keypoints=points.reshape(-1, *absent.shape)[..., :2])
        skeleton = dataset.keypoints.skeleton
    drawn = visualize.resized(pixels, detections, cell)
    return visualize.draw(*drawn, dataset.class_names, a_classes=a_names, skeleton=skeleton)


def detections_sheet(
    images: NDArray[np.uint8],
    found: Detections,
    class_names: Sequence[str],
    a_names: Set[str],
    score: float,
    skeleton: Sequence[tuple[int, int]],
) -> NDArray[np.uint8]:
    """The images of a batch with what was found in them, side by side.

    Args:
        images: uint8 [B, H, W, 3].
        found: padded, in pixels of the images.
        class_names: the class names of the model.
        a_names: the classes of A.
        score: detections with at least this score are drawn.
        skeleton: indices of the keypoints between which a line is drawn.
    """
    pictures = []
    for index, pixels in enumerate(images):
        kept = found.valid[index] & (found.scores[index] >= score)
        drawn = visualize.enlarged(pixels, found.mapped(itemgetter((index, kept))))
        pictures.append(visualize.draw(*drawn, class_names, a_classes=a_names, skeleton=skeleton))
    return np.concatenate(pictures, axis=1)
