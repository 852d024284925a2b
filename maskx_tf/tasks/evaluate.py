"""Measures average precision: of a model on a data set in one call, or again and again on data that is open."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from maskx_tf.config import Config, DataConfig
from maskx_tf.config.schema import Source
from maskx_tf.data import opening, splits, stats
from maskx_tf.data.dataset import Dataset
from maskx_tf.data.formats import cityscapes, coco_write
from maskx_tf.data.formats.records import Unfit
from maskx_tf.data.images import id_map
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.errors import BadInput
from maskx_tf.evaluation import evaluate as evaluation
from maskx_tf.evaluation.cityscapes import IdMap
from maskx_tf.evaluation.coco import Engine
from maskx_tf.evaluation.metrics import Metrics
from maskx_tf.evaluation.runner import Boxes, PixelSource
from maskx_tf.evaluation.table import METRICS, as_text
from maskx_tf.evaluation.truth import IouKind, Truth
from maskx_tf.files import Json, write_json
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.tasks.models import ModelOrPath, is_recipe, opened
from maskx_tf.tasks.progress import SILENT, Progress

STEP_NAMES = {
    "grabcut": "GrabCut",
    "refine": "refined masks",
    "disjoint": "disjoint masks",
}  # as the model's name has them
Metric = Literal["coco", "cityscapes"]
NO_DATA = "expected data to evaluate on, or a run whose configuration has data.val"


@dataclass(frozen=True)
class EvaluateOptions:
    """How detections are made and scored.

    Attributes:
        kinds: the IoU that is measured, box, mask or keypoint; None for `evaluate.kinds` of the model's configuration.
        boxes: detected, or truth: the masks of the true boxes and classes are scored.
        steps: what is made of the model's masks, such as GrabCut's in their place.
        batch: images at a time; None for `evaluate.batch` of the configuration.
        engine: which evaluator computes COCO's figures.
        metric: the rules; cityscapes are those of its official evaluator, for masks alone.
        out: a folder for the detections and results; an evaluation that was stopped goes on there. None writes neither.
    """

    kinds: Sequence[IouKind] | None = None
    boxes: Boxes = "detected"
    steps: MaskSteps = NO_STEPS
    batch: int | None = None
    engine: Engine = "pycocotools"
    metric: Metric = "coco"
    out: Path | None = None


class EvaluationData(NamedTuple):
    """A data set that is open for any number of evaluations.

    Attributes:
        dataset: its records, with every mask.
        truth: the same as COCO's mapping.
        examples: its images.
        sources: where it lies.
    """

    dataset: Dataset
    truth: Truth
    examples: examples.Examples
    sources: tuple[Source, ...]


class Evaluation(NamedTuple):
    """The figures of a model, and what they were measured on.

    Attributes:
        metrics: all figures.
        name: of the model.
        model: its folder; None where the weights are in no folder.
        data: the name of the data set, and `val` and `names` as a configuration has them, with absolute paths.
        classes_a: the classes of A; None where classes are not divided.
        metric: by which rules.
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


def open_data(data: DataConfig, class_names: Sequence[str] = (), progress: Progress = SILENT) -> EvaluationData:
    """Opens `data.val`; see `data.opening.validation_set`."""
    dataset = opening.validation_set(data, class_names, progress.say)
    truth = coco_write.as_coco(dataset, Path())
    return EvaluationData(dataset, truth, examples.from_dataset(dataset, cache_mib=0), data.val)


def predictor_of(network: RCNN, config: Config) -> Predictor:
    """Finds what an evaluation counts: detections with a score above `evaluate.score`."""
    return Predictor(network, config.model.input.canvas, score=config.evaluate.score)


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
        config: of the model.
        data: the truth.
        classes_a: names of the classes of A; None does not divide the classes.
        options: see `EvaluateOptions`.
        progress: each image is a step.

    Raises:
        BadInput: an image cannot be read, no class of the model occurs in the data, the data have other keypoints than
            the model, or the metric is for other data.
    """
    _check_keypoints(data.dataset, config)
    map_of = _map_of(data, config, options) if options.metric == "cityscapes" else None
    kinds = None if options.steps.grabcut else config.evaluate.kinds
    options.steps.check(config.model.outputs)
    facts = {"model": config.model.model_dump(mode="json"), "score": config.evaluate.score}
    if options.out is not None:
        facts["files"] = _files(data.dataset)
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
            pixels=_pixels(data.dataset),
            engine=options.engine,
            sigmas=config.evaluate.sigmas,
            map_of=map_of,
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
        masks: the policy that says which classes are A; None for what the model's training noted, or else for the
            classes with masks in the annotations.
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
            raise BadInput(f"{model.source or model.name}: {NO_DATA}")
        held = open_data(data, progress=progress)
    config = model.config
    if options.boxes == "truth" and not options.steps.grabcut and "masks" not in config.model.outputs:
        raise BadInput(f"{model.source or model.name}: boxes of the truth: expected a model with masks, found none")
    chosen = classes_a(masks, held.dataset, data, config, model.classes_a)
    metrics = score(predictor_of(model.network, config), config, held, chosen, options, progress)
    found = Evaluation(
        metrics,
        model.name
        + (f" with {' and '.join(STEP_NAMES[name] for name in steps)}" if (steps := options.steps.names) else ""),
        None if model.source is None or is_recipe(model.source) else model.source.resolve(),
        {"name": held.dataset.name, **_absolute(data)},
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
    """The classes whose masks training saw; None where that is all of them.

    Args:
        masks: the policy that was asked for, which wins over everything else.
        dataset: the data set that is evaluated.
        data: what names it.
        config: of the model.
        noted: what the training noted in the model folder.
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


def _check_keypoints(dataset: Dataset, config: Config) -> None:
    """Raises BadInput where the model and the data have keypoints, and not the same."""
    known, named = config.model.keypoint.names, dataset.keypoints
    if "keypoints" in config.model.outputs and named is not None and named.names != known:
        expected, found = (", ".join(names[:3]) for names in (known, named.names))
        raise BadInput(
            f"{dataset.name}: expected the model's {len(known)} keypoints, such as {expected}, found "
            f"{len(named.names)}, such as {found}"
        )


def _map_of(data: EvaluationData, config: Config, options: EvaluateOptions) -> Callable[[int], IdMap]:
    """Gives the map of ids of each image; see `evaluation.cityscapes`.

    Raises:
        BadInput: the data set is no folder of Cityscapes, or there are no masks to score.
    """
    formats = [source.format for source in data.sources]
    if formats != ["cityscapes"]:
        raise BadInput(f"metric cityscapes: expected one data set of format cityscapes, found {', '.join(formats)}")
    if not options.steps.grabcut and "masks" not in config.model.outputs:
        raise BadInput("metric cityscapes: expected a model with masks, found none")
    paths = cityscapes.maps(Path(data.sources[0].annotations))
    numbers = examples.image_numbers(data.dataset)
    files = {number: paths[str(image.id)] for number, image in zip(numbers, data.dataset.images, strict=True)}

    def read_map(image_id: int) -> IdMap:
        try:
            return id_map(files[image_id])
        except Unfit as problem:  # it was whole when the data set was opened
            raise BadInput(f"{files[image_id]}: {problem}") from None

    return read_map


def _pixels(dataset: Dataset) -> PixelSource:
    """Gives the images as they are in their files."""
    places = {number: place for place, number in enumerate(examples.image_numbers(dataset))}
    return lambda image_id: examples.pixels(dataset, places[image_id])


def _absolute(data: DataConfig) -> Json:
    """The data sets and the file of new names, as a configuration has them, with absolute paths."""
    plain = data.model_dump(mode="json", include={"val", "names"})
    for source in plain["val"]:
        found = {key: source[key] for key in ("images", "annotations", "masks_b") if source[key] is not None}
        source |= {key: str(Path(path).resolve()) for key, path in found.items()}
    if plain["names"] is not None:
        plain["names"] = str(Path(plain["names"]).resolve())
    return plain


def _files(dataset: Dataset) -> list[tuple[int, int]]:
    """Size and time of each image file, which change with what it shows."""
    found = []
    for image in dataset.images:
        if isinstance(image.file, Path) and image.file.is_file():
            facts = image.file.stat()
            found.append((facts.st_size, facts.st_mtime_ns))
    return found
