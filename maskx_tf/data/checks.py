"""Checks a whole data set: what the reader found, every image to its last byte, every box and mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from maskx_tf.data import keypoints, splits
from maskx_tf.data.dataset import Box, Dataset, ImageRecord, Instance, clip, is_usable
from maskx_tf.data.formats import segmentations
from maskx_tf.data.formats.readers import DataFiles, check_policy, read, with_masks_b
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import IMAGE_TYPES, is_annotated_unturned, load_pixels, open_image
from maskx_tf.data.problems import PROBLEM_KINDS, Problem, Report, noted
from maskx_tf.data.threads import in_threads
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.masks.results import keypoint_numbers

EXAMPLES = 5  # examples of each kind that are kept
BEYOND = 1.0  # pixels by which rounding may move a box beyond its image
ELSEWHERE, FITTING = 0.1, 0.8  # IoU of a mask's extent and its box: below the first, and from the second on
MOST_BEYOND, FEW = 0.5, 10  # share of boxes beyond their image that a mistaken form explains; boxes that tell nothing


class Findings:
    """Collects problems: counts them by kind, and keeps the first of each kind as examples."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Problem]] = {}

    def __call__(self, problem: Problem) -> None:
        """Adds a problem, as a `Report`."""
        self.counts[problem.kind] += 1
        examples = self.examples.setdefault(problem.kind, [])
        if len(examples) < EXAMPLES:
            examples.append(problem)

    @property
    def wrong(self) -> int:
        """Returns the number of problems that would make training wrong."""
        return sum(count for kind, count in self.counts.items() if PROBLEM_KINDS[kind].wrong)

    def as_data(self) -> list[Json]:
        """All kinds that were found, the wrong ones first, as plain data."""
        kinds = sorted(self.counts, key=lambda kind: (not PROBLEM_KINDS[kind].wrong, list(PROBLEM_KINDS).index(kind)))
        return [
            {
                "kind": kind,
                "title": PROBLEM_KINDS[kind].title,
                "wrong": PROBLEM_KINDS[kind].wrong,
                "count": self.counts[kind],
                "effect": PROBLEM_KINDS[kind].effect,
                "examples": [{"where": one.where, "what": one.what} for one in self.examples[kind]],
            }
            for kind in kinds
        ]


def check(
    source: DataFiles,
    policy: splits.Policy = "all",
    *,
    with_images: bool = True,
    started: Callable[[int], None] = lambda images: None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Dataset, Findings]:
    """Checks a data set.

    Args:
        source: where the data set lies.
        policy: which classes keep their masks.
        with_images: decode every image; without, the annotations alone are looked at.
        started: is called with the number of images once they are known.
        advance: is called after each image.

    Returns:
        The data set, as far as it could be read, and what was found.

    Raises:
        BadInput: a file cannot be read at all, or the policy does not fit.
    """
    findings = Findings()
    check_policy([source], policy)
    known = read(source, findings)
    dataset = with_masks_b(known, source, findings)
    kept = splits.a_classes(policy, dataset.class_names) if dataset.class_names else frozenset()
    started(len(dataset.images))

    def look(image: ImageRecord, report: Report) -> None:
        where = f"{dataset.name}: image {image.id}"
        if with_images:
            with noted(report, where if isinstance(image.file, bytes) else f"{where} ({image.file.name})"):
                _check_file(image, where, report)
        _check_instances(image, where, dataset.class_names, report)

    for _ in in_threads(look, dataset.images, findings):
        advance()
    _check_forms(dataset, findings)
    # Training sees the masks that are kept apart under one policy alone.
    learned = dataset if policy == "oracle" else known
    _check_classes(learned, kept, policy in ("all", "oracle"), findings)
    return dataset, findings


def _check_file(image: ImageRecord, where: str, report: Report) -> None:
    with open_image(image.file) as opened:
        suffixes = IMAGE_TYPES[str(opened.format)]
        if not isinstance(image.file, bytes) and image.file.suffix.lower() not in suffixes:
            what = f"expected a name that ends in {suffixes[0]}, because it is {opened.format}, found {image.file.name}"
            report(Problem("image_type", where, what))
        if is_annotated_unturned(opened, image.width, image.height):
            report(Problem("image_turn", where, f"expected the size after EXIF's turn, found {opened.size}"))
    load_pixels(image)


def _check_instances(image: ImageRecord, where: str, class_names: Sequence[str], report: Report) -> None:
    if not image.instances:
        report(Problem("empty_image", where, "expected instances, found none"))
    times = Counter((one.label, one.box) for one in image.instances)
    for (label, box), count in times.items():
        if count > 1:
            report(Problem("same_box", where, f"expected one {class_names[label - 1]} at {_shown(box)}, found {count}"))
    for one in image.instances:
        place = f"{where}, annotation {one.id}"
        inside = clip(one.box, image.width, image.height)
        if not is_usable(inside):
            what = f"expected a box with a pixel in {image.width} x {image.height}, found {_shown(one.box)}"
            report(Problem("box_empty", place, what))
        elif max(abs(a - b) for a, b in zip(one.box, inside, strict=True)) > BEYOND:
            what = f"expected a box within {image.width} x {image.height}, found {_shown(one.box)}"
            report(Problem("box_beyond", place, what))
        with noted(report, place):
            _check_mask(one, inside, image, place, report)
        _check_keypoints(one, image, place, report)


def _check_mask(one: Instance, inside: Box, image: ImageRecord, where: str, report: Report) -> None:
    """Reports a mask that does not fit its box, which is first cut at the border of the image."""
    if one.segmentation is None or one.crowd or not is_usable(inside):
        return
    try:
        extent = segmentations.extent(one.segmentation, image)
    except BadInput as error:
        raise Unfit(str(error), "broken_mask") from None
    if extent is None:
        raise Unfit("expected a mask, found no pixel", "empty_mask")
    overlap = segmentations.overlap(extent, inside)
    what = f"expected a mask that fills {_shown(inside)}, found one in {_shown(extent)}"
    if overlap < ELSEWHERE:
        raise Unfit(what, "mask_elsewhere")
    if overlap < FITTING and not segmentations.near(extent, inside):
        raise Unfit(what, "mask_fit")
    if segmentations.is_box(one.segmentation, one.box):
        report(Problem("rectangle_mask", where, f"expected an outline, found the rectangle {_shown(one.box)}"))


def _check_keypoints(one: Instance, image: ImageRecord, where: str, report: Report) -> None:
    """Reports keypoints beyond the image, and objects without a keypoint in their box; crowds are not checked."""
    if one.keypoints is None or one.crowd or not one.keypoint_count:
        return
    points = one.keypoints[one.keypoints[:, 2] > 0]
    beyond = points[~keypoints.inside(points, (0.0, 0.0, image.width, image.height))]
    if len(beyond):
        x, y, _ = keypoint_numbers(beyond[:1])
        what = f"expected keypoints within {image.width} x {image.height}, found one at ({x:g}, {y:g})"
        report(Problem("keypoint_beyond", where, what))
    if not keypoints.inside(points, one.box).any():
        what = f"expected keypoints in the box {_shown(one.box)}, found all {len(points)} outside of it"
        report(Problem("keypoints_elsewhere", where, what))


def _check_forms(dataset: Dataset, findings: Findings) -> None:
    """Reports boxes that leave their images so often that they must be written in another form than the format's."""
    boxes = sum(len(image.instances) for image in dataset.images)
    outside = findings.counts["box_beyond"] + findings.counts["box_empty"]
    if boxes >= FEW and outside > MOST_BEYOND * boxes:
        what = f"expected boxes in their images, found {outside} of {boxes} beyond; are they corners instead of sizes?"
        findings(Problem("box_form", dataset.name, what))


def _check_classes(dataset: Dataset, kept: frozenset[str], is_open: bool, findings: Findings) -> None:
    """Reports classes without instances, classes of A without masks, and data without any mask.

    Where `is_open` (policies `all` and `oracle`), single classes without masks are not reported.
    """
    if not dataset.images or not dataset.class_names:
        found = f"{len(dataset.images)} images and {len(dataset.class_names)} classes"
        findings(Problem("nothing", dataset.name, f"expected images and classes, found {found}"))
        return
    instances, masks = Counter[int](), Counter[int]()
    for image in dataset.images:
        for one in image.instances:
            instances[one.label] += 1
            masks[one.label] += one.has_mask and not one.crowd
    for label, name in enumerate(dataset.class_names, 1):
        if not instances[label]:
            findings(Problem("unused_class", dataset.name, f"expected instances of {name}, found none"))
        elif not is_open and name in kept and not masks[label]:
            what = f"expected masks of {name}, found none at {instances[label]} instances"
            findings(Problem("maskless_class", dataset.name, what))
    if not any(masks[label] for label, name in enumerate(dataset.class_names, 1) if name in kept):
        findings(Problem("no_masks", dataset.name, "expected masks of some class of A, found none"))
    if dataset.keypoints is not None and not any(
        one.keypoint_count for image in dataset.images for one in image.instances
    ):
        what = f"expected keypoints such as {dataset.keypoints.names[0]}, found none"
        findings(Problem("no_keypoints", dataset.name, what))


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box) + ")"
