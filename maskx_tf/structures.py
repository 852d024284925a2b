"""The named tuples that travel between rooms: padded tensors beside the flags that say which entries are real.

Every array may be a TensorFlow tensor or a NumPy array, so this file imports neither: the serving client, which
runs without TensorFlow, reads the same `Detections` as the model writes. Shape letters are those of ARCHITECTURE.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Targets(NamedTuple):
    """Ground truth of a batch, padded to G instances an image.

    Attributes:
        boxes: float32 [B, G, 4], xyxy in pixels of the network input.
        classes: int32 [B, G], 1..K; 0 in padding.
        valid: bool [B, G], false in padding.
        crowd: bool [B, G], regions of many objects, which are nobody's target.
        masks: float32 [B, G, S, S] in 0..1, each mask stretched over its own box; zeros where there is none.
        has_mask: bool [B, G], false for instances that are known by their box alone.
    """

    boxes: Any
    classes: Any
    valid: Any
    crowd: Any
    masks: Any
    has_mask: Any


class Proposals(NamedTuple):
    """Regions that may hold an object, best first.

    Attributes:
        boxes: float32 [B, N, 4], xyxy in pixels of the network input; zeros in padding.
        scores: float32 [B, N] in 0..1; zeros in padding.
        valid: bool [B, N].
    """

    boxes: Any
    scores: Any
    valid: Any


class Detections(NamedTuple):
    """What the model found, best first, padded to D an image.

    Attributes:
        boxes: float32 [B, D, 4], xyxy in pixels; zeros in padding.
        scores: float32 [B, D] in 0..1; zeros in padding.
        classes: int32 [B, D], 1..K; 0 in padding.
        valid: bool [B, D].
        masks: float32 [B, D, M, M] probabilities, each stretched over its own box; None for a model without masks.
    """

    boxes: Any
    scores: Any
    classes: Any
    valid: Any
    masks: Any = None
