"""FCIS on several views of an image: each region reads the scale that suits its size, then all vote once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from maskx_tf.models.fcis.head import PositionDetector, RegionReading, best_classes, joined
from maskx_tf.models.fcis.voting import Voters
from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import images as image_ops
from maskx_tf.structures import Detections, Proposals

BEST_SIDE = 224.0  # a region reads the scale in which its area is nearest to the square of this


class RegionView(NamedTuple):
    """The maps of one view of an image, and the detector that reads them.

    Attributes:
        detector: the detector of the model that made the maps.
        maps: the maps of scores and of deltas, [1, H, W, D] each.
        size: float32 [1, 2], height and width of the image on the canvas of this view.
        flip: the view is mirrored left to right.
    """

    detector: PositionDetector
    maps: tuple[tf.Tensor, tf.Tensor]
    size: tf.Tensor
    flip: bool

    def read(self, boxes: tf.Tensor, image_size: tf.Tensor) -> RegionReading:
        """Reads these maps at boxes [1, N, 4] of an image of size [1, 2], as if the view were not mirrored."""
        own = image_ops.to_original(boxes, image_size, self.size)
        if not self.flip:
            return self.detector.read(self.maps, own)
        left, top, right, bottom = tf.unstack(own, axis=-1)
        width = self.size[0, 1]
        reading = self.detector.read(self.maps, tf.stack([width - right, top, width - left, bottom], axis=-1))
        return RegionReading(reading.pooled[:, :, :, ::-1], reading.logits, reading.deltas * [-1.0, 1.0, 1.0, 1.0])


def detect_in_views(
    scales: Sequence[Sequence[RegionView]], proposals: Proposals, image_size: tf.Tensor, score: float | None = None
) -> Detections:
    """Returns the detections of one image for which the regions of all views vote.

    Args:
        scales: for each scale its views: mirrored and not, of one model or of several with the same classes. What they
            say of a region is averaged.
        proposals: the regions of the first pass; more than one pass moves them, as in one view.
        image_size: float32 [1, 2], height and width of the image in pixels of the proposals and of the detections.
        score: see `PositionDetector.detect`.
    """
    detector = scales[0][0].detector
    boxes, valid, found = proposals.boxes, proposals.valid, []
    for _ in range(detector.passes):
        read = [own for own in zip(scales, _by_scale(scales, boxes, image_size), strict=True) if len(own[1])]
        kept = [tf.gather(valid, own, axis=1) for _, own in read]
        passed = [
            _read(detector, views, tf.gather(boxes, own, axis=1), flags, image_size)
            for (views, own), flags in zip(read, kept, strict=True)
        ]
        found += [voters for voters, _ in passed]
        # Not the voters' own flags: a region that is too small to vote may be large enough once it has moved.
        boxes, valid = tf.concat([moved for _, moved in passed], axis=1), tf.concat(kept, axis=1)
    return detector.vote(joined(found), image_size, score)


def _by_scale(scales: Sequence[Sequence[RegionView]], boxes: tf.Tensor, image_size: tf.Tensor) -> list[tf.Tensor]:
    """For each scale the indices of the boxes [1, N, 4] that read it."""
    factors = tf.stack([tf.reduce_prod(views[0].size / image_size) for views in scales])
    areas = box_ops.area(boxes)[0, :, None] * factors
    nearest = tf.argmin(tf.abs(areas - BEST_SIDE**2), axis=1)
    return [tf.where(nearest == number)[:, 0] for number in range(len(scales))]


def _read(
    detector: PositionDetector,
    views: Sequence[RegionView],
    boxes: tf.Tensor,
    valid: tf.Tensor,
    image_size: tf.Tensor,
) -> tuple[Voters, tf.Tensor]:
    """Returns the mean readings of boxes by the views of one scale, and the moved boxes."""
    readings = [view.read(boxes, image_size) for view in views]
    scores = _mean([tf.nn.softmax(reading.logits) for reading in readings])
    best = best_classes(scores)
    masks = _mean(
        [
            tf.sigmoid(view.detector.scores.mask_logits(reading.pooled, best))
            for view, reading in zip(views, readings, strict=True)
        ]
    )
    moved = detector.moved(boxes, _mean([reading.deltas for reading in readings]), image_size)
    return detector.voters(boxes, scores, masks, valid), moved


def _mean(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(parts) / len(parts)
