"""Writes detections as Cityscapes' evaluation server takes them: a text file an image, a PNG file a mask.

aachen_000000_000019_leftImg8bit_pred.txt       aachen_000000_000019_leftImg8bit_pred/000.png 26 0.973121
aachen_000000_000019_leftImg8bit_pred/000.png   white where the mask is
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskx_tf.errors import BadInput
from maskx_tf.files import write_text
from maskx_tf.masks.paste import Crop, full
from maskx_tf.names import CITYSCAPES_IDS
from maskx_tf.tasks.pictures import write_picture


class Submission:
    """The folder of a submission, to which images are added.

    Args:
        folder: is made with its first file.
        files: the images that will be added.
        class_names: the class names of the model; classes of other names are left out.

    Raises:
        BadInput: two images have the same name, or the model knows no class of Cityscapes.
    """

    def __init__(self, folder: Path, files: Sequence[Path], class_names: Sequence[str]) -> None:
        self._folder = folder
        labels = {name: label for label, name in CITYSCAPES_IDS.items()}
        self._labels = {name: labels[name] for name in class_names if name in labels}
        if not self._labels:
            known, found = ", ".join(labels), ", ".join(class_names[:3])
            raise BadInput(f"{folder}: expected a model with some of {known}, found {found}")
        seen: dict[str, Path] = {}
        for file in files:
            if seen.setdefault(file.stem, file) != file:
                raise BadInput(f"{folder}: expected images of different names, found {seen[file.stem]} and {file}")

    def add(
        self, file: Path, names: Sequence[str], scores: Sequence[float], crops: Sequence[Crop], size: tuple[int, int]
    ) -> None:
        """Writes what was found in an image; its text file comes last.

        Args:
            file: the image.
            names: the class of each detection.
            scores: 0..1.
            crops: the masks, in pixels of the image; those without a pixel are left out.
            size: height and width of the image.
        """
        stem = f"{file.stem}_pred"
        lines: list[str] = []
        for name, score, crop in zip(names, scores, crops, strict=True):
            if name in self._labels and crop.pixels.any():
                mask = f"{stem}/{len(lines):03}.png"
                write_picture(self._folder / mask, full(crop, *size).astype(np.uint8) * 255)
                lines.append(f"{mask} {self._labels[name]} {score:.6f}\n")
        write_text(self._folder / f"{stem}.txt", "".join(lines))
