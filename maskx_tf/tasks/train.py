"""Trains a model from its configuration: opens the data, runs, evaluates between the steps."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf.config import Config
from maskx_tf.data import opening, splits, stats
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import streams
from maskx_tf.errors import BadInput
from maskx_tf.files import Json
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.names import COCO_FLIP, COCO_KEYPOINTS, COCO_SKELETON
from maskx_tf.prediction.images import keypoints_of
from maskx_tf.tasks import evaluate, evaluation_data
from maskx_tf.tasks.pictures import detections_sheet
from maskx_tf.tasks.progress import SILENT, Progress
from maskx_tf.training import distribute, dry, fit, start
from maskx_tf.training.callbacks import Hooks

MADE_UP_CLASSES, VG3K_CLASSES = 80, 3001  # numbers of classes in a dry run, which does not read the data
PICTURES = 4  # on a sheet
BOX_STAGES = ("detector", "rpn", "rpn_head")  # stages that learn only boxes
SHOWN = 0.5  # the least score of the detections on a sheet


class Training(NamedTuple):
    """How a run ended.

    Attributes:
        run: the run folder.
        steps: updates made.
        stopped_by: the signal that ended the run, or 0.
        figures: the figures of the last evaluation.
    """

    run: Path
    steps: int
    stopped_by: int
    figures: dict[str, float]


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    images: tf.data.Dataset | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Training:
    """Trains a model on `data.train` and evaluates it on `data.val`.

    Args:
        config: the recipe. Where it names no classes, those of the data are learned.
        out: the run folder, which receives logs, checkpoints and the final model (docs/training.md).
        images: replace `data.train`, see `data.pipeline.streams.training`; `model.class_names` names their classes.
        resume: go on with the run in the folder, if there is one.
        progress: receives the lines of the log, and each step.

    Raises:
        BadInput: the data are wrong or do not fit the recipe, or something is in the way.
    """
    out = Path(out)
    if config.train.stages:
        return _in_stages(config, out, images, resume, progress)
    if (config.evaluate.every or config.train.pictures_every) and not config.data.val:
        raise BadInput("data.val: expected data for evaluate.every and train.pictures_every, found none")
    if images is not None:
        return _run(config, out, *_streamed(config, images), resume, progress)
    known = fit.classes_of(out) if resume else ()
    dataset = opening.training_set(config.data, known or start.classes(config, ()))
    config = config.with_classes(known or start.classes(config, dataset.class_names))
    config, dataset = opening.with_keypoints(config, dataset)
    if "points" in config.model.mask.box_losses and not any(field.name == "clicks" for field in dataset.points):
        raise BadInput("data.train: expected annotations with points for model.mask.box_losses: [points], found none")
    classes_a = a_classes(config, dataset)
    counts = stats.count(dataset)
    _require_masks(config, bool(counts["with_masks"]))
    progress.say(
        f"{counts['images']} images, {counts['instances']} instances, {counts['with_masks']} with masks; "
        f"{len(classes_a)} of {len(config.model.class_names)} classes in A"
    )
    return _run(config, out, image_batches(config, dataset), meta_of(dataset, classes_a), resume, progress)


def _run(config: Config, out: Path, batches: fit.BatchesFrom, meta: Json, resume: bool, progress: Progress) -> Training:
    """Runs a training whose data are open."""
    hooks = Hooks(say=progress.say, advance=progress.at)
    if config.data.val:
        watcher = Watcher(config, frozenset(meta["a_classes"]), progress)
        hooks = hooks._replace(evaluate=watcher.evaluate, picture=watcher.picture)
    with pipeline.bad_input():
        outcome = fit.run(config, out, batches, meta=meta, resume=resume, hooks=hooks)
    return Training(out, outcome.step, outcome.stopped_by, outcome.figures)


def _require_masks(config: Config, known: bool) -> None:
    """Raises BadInput where a model is to learn masks from data that have none."""
    learns_masks = "masks" in config.model.outputs and config.train.stage not in (*BOX_STAGES, "keypoint")
    if learns_masks and not known and not config.model.mask.box_losses:
        what = f"expected masks of some class for family {config.model.family}, found none"
        ways = "model.mask.box_losses learns masks from boxes, train.stage=detector learns boxes alone"
        raise BadInput(f"data.train: {what}; {ways}")


def _streamed(config: Config, images: tf.data.Dataset) -> tuple[fit.BatchesFrom, Json]:
    """The batches of the user's own images, and what a model folder says of them.

    Raises:
        BadInput: the recipe asks for what such images do not have.
    """
    streams.check(images)
    names = config.model.class_names
    if not names:
        raise BadInput(f"model.class_names: expected the classes of {streams.STREAM}, found none")
    unfit = {
        "data.copy_paste": config.data.copy_paste > 0.0,
        "model.keypoint.use": config.model.keypoint.use,
        "model.mask.box_losses: [points]": "points" in config.model.mask.box_losses,
        "data.masks: oracle": config.data.masks == "oracle",
        "several workers": distribute.cluster_size() > 1,
    }
    for what, asked in unfit.items():
        if asked:
            raise BadInput(f"{what}: expected data.train, found {streams.STREAM}, which cannot have it")
    policy = opening.policy_of(config.data)
    classes_a = splits.a_classes(policy, names) if "masks" in images.element_spec else frozenset()
    _require_masks(config, bool(classes_a))

    def batches(first: int, worker: int, workers: int, devices: int) -> tf.data.Dataset:
        del worker, workers
        data, batch = config.data, config.train.batch
        canvas = config.model.input
        return streams.training(images, data, canvas, names, policy, batch=batch, start=first, devices=devices)

    return batches, {"category_ids": list(range(1, len(names) + 1)), "a_classes": sorted(classes_a)}


def _in_stages(config: Config, out: Path, images: tf.data.Dataset | None, resume: bool, progress: Progress) -> Training:
    """Trains in the stages of `train.stages`: the last one in the run folder, the others in folders inside it.

    Raises:
        BadInput: see `train`; or the stages are to run on several machines.
    """
    if distribute.cluster_size() > 1:
        raise BadInput("train.stages: expected one machine, found several; each stage can be a run of its own there")
    stages = config.train.stages
    before: str | None = None
    for number, stage in enumerate(stages, 1):
        settings = {"stage": stage, "stages": (), "weights": before or config.train.weights}
        if stage == "regions":
            settings |= {"weights": config.train.weights, "proposals": before}
        one = config.model_copy(update={"train": config.train.model_copy(update=settings)})
        folder = out
        if number < len(stages):
            folder = out / fit.STAGES / f"{number}_{stage}"
            one = one.model_copy(
                update={
                    "data": one.data.model_copy(update={"val": ()}),
                    "evaluate": one.evaluate.model_copy(update={"every": 0}),
                    "train": one.train.model_copy(update={"pictures_every": 0}),
                }
            )
        before = str(folder)
        if resume and number < len(stages) and fit.summary_of(folder) is not None:
            continue
        progress.say(f"stage {number} of {len(stages)}: {stage}")
        ended = train(one, folder, images=images, resume=resume, progress=progress)
        if ended.stopped_by:
            break
    return ended._replace(run=out)


def a_classes(config: Config, dataset: Dataset) -> frozenset[str]:
    """The classes that count as A: see `evaluate.masks`."""
    if config.evaluate.masks is not None:
        plain = config.evaluate.model_dump(mode="json")["masks"]
        return splits.a_classes(splits.parse(plain), dataset.class_names)
    if config.data.masks == "oracle":
        kept = config.data.model_copy(update={"masks": "all"})
        return stats.a_set(opening.training_set(kept, dataset.class_names), "all")
    return stats.a_set(dataset, "all")


def meta_of(dataset: Dataset, classes_a: Collection[str]) -> Json:
    """The ids of the data set's categories, and the classes of A."""
    return {"category_ids": list(dataset.category_ids), "a_classes": sorted(classes_a)}


def image_batches(config: Config, dataset: Dataset) -> fit.BatchesFrom:
    """Batches of images, from any step on and for any worker."""
    images = opening.training_examples(config.data, dataset)

    def batches(first: int, worker: int, workers: int, devices: int) -> tf.data.Dataset:
        return pipeline.training(
            images,
            config.data,
            config.model.input,
            batch=config.train.batch,
            start=first,
            worker=worker,
            workers=workers,
            devices=devices,
        )

    return batches


class Watcher:
    """Evaluates the model of a run on `data.val`, and draws what it finds, between the steps of its training.

    Args:
        config: the configuration of the run, with the class names.
        classes_a: names of the classes of A.
        progress: receives a line if masks of the data are no truth.
    """

    def __init__(self, config: Config, classes_a: frozenset[str], progress: Progress) -> None:
        self._config = config
        self._classes_a = classes_a
        self._data = evaluation_data.open_data(config.data, config.model.class_names, progress)
        self._predictor: Predictor | None = None

    def evaluate(self, model: RCNN) -> tuple[dict[str, float], float | None]:
        """The figures by name, and the one that says which checkpoint is best."""
        config, is_all = self._config, self._classes_a >= set(self._config.model.class_names)
        options = evaluate.EvaluateOptions(kinds=("box",) if config.train.stage in BOX_STAGES else None)
        metrics = evaluate.score(
            self._refreshed(model), config, self._data, None if is_all else self._classes_a, options
        )
        figures = metrics.flat()
        kinds = sorted(("mask", "box", "keypoint"), key=lambda kind: kind != config.train.stage)
        return figures, next((figures[name] for kind in kinds if (name := f"{kind}/all/AP") in figures), None)

    def picture(self, model: RCNN) -> NDArray[np.uint8]:
        """The first images of the data with what the model finds in them, uint8 [h, w, 3]."""
        config = self._config
        batch = next(iter(pipeline.evaluation(self._data.examples, config.data, config.model.input, batch=PICTURES)))
        found = self._refreshed(model).detect(batch["images"], batch["image_sizes"])
        found = found.mapped(lambda array: array.numpy())
        score = max(SHOWN, config.model.detections.score)
        names, lines = config.model.class_names, keypoints_of(config.model).skeleton
        return detections_sheet(batch["images"].numpy(), found, names, self._classes_a, score, lines)

    def _refreshed(self, model: RCNN) -> Predictor:
        """The predictor, whose graphs are compiled once, with the weights as they are now."""
        if self._predictor is None:
            self._predictor = evaluate.predictor_of(model, self._config)
        else:
            self._predictor.refresh()
        return self._predictor


def dry_run(config: Config) -> dry.Trial:
    """Measures the cost of a run, by two steps on made-up images.

    Where the recipe names no classes, as many are made up as COCO has, or Visual Genome.
    """
    if not config.model.class_names:
        from_vg = any(source.format.startswith("visual_genome") for source in config.data.train)
        count = VG3K_CLASSES if from_vg else MADE_UP_CLASSES
        names = [*config.model.keypoint.classes, *(f"class {number}" for number in range(1, count + 1))]
        config = config.with_classes(tuple(names[:count]))
    if config.model.keypoint.use and not config.model.keypoint.names:
        config = config.with_keypoints(COCO_KEYPOINTS, COCO_SKELETON, COCO_FLIP)
    return dry.trial(config)
