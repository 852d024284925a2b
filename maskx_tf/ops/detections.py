"""From scores to candidates to kept boxes: the steps after the heads, for the RPN and for the box head.

The steps are separate for large vocabularies: `candidates` needs only scores, so box deltas are computed only for the
(region, class) pairs that it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from maskx_tf.ops import boxes as box_ops
from maskx_tf.ops import nms as nms_ops
from maskx_tf.ops import sampling
from maskx_tf.structures import Detections, Proposals


class Candidates(NamedTuple):
    """Pairs of a region and a class whose score is above the threshold, best first.

    Attributes:
        regions: int32 [B, C], index of the region.
        classes: int32 [B, C], 1..K.
        scores: float32 [B, C].
        valid: bool [B, C].
    """

    regions: tf.Tensor
    classes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor


def candidates(scores: tf.Tensor, valid: tf.Tensor, *, threshold: float, limit: int) -> Candidates:
    """The best pairs of region and foreground class.

    Args:
        scores: float32 [B, N, K] of the foreground classes, in 0..1.
        valid: bool [B, N].
        threshold: a pair has to score more than this.
        limit: C; pairs beyond it are dropped, which changes nothing as long as the detections that are kept in the
            end are found among the first C.
    """
    regions, classes = scores.shape[1:]
    flat = tf.reshape(tf.where(valid[..., None], scores, nms_ops.NEVER), [-1, regions * classes])
    best, index = nms_ops.top_scores(flat, limit)
    above = best > threshold
    return Candidates(
        regions=tf.where(above, index // classes, 0),
        classes=tf.where(above, index % classes + 1, 0),
        scores=tf.where(above, best, 0.0),
        valid=above,
    )


class Suppression(NamedTuple):
    """How candidates that overlap a better one of their class are suppressed.

    Attributes:
        soft: None: they go. linear, gaussian: they lose score, see `nms.soft_nms`; gaussian reads no threshold.
        sigma: sigma of gaussian.
        vote_iou: boxes become the means, weighted by score, of the candidates that they overlap by at least this;
            None: they stay.
    """

    soft: str | None = None
    sigma: float = 0.5
    vote_iou: float | None = None


HARD = Suppression()


def detections(
    boxes: tf.Tensor,
    chosen: Candidates,
    *,
    image_sizes: tf.Tensor,
    iou_threshold: float,
    limit: int,
    suppression: Suppression = HARD,
    least: float = 0.0,
) -> Detections:
    """Class-wise suppression of decoded candidates, without masks.

    Args:
        boxes: float32 [B, C, 4], one for each candidate.
        chosen: the candidates.
        image_sizes: float32 [B, 2], height and width of the image inside its canvas; boxes are clipped to it.
        iou_threshold: suppress above this, within a class.
        limit: D.
        suppression: see `Suppression`.
        least: a candidate whose score soft suppression lowers to this or below goes.
    """
    boxes = box_ops.clip(boxes, image_sizes[:, None, 0], image_sizes[:, None, 1])
    width, height = box_ops.sides(boxes)
    valid = chosen.valid & (width > 0.0) & (height > 0.0)
    given = (boxes, chosen.scores, chosen.classes, valid)
    if suppression.soft is None:
        indices, kept = nms_ops.nms(*given, iou_threshold=iou_threshold, limit=limit)
        scores = tf.where(kept, tf.gather(chosen.scores, indices, batch_dims=1), 0.0)
    else:
        threshold = iou_threshold if suppression.soft == "linear" else None
        indices, kept, scores = nms_ops.soft_nms(
            *given, iou_threshold=threshold, sigma=suppression.sigma, least=least, limit=limit
        )
    own, classes = (tf.gather(part, indices, batch_dims=1) for part in (boxes, chosen.classes))
    if suppression.vote_iou is not None:
        agree = (box_ops.iou(own, boxes) >= suppression.vote_iou) & (classes[..., None] == chosen.classes[:, None])
        weights = tf.where(agree & valid[:, None], chosen.scores[:, None], 0.0)  # [B, D, C]
        own = tf.math.divide_no_nan(tf.matmul(weights, boxes), tf.reduce_sum(weights, axis=-1, keepdims=True))
    return Detections(sampling.where_flagged(kept, own), scores, sampling.where_flagged(kept, classes), kept)


def proposals(
    logits: Sequence[tf.Tensor],
    deltas: Sequence[tf.Tensor],
    anchors: Sequence[tf.Tensor],
    *,
    image_sizes: tf.Tensor,
    candidates_per_level: int,
    limit: int,
    iou_threshold: float,
    min_side: float = 0.0,
    suppress: nms_ops.LevelSuppression = nms_ops.nms_levels,
) -> Proposals:
    """The RPN's proposals: best anchors of each level, decoded, clipped, suppressed per level, best of all.

    Args:
        logits: objectness of each level, float32 [B, A_level].
        deltas: float32 [B, A_level, 4] of each level.
        anchors: float32 [A_level, 4] of each level.
        image_sizes: float32 [B, 2], height and width of the image inside its canvas.
        candidates_per_level: how many of a level's anchors go on before suppression.
        limit: N, how many proposals an image keeps.
        iou_threshold: suppress above this.
        min_side: a side has to be at least this long after clipping, and longer than 0.
        suppress: `nms_levels`, or `nms_levels_portable` on GPUs, under XLA and for LiteRT.
    """
    boxes, scores, valid = [], [], []
    longest = min(candidates_per_level, max(level.shape[1] for level in logits))
    for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
        count = min(candidates_per_level, level_logits.shape[1])
        best, index = tf.math.top_k(level_logits, count)  # [B, count]
        decoded = box_ops.decode(tf.gather(level_deltas, index, batch_dims=1), tf.gather(level_anchors, index))
        decoded = box_ops.clip(decoded, image_sizes[:, None, 0], image_sizes[:, None, 1])
        width, height = box_ops.sides(decoded)
        large = (tf.minimum(width, height) >= min_side) & (tf.minimum(width, height) > 0.0)
        missing = [[0, 0], [0, longest - count]]
        boxes.append(tf.pad(decoded, [*missing, [0, 0]]))
        scores.append(tf.pad(tf.sigmoid(best), missing))
        valid.append(tf.pad(large, missing))
    kept_boxes, kept_scores, kept = suppress(
        tf.stack(boxes, axis=2),
        tf.stack(scores, axis=2),
        tf.stack(valid, axis=2),
        iou_threshold=iou_threshold,
        limit=limit,
    )
    return Proposals(kept_boxes, kept_scores, kept)
