"""Makes the masks of an image from a model's predictions: pasted, made by GrabCut, refined, and without overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskx_tf.errors import BadInput
from maskx_tf.masks import grabcut
from maskx_tf.masks.paste import Crop, paste_crops, resolve_contested


@dataclass(frozen=True)
class MaskSteps:
    """The steps after a model's masks. Without any, masks are pasted as they are.

    Attributes:
        grabcut: GrabCut makes the masks of the boxes in place of the model.
        refine: GrabCut moves the outlines of predicted masks, and leaves those with which it disagrees.
        disjoint: a pixel of several masks belongs to the one with the smallest box.
    """

    grabcut: bool = False
    refine: bool = False
    disjoint: bool = False

    @property
    def reads_pixels(self) -> bool:
        """Whether the image is needed."""
        return self.grabcut or self.refine

    @property
    def names(self) -> list[str]:
        """The steps that are on."""
        return [name for name in ("grabcut", "refine", "disjoint") if getattr(self, name)]

    def check(self, outputs: frozenset[str]) -> None:
        """Raises BadInput where the steps do not fit together, a model with these outputs, or what is installed."""
        if self.grabcut and self.refine:
            raise BadInput("refine: expected no grabcut with it, which leaves no predicted mask to refine")
        if (self.refine or self.disjoint) and not self.grabcut and "masks" not in outputs:
            raise BadInput(f"{', '.join(self.names)}: expected a model with masks, found none")
        if self.reads_pixels:
            grabcut.require()

    def crops(
        self,
        boxes: NDArray[np.floating],
        masks: NDArray[np.floating] | None,
        size: tuple[int, int],
        pixels: Callable[[], NDArray[np.uint8]],
        mode: str = "continuous",
    ) -> list[Crop] | None:
        """The masks of an image; None if there are none.

        Args:
            boxes: [D, 4], x1, y1, x2, y2 in pixels of the image.
            masks: predicted probabilities [D, M, M] over the boxes.
            size: height and width of the image.
            pixels: gives the image, uint8 [H, W, 3], if a step reads it.
            mode: see `masks.paste.paste_crop`.
        """
        crops: list[Crop] | None
        if self.grabcut:
            crops = grabcut.segment(pixels(), boxes)
        elif self.refine and masks is not None:
            image = pixels()
            crops = [grabcut.refine(image, box, mask, mode=mode) for mask, box in zip(masks, boxes, strict=True)]
        else:
            crops = paste_crops(masks, boxes, size, mode)
        return resolve_contested(crops, boxes) if self.disjoint and crops is not None else crops


NO_STEPS = MaskSteps()
