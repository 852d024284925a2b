"""Pixels of any kind that Pillow reads, as RGB of 8 bits: the same for training, prediction and a served model."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB: grey gets three equal channels, transparency is dropped, of 16 bits the upper 8 stay.

    That is what TensorFlow's decoders make of them; Pillow by itself would cut 16 bits off at 255.

    Raises:
        ValueError: its pixels are floating point numbers, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of a transparency that nobody asked for
    return image.convert("RGB")
