"""What a cell scores: on the validation part, by which methods are chosen, and on the test part."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from maskx_tf.config import Config
from maskx_tf.config.schema import Source
from maskx_tf.data import opening
from maskx_tf.data.formats import coco_write
from maskx_tf.data.pipeline import batches as pipeline
from maskx_tf.data.pipeline import examples
from maskx_tf.evaluation.evaluate import evaluate
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN
from maskx_tf.study.cells import Cell, Places, source
from maskx_tf.study.config import StudyConfig
from maskx_tf.study.cutting import of_boxes

PARTS = ("val", "test")
FIGURES = ("AP", "AP50", "AP75")


def of_parts(
    study: StudyConfig, cell: Cell, places: Places, config: Config, model: RCNN, classes_a: Collection[str]
) -> dict[str, dict[str, float]]:
    """The figures of each part that there is; of other than synthetic data, data.val is the test part.

    GrabCut, which takes longest, has no part to be chosen by, for there is nothing about it to choose.
    """
    cut = places.cut(cell.group) if cell.method.start == "grabcut" else None
    if study.synthetic is None:
        sources = {"test": config.data.val}
    else:
        folder = places.data(study, cell.group)
        sources = {part: (Source(**source(folder, part)),) for part in (PARTS[-1:] if cut else PARTS)}
    with model.scores_above(config.evaluate.score):
        predictor = Predictor(model, config.model.input.canvas)
        return {part: score(config, given, predictor, classes_a, cut=cut) for part, given in sources.items()}


def score(
    config: Config,
    sources: tuple[Source, ...],
    predictor: Predictor,
    classes_a: Collection[str],
    *,
    cut: Path | None = None,
) -> dict[str, float]:
    """Average precision on data sets, such as {"mask/B/AP": .2}.

    Args:
        config: of the model.
        sources: the data sets.
        predictor: of the model, with its weights.
        classes_a: names of the classes of A.
        cut: masks are GrabCut's of the model's boxes. They stay in this folder, for other divisions of the classes and
            for a cell that was stopped.

    Raises:
        BadInput: there is none, or something is wrong with it.
    """
    data = config.data.model_copy(update={"val": sources})
    dataset = opening.validation_set(data, config.model.class_names)
    batches = pipeline.evaluation(
        examples.from_dataset(dataset, cache_mib=0), data, config.model.input, batch=config.evaluate.batch
    )
    with pipeline.bad_input():
        metrics = evaluate(
            predictor,
            batches,
            coco_write.as_coco(dataset, Path()),
            class_names=config.model.class_names,
            classes_a=classes_a,
            paste=config.model.detections.paste,
            masks=of_boxes(dataset) if cut is not None else None,
            engine="faster" if find_spec("faster_coco_eval") else "pycocotools",  # tests hold them equal
            out=cut,
            facts={"model": config.model.model_dump(mode="json"), "score": config.evaluate.score},
        )
    return {name: round(value, 5) for name, value in metrics.flat(FIGURES).items()}
