"""Measures average precision: of a model on a data set in one call, or again and again on data that is open."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from maskx_tf.config import Config, DataConfig
from maskx_tf.config.data import Source
from maskx_tf.data import opening, splits, stats
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import evaluate as evaluation
from maskx_tf.evaluation.coco import Engine
from maskx_tf.evaluation.metrics import Metrics
from maskx_tf.evaluation.runner import Boxes
from maskx_tf.evaluation.table import METRICS, as_text
from maskx_tf.evaluation.truth import IouKind
from maskx_tf.files import Json, digest, write_json
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.tasks.evaluation_data import (
    EvaluationData,
    check_keypoints,
    cityscapes_maps,
    file_facts,
    lvis_rules,
    open_data,
    original_pixels,
    with_absolute_paths,
)
from maskx_tf.tasks.models import Model, ModelOrPath, finder, is_recipe, opened
from maskx_tf.tasks.progress import SILENT, Progress

STEP_NAMES = {
    "grabcut": "GrabCut",
    "refine": "refined masks",
    "disjoint": "disjoint masks",
}  # in the name of the evaluation
Metric = Literal["coco", "cityscapes", "lvis"]


@dataclass(frozen=True)
class EvaluateOptions:
    """How detections are made and scored.

    Attributes:
        kinds: the IoU that is measured, box, mask or keypoint; None for `evaluate.kinds` of the model's configuration.
        boxes: detected, or truth: the masks of the true boxes and classes are scored.
        steps: what is made of the model's masks, such as GrabCut's in their place.
        augment: views of test-time augmentation; see `prediction.views.views_of`.
        ensemble: further models of the same classes, with which the model has to agree.
        batch: images at a time; None for `evaluate.batch` of the configuration.
        engine: the evaluator that computes COCO's figures.
        metric: the rules; cityscapes are those of its official evaluator, for masks alone; lvis those of LVIS' files.
        out: a folder for the detections and results; an evaluation that was stopped goes on there. None writes neither.
    """

    kinds: Sequence[IouKind] | None = None
    boxes: Boxes = "detected"
    steps: MaskSteps = NO_STEPS
    augment: bool | Sequence[int] = False
    ensemble: Sequence[ModelOrPath] = ()
    batch: int | None = None
    engine: Engine = "pycocotools"
    metric: Metric = "coco"
    out: Path | None = None


class Evaluation(NamedTuple):
    """The figures of a model, and what they were measured on.

    Attributes:
        metrics: all figures.
        name: the name of the model.
        model: its folder; None where the weights are in no folder.
        data: the name of the data set, and `val` and `names` as a configuration has them, with absolute paths.
        classes_a: the classes of A; None where classes are not divided.
        metric: the rules of the measure.
    """

    metrics: Metrics
    name: str
    model: Path | None
    data: Json
    classes_a: tuple[str, ...] | None
    metric: Metric = "coco"

    def as_json(self) -> Json:
        """Everything as plain data, as metrics.json holds it."""
        facts = {
            "model": None if self.model is None else str(self.model),
            "name": self.name,
            "data": self.data,
            "metric": self.metric,
            "a_classes": None if self.classes_a is None else list(self.classes_a),
        }
        return {**facts, **self.metrics.as_json()}

    def __str__(self) -> str:
        return as_text(self.as_json())


def predictor_of(network: RCNN, config: Config) -> Predictor:
    """Finds what an evaluation counts: detections with a score above `evaluate.score`."""
    compiled = network.learning.jit  # as in training
    return Predictor(network, config.model.input.canvas, score=config.evaluate.score, jit=compiled)


def score(
    predictor: Predictor,
    config: Config,
    data: EvaluationData,
    classes_a: Collection[str] | None,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = SILENT,
) -> Metrics:
    """The figures of a model on data that is open.

    Args:
        predictor: see `predictor_of`; its weights are those that are scored.
        config: the configuration of the model.
        data: the truth.
        classes_a: names of the classes of A; None does not divide the classes.
        options: see `EvaluateOptions`.
        progress: each image is a step.

    Raises:
        BadInput: an image cannot be read, no class of the model occurs in the data, the data have other keypoints than
            the model, or the metric is for other data.
    """
    check_keypoints(data.dataset, config)
    map_of = None
    if options.metric == "cityscapes":
        map_of = cityscapes_maps(data)
        if not options.steps.grabcut and "masks" not in config.model.outputs:
            raise BadInput("metric cityscapes: expected a model with masks, found none")
    rules = lvis_rules(data) if options.metric == "lvis" else None
    kinds = None if options.steps.grabcut else config.evaluate.kinds
    options.steps.check(config.model.outputs)
    facts = {"model": config.model.model_dump(mode="json"), "score": config.evaluate.score}
    if options.out is not None:
        facts["files"] = file_facts(data.dataset)
    find = None
    if options.augment or options.ensemble:
        if options.boxes == "truth":
            raise BadInput("--boxes truth cannot be combined with --augment, --scales or --ensemble")
        members = [
            Model(predictor.model, config, {}),
            *(opened(one, config.model.class_names) for one in options.ensemble),
        ]
        find = finder(members, options.augment, config.evaluate.score)
        weights = [[(one.path, one.numpy()) for one in member.network.variables] for member in members[1:]]
        facts |= {"augment": options.augment, "ensemble": [digest({}, arrays) for arrays in weights]}
    batches = pipeline.evaluation(
        data.examples, config.data, config.model.input, batch=options.batch or config.evaluate.batch
    )
    progress.started(len(data.dataset.images))
    with pipeline.bad_input():
        return evaluation.evaluate(
            predictor,
            batches,
            data.truth,
            class_names=config.model.class_names,
            kinds=options.kinds or kinds,
            classes_a=classes_a,
            boxes=options.boxes,
            paste=config.model.detections.paste,
            steps=options.steps,
            find=find,
            pixels=original_pixels(data.dataset),
            engine=options.engine,
            sigmas=config.evaluate.sigmas,
            map_of=map_of,
            federated=rules,
            out=options.out,
            facts=facts,
            on_image=progress.advance,
            say=progress.say,
        )


def evaluate(
    model: ModelOrPath,
    sources: Sequence[Source] = (),
    masks: splits.Policy | None = None,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = SILENT,
) -> Evaluation:
    """Measures average precision of boxes and masks over the classes with masks (A), without (B), and all.

    Args:
        model: an open model, or the path of one.
        sources: the data sets; none for `data.val` of the model's configuration.
        masks: the policy that says which classes are A; None for those of `classes_a`.
        options: see `EvaluateOptions`. `out` also receives metrics.json.
        progress: each image is a step.

    Raises:
        BadInput: the model or the data cannot be read, or they do not fit together.
    """
    if sources:
        data = DataConfig(val=tuple(sources))
        held = open_data(data, progress=progress)
        model = opened(model, held.dataset.class_names)
    else:
        model = opened(model)
        data = model.config.data
        if not data.val:
            what = "expected data to evaluate on, or a run whose configuration has data.val"
            raise BadInput(f"{model.source or model.name}: {what}")
        held = open_data(data, progress=progress)
    config = model.config
    if options.boxes == "truth" and not options.steps.grabcut and "masks" not in config.model.outputs:
        raise BadInput(f"{model.source or model.name}: true boxes: expected a model with masks, found none")
    chosen = classes_a(masks, held.dataset, data, config, model.classes_a)
    metrics = score(predictor_of(model.network, config), config, held, chosen, options, progress)
    found = Evaluation(
        metrics,
        model.name
        + (f" with {' and '.join(STEP_NAMES[name] for name in steps)}" if (steps := options.steps.names) else ""),
        None if model.source is None or is_recipe(model.source) else model.source.resolve(),
        {"name": held.dataset.name, **with_absolute_paths(data)},
        None if chosen is None else tuple(sorted(chosen.intersection(config.model.class_names))),
        options.metric,
    )
    if options.out is not None:
        write_metrics(found, options.out / METRICS)
    return found


def write_metrics(found: Evaluation, path: Path) -> None:
    """Writes the file that `evaluation.table.read_metrics` reads."""
    write_json(path, found.as_json(), indent=None)


def classes_a(
    masks: splits.Policy | None,
    dataset: Dataset,
    data: DataConfig,
    config: Config,
    noted: Collection[str] | None,
) -> frozenset[str] | None:
    """Returns the classes of A, whose masks training saw; None if these are all classes of the data set.

    A is the first of these that exists: `masks`; `noted`; the policy of `evaluate.masks`, then of `data.masks`; with
    masks kept apart (`masks_b`), the classes that have masks in the annotations.

    Args:
        masks: the policy that the caller asks for.
        dataset: the data set that is evaluated.
        data: names the data set.
        config: the configuration of the model.
        noted: the classes of A that training stored in the model folder.
    """
    names = config.model.class_names
    plain = config.model_dump(mode="json")
    policies = (plain["evaluate"]["masks"], plain["data"]["masks"])
    known = next((policy for policy in policies if policy not in (None, "all", "oracle")), None)
    if masks is not None:
        found = splits.a_classes(masks, names)
    elif noted is not None:
        found = frozenset(noted)
    elif known is not None:
        found = splits.a_classes(splits.parse(known), names)
    elif any(source.masks_b is not None for source in data.val):
        seen = tuple(source.model_copy(update={"masks_b": None}) for source in data.val)
        found = stats.a_set(opening.validation_set(data.model_copy(update={"val": seen})), "all")
    else:
        return None
    return None if found >= set(dataset.class_names) else found
