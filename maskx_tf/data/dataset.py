"""The records that every reader fills: a data set, its images, and the instances that an image shows.

Nothing here depends on the format that a file has, or on TensorFlow. Classes are numbered 1..K in the order of
`class_names`; the ids that a data set itself gives to its categories are kept next to them and used only at the edges.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskx_tf import files
from maskx_tf.errors import BadInput, reason
from maskx_tf.masks import crops as mask_crops
from maskx_tf.masks.rle import Rle
from maskx_tf.structures import Field, KeypointSet, points_field

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the image
# Each x1, y1, x2, y2, ...; an eighth of what a list of numbers takes. In quotes for Python 3.11's array.
Polygons: TypeAlias = "tuple[array[float], ...]"
Id = int | str

LEAST_SIDE_OF_BOX = 1.0  # pixels; a box that is thinner after it was cut at the border of the image is not used


@dataclass(frozen=True)
class MaskFile:
    """A mask that stays in its file until it is needed: an image in which all pixels but 0 are mask."""

    path: Path

    def load(self, height: int, width: int) -> NDArray[np.bool_]:
        """The mask in the size of its image; Open Images stores it in another.

        Raises:
            BadInput: the file is missing or cannot be decoded.
        """
        try:
            with files.open_regular(self.path) as file, Image.open(file) as image:
                resized = image.resize((width, height), Image.Resampling.NEAREST)
                mask = np.asarray(resized if resized.mode in ("1", "L", "I;16", "I", "P") else resized.convert("L")) > 0
        except Exception as error:  # the decoders raise errors of any type
            raise BadInput(f"{self.path}: expected a mask: {reason(error)}") from None
        return mask


Segmentation: TypeAlias = "Polygons | Rle | MaskFile"


class Instance(NamedTuple):
    """One object.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image, continuous: pixel i covers [i, i + 1).
        label: its class, 1..K.
        crowd: whether it stands for several objects, and so is no target.
        segmentation: its mask, or None if it is known by its box alone.
        id: the id of its annotation, as in the file.
        mask_source: what made its mask, such as grabcut; None for a true mask. Evaluation takes true masks alone.
        mask_quality: the quality of a made mask, 0..1.
        keypoints: [P, 3]: x and y in pixels of the image, continuous as the box, and 0 for a keypoint that is not
            there, 1 for a hidden and 2 for a visible one; None if they are unknown.
        clicks: [Q, 3]: points that someone has labelled, x and y in pixels of the image, continuous as the box, and 1
            for a point on the object, 2 for a point outside it; None if there is none.
        area: of an object with keypoints, in pixels, as the file has it: the measure of keypoints depends on it. None
            stands for the area of its mask, or else of its box.
    """

    box: Box
    label: int
    crowd: bool = False
    segmentation: Segmentation | None = None
    id: Id = 0
    mask_source: str | None = None
    mask_quality: float | None = None
    keypoints: NDArray[np.float32] | None = None
    clicks: NDArray[np.float32] | None = None
    area: float | None = None

    @property
    def has_mask(self) -> bool:
        """Whether training may see its mask. Nothing else decides this."""
        return self.segmentation is not None

    @property
    def keypoint_count(self) -> int:
        """How many keypoints it has, hidden ones included."""
        return 0 if self.keypoints is None else int((self.keypoints[:, 2] > 0).sum())

    def with_mask(self, segmentation: Segmentation | None) -> Instance:
        """The same instance with another mask, which is true, or with none."""
        area = self.area if segmentation is None else None  # a mask has its own
        return self._replace(segmentation=segmentation, mask_source=None, mask_quality=None, area=area)


class ImageRecord(NamedTuple):
    """One image.

    Attributes:
        id: its id in the data set, where it is unique.
        file: the path of the file, or its encoded bytes.
        width: the recorded width in pixels.
        height: the recorded height in pixels.
        instances: the instances in the order of the file.
    """

    id: Id
    file: Path | bytes
    width: int
    height: int
    instances: tuple[Instance, ...] = ()


class Dataset(NamedTuple):
    """Images and what is known about them.

    Attributes:
        name: the name of its file or folder, for messages.
        class_names: class k is class_names[k - 1].
        category_ids: the data set's own number of each class, in the same order.
        images: the images in the order of the file.
        keypoints: what the keypoints of its instances are; None if none has any.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: tuple[ImageRecord, ...]
    keypoints: KeypointSet | None = None

    @property
    def points(self) -> tuple[Field, ...]:
        """The fields of kind points that its instances have, with their number of points."""
        instances = (one for image in self.images for one in image.instances)
        clicks = max((len(one.clicks) for one in instances if one.clicks is not None), default=0)
        of_keypoints = () if self.keypoints is None else (self.keypoints.field,)
        return (*of_keypoints, points_field("clicks", clicks)) if clicks else of_keypoints


def area_of(box: Box) -> float:
    """The area of a box, in pixels."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def clip(box: Box, width: int, height: int) -> Box:
    """The part of a box that lies in the image."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)


def is_usable(box: Box) -> bool:
    """Whether a clipped box is large enough to learn from."""
    return box[2] - box[0] >= LEAST_SIDE_OF_BOX and box[3] - box[1] >= LEAST_SIDE_OF_BOX


def for_learning(dataset: Dataset) -> Dataset:
    """The data set with boxes cut at the border of their image, and without instances of which nothing is left."""

    def cut(image: ImageRecord) -> ImageRecord:
        instances = (one._replace(box=clip(one.box, image.width, image.height)) for one in image.instances)
        return image._replace(instances=tuple(one for one in instances if is_usable(one.box)))

    return dataset._replace(images=tuple(cut(image) for image in dataset.images))


def loaded(segmentation: Segmentation, height: int, width: int) -> mask_crops.MaskForm:
    """The segmentation in a form that `masks.crops` takes; a mask in a file is read."""
    if isinstance(segmentation, MaskFile):
        return segmentation.load(height, width)
    return cast(Sequence[Sequence[float]], segmentation) if isinstance(segmentation, tuple) else segmentation


def bitmap(segmentation: Segmentation, height: int, width: int) -> NDArray[np.bool_]:
    """The mask in full, bool [height, width]."""
    return mask_crops.decode(loaded(segmentation, height, width), height, width)
