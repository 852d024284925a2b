"""The measure of keypoints: how far each may lie from its place, and the ten figures that COCO prints."""

from __future__ import annotations

from collections.abc import Sequence

from maskx_tf.errors import BadInput
from maskx_tf.evaluation.truth import Truth

# How much annotators differ, as shares of the square root of an object's area: COCO's, by the part of the body.
PARTS_OF_PERSONS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
USUAL_SIGMA = 0.05  # for other keypoints


def names_of(truth: Truth) -> tuple[str, ...]:
    """The keypoints of the truth's categories; none if no category has any."""
    return next((tuple(one["keypoints"]) for one in truth["categories"] if one.get("keypoints")), ())


def sigmas_of(names: Sequence[str], given: Sequence[float] | None) -> list[float]:
    """The sigma of each keypoint: those given, or else COCO's for its keypoints, or else the usual one.

    Raises:
        BadInput: the number of sigmas is not that of the keypoints.
    """
    if given is not None:
        if len(given) != len(names):
            raise BadInput(f"evaluate.sigmas: expected {len(names)} numbers, one a keypoint, found {len(given)}")
        return list(given)
    parts = [name.removeprefix("left_").removeprefix("right_") for name in names]
    if all(part in PARTS_OF_PERSONS for part in parts):
        return [PARTS_OF_PERSONS[part] for part in parts]
    return [USUAL_SIGMA] * len(names)
