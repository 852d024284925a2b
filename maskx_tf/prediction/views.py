"""Merges the detections of several views (sizes, mirrored or not) and of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.config import ModelConfig
from maskx_tf.models.boxes import DetectionFilter
from maskx_tf.models.fcis.head import PositionDetector
from maskx_tf.models.fcis.views import RegionView, detect_in_views
from maskx_tf.ops import images as image_ops
from maskx_tf.ops.detections import Candidates
from maskx_tf.prediction.images import ImagePredictor, View
from maskx_tf.structures import Detections, Proposals

SCALES = (0.75, 1.0, 1.25)  # of the short side


class Look(NamedTuple):
    """A model and the view in which it looks at an image."""

    predictor: ImagePredictor
    view: View


def views_of(config: ModelConfig, augment: bool | Sequence[int]) -> tuple[View, ...]:
    """The views of test-time augmentation, each also mirrored.

    Args:
        config: the `model` section.
        augment: False: the plain view alone. True: short sides of 3/4, 1 and 5/4 of `input.short_side`. Or short sides.
    """
    if augment is False:
        return (View(),)
    scales = SCALES if augment is True else [side / config.input.short_side for side in augment]
    return tuple(View(scale, flip) for scale in scales for flip in (False, True))


def agreed(looks: Sequence[Look], image: NDArray[np.uint8]) -> Detections:
    """Returns the merged detections of several views: the union of their boxes after suppression, and mean masks.

    Each look finds boxes; then each segments the boxes that were kept. A keypoint is where the look with its highest
    score finds it. Where regions vote for masks, as in FCIS, those of all looks vote once, and the plain views propose.

    Args:
        looks: models with the same classes and outputs, and masks of one size; the first one's settings suppress.
        image: uint8 [H, W, 3].
    """
    first = looks[0].predictor
    if "masks" in first.model.box.outputs:
        return _voted(looks, image)
    found = [predictor.detect_view(image, view) for predictor, view in looks]
    merged = _union(found, first.config, first.score, image.shape[:2])
    if not first.model.outputs & {"masks", "keypoints"}:
        return merged
    seen = [predictor.segment_view(image, view, merged.boxes, merged.classes) for predictor, view in looks]
    if "masks" in first.model.outputs:
        merged = merged._replace(masks=np.mean([one.masks for one in seen], axis=0))
    if "keypoints" in first.model.outputs:
        scores = np.array([one.keypoint_scores for one in seen])
        best = scores.argmax(axis=0)[None]
        points = np.take_along_axis(np.array([one.keypoints for one in seen]), best[..., None], axis=0)[0]
        merged = merged._replace(keypoints=points, keypoint_scores=scores.max(axis=0))
    return merged


def _voted(looks: Sequence[Look], image: NDArray[np.uint8]) -> Detections:
    """Returns the detections that the regions of all looks vote for; see `models.fcis.views`."""
    plain = [Look(predictor, View()) for predictor in dict.fromkeys(look.predictor for look in looks)]
    first = plain[0]
    seen = {look: look.predictor.features_view(image, look.view) for look in dict.fromkeys([*plain, *looks])}
    image_size = seen[first][1]
    proposed: list[Proposals] = []
    for look in plain:
        features, size = seen[look]
        model = look.predictor.model
        found = model.rpn.test.choose(model.rpn.outputs(features), size)
        proposed.append(found._replace(boxes=image_ops.to_original(found.boxes, size, image_size)))
    scales: dict[float, list[RegionView]] = {}
    for look in looks:
        features, size = seen[look]
        detector = cast(PositionDetector, look.predictor.model.box)  # no other detector has masks
        view = RegionView(detector, detector.maps(features[-1]), size, look.view.flip)
        scales.setdefault(look.view.scale, []).append(view)
    proposals = Proposals(*(tf.concat(parts, axis=1) for parts in zip(*proposed, strict=True)))
    agreed_on = detect_in_views(list(scales.values()), proposals, image_size, first.predictor.score)
    return first.predictor.in_image(agreed_on, image, image_size, first.view)


def _union(found: Sequence[Detections], config: ModelConfig, score: float | None, size: tuple[int, ...]) -> Detections:
    """The boxes of all, suppressed as the model suppresses its own; without masks and keypoints."""
    boxes, scores, classes = (np.concatenate([getattr(one, key) for one in found]) for key in Detections._fields[:3])
    if not len(scores):
        return found[0]._replace(masks=None, keypoints=None, keypoint_scores=None)
    order = np.argsort(-scores, kind="stable")
    chosen = Candidates(
        regions=tf.constant(order[None], tf.int32),
        classes=tf.constant(classes[order][None], tf.int32),
        scores=tf.constant(scores[order][None], tf.float32),
        valid=tf.ones([1, len(order)], tf.bool),
    )
    suppress = DetectionFilter.of(config.detections)
    kept = suppress.detections(
        tf.constant(boxes[order][None], tf.float32), chosen, tf.constant([size], tf.float32), score
    )
    valid = kept.valid[0].numpy()
    return kept.mapped(lambda values: values[0].numpy()[valid])
