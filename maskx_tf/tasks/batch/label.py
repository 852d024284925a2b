"""Masks of the boxes in a COCO file, made by a model: the same file with the masks."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from maskx_tf import files
from maskx_tf.data.formats import coco
from maskx_tf.data.formats.records import identity
from maskx_tf.errors import BadInput
from maskx_tf.files import AnyPath, Json
from maskx_tf.masks import rle
from maskx_tf.masks.polygons import outlines
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.tasks.batch import boxes as box_ops
from maskx_tf.tasks.batch import merge, plan, review
from maskx_tf.tasks.batch.plan import BatchJob
from maskx_tf.tasks.batch.run import run
from maskx_tf.tasks.progress import SILENT, Progress

NEEDS_REVIEW = "needs_review"  # key of annotations that a person should look at
IMAGES_OF_A_LABEL_SHARD = 200


class LabelOptions(NamedTuple):
    """How a file with masks is written.

    Attributes:
        least: masks of a lower quality are flagged.
        tolerance: write polygons from which no point of the outline is so many pixels away; None writes run lengths.
        review: a file for the page of masks sorted by doubt.
        most: how many masks that page shows.
    """

    least: float = 0.5
    tolerance: float | None = None
    review: Path | None = None
    most: int = 200


USUAL_OPTIONS = LabelOptions()


class Labelled(NamedTuple):
    """The result of labelling.

    Attributes:
        made: boxes that got a mask.
        flagged: boxes whose mask is of low quality, or that got none.
        unread: images that could not be read; their boxes are flagged.
    """

    made: int
    flagged: int
    unread: int


def label(
    model: AnyPath,
    images: Path,
    annotations: Path,
    out: Path,
    *,
    job: Path | None = None,
    steps: MaskSteps = NO_STEPS,
    options: LabelOptions = USUAL_OPTIONS,
    progress: Progress = SILENT,
) -> Labelled:
    """Makes masks of the boxes without one, and writes the file with them; see `write_labelled`.

    Args:
        model: a run, checkpoint or model folder.
        images: the folder of the images.
        annotations: the COCO file.
        out: the new file.
        job: the folder of the job, with which a stopped run goes on; None for one that is removed at the end.
        steps: between the model's masks and those that are written.
        options: how the file is written.
        progress: each image is a step.

    Raises:
        BadInput: something cannot be read or written, or the folder holds another job.
    """
    check_out(out, annotations)
    for path in (out, *([options.review] if options.review else [])):
        files.check_writable(path)
    with tempfile.TemporaryDirectory(prefix="maskx-") as scratch:
        planned = _job(job or Path(scratch, "job"), model, images, annotations, steps)
        run(planned.folder, progress=progress)
        return write_labelled(planned, out, options)


def check_out(out: Path, annotations: AnyPath) -> None:
    """Raises BadInput if the new file is the file of the boxes."""
    if out.exists() and os.path.exists(annotations) and os.path.samefile(out, annotations):
        raise BadInput(f"{out}: expected another file than that of the boxes, which the job still needs")


def _job(folder: Path, model: AnyPath, images: Path, annotations: Path, steps: MaskSteps) -> BatchJob:
    if not (folder / plan.PLAN_FILE).exists():
        return box_ops.write_plan(folder, model, images, annotations, size=IMAGES_OF_A_LABEL_SHARD, steps=steps)
    job = plan.open_job(folder)
    expected = box_ops.box_file(images, annotations), steps, os.path.abspath(model)
    if (job.settings.boxes, job.settings.steps, job.model) != expected:
        raise BadInput(
            f"{folder}: expected the job of this model, these boxes and these steps, or a new folder, found another job"
        )
    job.check_model()  # also where nothing is left to run: a model trained further makes other masks
    return job


def write_labelled(job: BatchJob, out: Path, options: LabelOptions = USUAL_OPTIONS) -> Labelled:
    """Writes the file of a job with its new masks; everything else stays as it was.

    An annotation that gets a mask gets `segmentation`, `area`, `mask_source` and `mask_quality`. One whose mask is of
    low quality, and one that got none, gets `needs_review`.

    Args:
        job: all of whose shards are done.
        out: the file; not that of the boxes.
        options: see `LabelOptions`.

    Raises:
        BadInput: a shard is missing, the file of the boxes has changed, or a file cannot be written.
    """
    boxes = job.settings.boxes
    if boxes is None:
        raise BadInput(f"{job.folder}: expected a job that makes masks of boxes, found one that finds objects")
    check_out(out, boxes.annotations)
    box_ops.check_boxes(boxes)
    data = coco.read_lists(Path(boxes.annotations))
    entries = {json.dumps(identity(entry, "id")): entry for entry in data["annotations"]}
    made = flagged = unread = 0
    for row in _rows(job):
        unread += row["status"] != "ok"
        for key, counts, quality in zip(row["annotations"], row["masks"], row["scores"], strict=True):
            if counts is not None:
                made += 1
                mask = {"size": [row["height"], row["width"]], "counts": counts}
                entries[key] |= _fields(mask, options.tolerance, row["mask_source"], quality)
            entries[key].pop(NEEDS_REVIEW, None)  # a flag of an earlier round
            if review.is_doubtful(quality, options.least, has_mask=counts is not None):
                flagged += 1
                entries[key][NEEDS_REVIEW] = True
    files.write_json(out, data, indent=None)
    if options.review is not None:
        files.write_text(options.review, review.page(boxes, _rows(job), options.least, options.most))
    return Labelled(made, flagged, unread)


def _fields(mask: rle.Rle, tolerance: float | None, source: str, quality: float) -> Json:
    """Returns the fields of a labelled annotation; run lengths where polygons of this tolerance have no area."""
    polygons = [] if tolerance is None else outlines(rle.bitmap_of(mask), tolerance)
    written = [part.ravel().tolist() for part in polygons] or mask
    quality = round(quality, review.QUALITY_DIGITS)
    return {"segmentation": written, "area": rle.area(mask), "mask_source": source, "mask_quality": quality}


def _rows(job: BatchJob) -> Iterator[Json]:
    return itertools.chain.from_iterable(table.to_pylist() for table in merge.tables_of(job))
