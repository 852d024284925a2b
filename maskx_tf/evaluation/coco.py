"""COCO's average precision of boxes, masks and keypoints, by pycocotools or the faster evaluator, over sets of classes.

One evaluation over all classes serves every set of them, because classes are matched separately: the mean
over a set is what pycocotools gives when its categories are filtered. Classes without an object are left out.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskx_tf.errors import BadInput
from maskx_tf.evaluation.keypoints import names_of, sigmas_of
from maskx_tf.evaluation.truth import IouKind, Truth, of_kind
from maskx_tf.files import Json

Engine = Literal["pycocotools", "faster"]
IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
LIMITS = (1, 10, 100)  # detections of a class in an image that count
AREAS = ("", "s", "m", "l")  # all; under 32^2 pixels; under 96^2; larger
AP75 = 5  # the place of IoU .75 among .5, .55, ..., .95
EVERY_IOU = slice(None)
# Suffixes of AP and AR in the names of keypoints' figures, indices of IoUs, and indices of sizes (none for small).
KEYPOINT_FIGURES = (("", EVERY_IOU, 0), ("50", 0, 0), ("75", AP75, 0), ("m", EVERY_IOU, 1), ("l", EVERY_IOU, 2))


class Scores(NamedTuple):
    """The results of an evaluation; -1 where a class has no object of a size.

    Attributes:
        categories: the K category ids, ascending.
        precision: float64 [10 IoUs, 101 recalls, K, 4 sizes], of the most detections a class and image.
        recall: float64 [10 IoUs, K, 4 sizes, 3 limits].
            Of keypoints, 3 sizes (all, medium, large) and one limit, 20.
        limits: detections of a class in an image that count.
    """

    categories: tuple[int, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    limits: tuple[int, ...] = LIMITS


def score(
    truth: Truth,
    results: Sequence[Json],
    kind: IouKind,
    engine: Engine = "pycocotools",
    sigmas: Sequence[float] | None = None,
    limit: int = LIMITS[-1],
) -> Scores:
    """Compares detections with the truth.

    The size of a detection is that of its mask for masks and of its box for boxes, as detectron2 has it.

    Args:
        truth: COCO's mapping.
        results: COCO's results; for masks, each has a segmentation; of keypoints, those that have some count.
        kind: box, mask or keypoint.
        engine: the evaluator to use; both give the same figures.
        sigmas: the sigmas of the keypoints; None for those of `keypoints.sigmas_of`.
        limit: detections of a class in an image that count.

    Raises:
        BadInput: the evaluator is not installed, or there is another number of keypoints than of sigmas.
    """
    holder, comparer = _engine(engine)
    limits = (*LIMITS[:-1], limit)
    wanted = of_kind(truth, kind)
    if kind == "keypoint":
        results = [one for one in results if one.get("keypoints")]
    found = {**wanted, "annotations": [_detection(one, kind, number) for number, one in enumerate(results, 1)]}
    with contextlib.redirect_stdout(io.StringIO()):
        pair = []
        for data in (wanted, found):
            index = holder()
            index.dataset = data
            index.createIndex()
            pair.append(index)
        run = comparer(*pair, IOU_TYPES[kind])
        if kind == "keypoint":
            run.params.kpt_oks_sigmas = np.array(sigmas_of(names_of(truth), sigmas))
        else:
            run.params.maxDets = list(limits)
        run.evaluate()
        run.accumulate()
    precision, recall = np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"])
    return Scores(tuple(int(one) for one in run.params.catIds), precision[..., -1], recall, limits)


def _engine(engine: Engine) -> tuple[Any, Any]:
    """The classes of an evaluator that hold annotations and compare them."""
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise BadInput(
            "the faster evaluator: expected the package faster-coco-eval: pip install 'maskx_tf[eval]'"
        ) from None
    return COCO, COCOeval_faster


def _detection(one: Json, kind: IouKind, number: int) -> Json:
    """A result as the evaluators hold it."""
    entry = {key: one[key] for key in ("image_id", "category_id", "score")} | {"id": number, "iscrowd": 0}
    if kind == "box":
        return entry | {"bbox": one["bbox"], "area": one["bbox"][2] * one["bbox"][3]}
    if kind == "keypoint":
        xs, ys = one["keypoints"][0::3], one["keypoints"][1::3]
        x, y, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        return entry | {"keypoints": one["keypoints"], "bbox": [x, y, width, height], "area": width * height}
    area = int(coco_mask.area(one["segmentation"]))
    return entry | {"segmentation": one["segmentation"], "area": area}


def summary(scores: Scores, kind: IouKind, categories: Iterable[int] | None = None) -> dict[str, float | None]:
    """The mean over these categories, or all, as COCO prints it, in 0..1; None where none of them has an object."""
    at = _places(scores, categories)
    precision, recall = scores.precision[:, :, at], scores.recall[:, at]
    if kind == "keypoint":
        return {
            **{f"AP{name}": _mean(precision[place, :, :, size]) for name, place, size in KEYPOINT_FIGURES},
            **{f"AR{name}": _mean(recall[place, :, size]) for name, place, size in KEYPOINT_FIGURES},
        }
    return {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[0, ..., 0]),
        "AP75": _mean(precision[AP75, ..., 0]),
        **{f"AP{size}": _mean(precision[..., number]) for number, size in enumerate(AREAS) if size},
        **{f"AR{limit}": _mean(recall[:, :, 0, number]) for number, limit in enumerate(scores.limits)},
        **{f"AR{size}": _mean(recall[:, :, number, -1]) for number, size in enumerate(AREAS) if size},
    }


def curves(scores: Scores, categories: Iterable[int] | None = None) -> dict[str, list[float]]:
    """Precision at recall 0, .01, ..., 1, the mean over these categories: at IoU .5, .75, and over all ten IoUs."""
    found = scores.precision[:, :, _places(scores, categories), 0]
    found = found[:, :, found[0, 0] > -1]
    if not found.size:
        return {}
    rows = {"50": found[0], "75": found[AP75], "mean": found.mean(axis=0)}
    return {key: [round(value, 4) for value in row.mean(axis=-1).tolist()] for key, row in rows.items()}


def _places(scores: Scores, categories: Iterable[int] | None) -> list[int]:
    chosen = set(scores.categories if categories is None else categories)
    return [place for place, category in enumerate(scores.categories) if category in chosen]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
