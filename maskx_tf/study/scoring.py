"""Scores a cell on the validation part, which choices use, and on the test part."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path

from maskx_tf.config import Config
from maskx_tf.config.data import Source
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.study.cells import Cell, Places, source
from maskx_tf.study.config import StudyConfig
from maskx_tf.tasks import evaluate, evaluation_data

SCORED_PARTS = ("val", "test")
FIGURES = ("AP", "AP50", "AP75")


def of_parts(
    study: StudyConfig, cell: Cell, places: Places, config: Config, model: RCNN, classes_a: Collection[str]
) -> dict[str, dict[str, float]]:
    """Returns the figures of each part. Data that is not synthetic has only a test part, data.val.

    GrabCut is scored on the test part only: it takes longest, and nothing about it is chosen on the validation part.
    """
    is_cut = cell.method.start == "grabcut"
    steps = MaskSteps(is_cut, "refine" in cell.method.steps, "disjoint" in cell.method.steps)
    # That folder holds GrabCut's masks without further steps.
    kept = places.cut(cell.group) if is_cut and not cell.method.steps else None
    if study.synthetic is None:
        sources = {"test": config.data.val}
    else:
        folder = places.data(study, cell.group)
        sources = {part: (Source(**source(folder, part)),) for part in (SCORED_PARTS[-1:] if is_cut else SCORED_PARTS)}
    predictor = evaluate.predictor_of(model, config)
    return {part: score(config, given, predictor, classes_a, steps, kept) for part, given in sources.items()}


def score(
    config: Config,
    sources: tuple[Source, ...],
    predictor: Predictor,
    classes_a: Collection[str],
    steps: MaskSteps = NO_STEPS,
    out: Path | None = None,
) -> dict[str, float]:
    """Average precision on data sets, such as {"mask/B/AP": .2}.

    Args:
        config: the configuration of the model.
        sources: the data sets.
        predictor: the predictor of the model, with its weights.
        classes_a: names of the classes of A.
        steps: what is made of the model's masks.
        out: a folder where detections stay, for other divisions of the classes and for a cell that was stopped.

    Raises:
        BadInput: there is none, or something is wrong with it.
    """
    data = config.data.model_copy(update={"val": sources})
    options = evaluate.EvaluateOptions(
        steps=steps,
        engine="faster" if find_spec("faster_coco_eval") else "pycocotools",  # tests check that both are equal
        out=out,
    )
    held = evaluation_data.open_data(data, config.model.class_names)
    metrics = evaluate.score(predictor, config.model_copy(update={"data": data}), held, classes_a, options)
    return {name: round(value, 5) for name, value in metrics.flat(FIGURES).items()}


def in_words(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The main figures of the test part on one line."""
    test = figures[SCORED_PARTS[-1]]
    shown = [f"{name[:-3]} {100 * test[name]:.1f}" for name in ("box/all/AP", "mask/A/AP", "mask/B/AP") if name in test]
    return ", ".join(shown) if shown else "no figure"
