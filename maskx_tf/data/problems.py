"""The kinds of problems in data, what training does about each, and two ways to handle them: refuse, or collect.

A reader reports every problem that it meets and then goes on without the record. Training passes `refuse`, which raises
at the first problem that would make training wrong; `maskx data check` passes a collector, and sees all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from maskx_tf.data.formats.records import Unfit
from maskx_tf.errors import BadInput

Item = TypeVar("Item")
Result = TypeVar("Result")


class ProblemKind(NamedTuple):
    """One kind of problem.

    Attributes:
        title: what it is, in the plural.
        wrong: training would be wrong, so it does not start; otherwise it is a warning.
        effect: what training does with it.
    """

    title: str
    wrong: bool
    effect: str


NO_START = "training does not start"

PROBLEM_KINDS: dict[str, ProblemKind] = {
    "malformed": ProblemKind("records that cannot be understood", True, NO_START),
    "duplicate": ProblemKind("ids or names that occur twice", True, NO_START),
    "unknown_category": ProblemKind("annotations of unknown categories", True, NO_START),
    "unknown_image": ProblemKind("annotations of unknown images", True, NO_START),
    "rle_size": ProblemKind("run-length masks of another size than their image", True, NO_START),
    "broken_mask": ProblemKind("masks that cannot be decoded", True, NO_START),
    "nothing": ProblemKind("data sets without images or classes", True, NO_START),
    "missing_image": ProblemKind("images that are not there", True, "training stops at them"),
    "outside": ProblemKind("files outside of the folders of the data set", True, NO_START),
    "broken_image": ProblemKind("images that are truncated or cannot be decoded", True, "training stops at them"),
    "image_size": ProblemKind("images of another size than recorded", True, "boxes and masks would lie elsewhere"),
    "box_form": ProblemKind(
        "files whose boxes mostly reach beyond their images", True, "most boxes would be cut wrongly"
    ),
    "mask_elsewhere": ProblemKind(
        "masks that lie elsewhere than their box", True, "targets would be empty or those of another object"
    ),
    "image_type": ProblemKind("images whose suffix does not fit their type", False, "they are read by their content"),
    "image_turn": ProblemKind(
        "images annotated without the rotation that EXIF asks for", False, "they are not rotated"
    ),
    "box_beyond": ProblemKind("boxes that reach beyond their image", False, "they are cut at its border"),
    "box_empty": ProblemKind("boxes without a pixel in their image", False, "these instances are left out"),
    "short_polygon": ProblemKind(
        "polygons with fewer than 3 points or without area", False, "these polygons are left out"
    ),
    "empty_mask": ProblemKind("masks without a pixel", False, "these instances count as box-only"),
    "rectangle_mask": ProblemKind(
        "masks that are just their box",
        False,
        "they are learned as masks; if they are placeholders, delete the segmentation or keep the class out of A",
    ),
    "mask_fit": ProblemKind("masks whose extent differs from their box", False, "they are cut to their box"),
    "same_box": ProblemKind("instances of one class with equal boxes", False, "both are learned"),
    "keypoint_beyond": ProblemKind("keypoints outside of their image", False, "they are not learned"),
    "keypoints_elsewhere": ProblemKind(
        "instances all of whose keypoints lie outside of their box", False, "their keypoints are not learned"
    ),
    "keypoint_count": ProblemKind(
        "num_keypoints that is not the number of keypoints", False, "those with the label 1 or 2 count"
    ),
    "unnamed_keypoints": ProblemKind(
        "keypoints of categories that name none in categories[].keypoints", False, "they are left out"
    ),
    "no_keypoints": ProblemKind("data sets that name keypoints, and have none", False, "keypoints cannot be learned"),
    "skipped_shape": ProblemKind("shapes that enclose nothing", False, "they are left out"),
    "unmatched_mask": ProblemKind("masks that belong to no box", False, "they are left out"),
    "missing_mask": ProblemKind("masks that are listed, but not there", False, "these instances count as box-only"),
    "unused_class": ProblemKind("classes without instances", False, "the model gets a class that it cannot learn"),
    "maskless_class": ProblemKind("classes of A without a mask", False, "they are learned as classes of B"),
    "no_masks": ProblemKind("data sets without a mask", False, "masks can be learned by model.mask.box_losses alone"),
    "empty_image": ProblemKind("images without instances", False, "they are learned as background"),
}


class Problem(NamedTuple):
    """One finding: its kind (a key of PROBLEM_KINDS), the file and record, and what was expected and found."""

    kind: str
    where: str
    what: str


Report = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Raises BadInput for whatever would make training wrong, and lets the rest pass."""
    if PROBLEM_KINDS[problem.kind].wrong:
        raise BadInput(f"{problem.where}: {problem.what}")


@contextmanager
def noted(report: Report, where: str) -> Iterator[None]:
    """Reports an `Unfit` that is raised inside, and lets the program go on after it."""
    try:
        yield
    except Unfit as problem:
        report(Problem(problem.kind, where, str(problem)))


def each_noted(items: Iterable[tuple[str, Item]], read: Callable[[Item, str], Result], report: Report) -> list[Result]:
    """Returns the results of `read` for the items; reports and skips items that are `Unfit`."""
    results = []
    for where, item in items:
        with noted(report, where):
            results.append(read(item, where))
    return results
