"""From a model and images to figures: the whole of an evaluation in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from maskx_tf.evaluation import cityscapes, lvis, runner, store
from maskx_tf.evaluation.coco import Engine
from maskx_tf.evaluation.metrics import Metrics, measure
from maskx_tf.evaluation.runner import Boxes, EvaluationBatch, Finder, PixelSource
from maskx_tf.evaluation.truth import IouKind, Truth
from maskx_tf.files import JsonView
from maskx_tf.masks.steps import NO_STEPS, MaskSteps
from maskx_tf.models.inference import Predictor
from maskx_tf.models.rcnn import RCNN


def evaluate(
    predictor: Predictor,
    batches: Iterable[EvaluationBatch],
    truth: Truth,
    *,
    class_names: tuple[str, ...],
    kinds: Sequence[IouKind] | None = None,
    classes_a: Collection[str] | None = None,
    boxes: Boxes = "detected",
    paste: str = "continuous",
    steps: MaskSteps = NO_STEPS,
    find: Finder | None = None,
    pixels: PixelSource | None = None,
    engine: Engine = "pycocotools",
    sigmas: Sequence[float] | None = None,
    map_of: Callable[[int], cityscapes.IdMap] | None = None,
    federated: lvis.FederatedRules | None = None,
    out: Path | None = None,
    facts: JsonView | None = None,
    on_image: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> Metrics:
    """Average precision of a model.

    Detections wait in a file, so that memory does not grow while the model works; scoring them reads them all.

    Args:
        predictor: the predictor, with its current weights; call its `refresh` after they change.
        batches: the batches of `data.pipeline.batches.evaluation`.
        truth: COCO's mapping, as `data.formats.coco_write.as_coco` makes it; of the images in the batches.
        class_names: the class names of the model; matched with the truth's categories by name.
        kinds: box, mask, keypoint; None for all that the model has. Of the truth's boxes, masks alone are scored.
        classes_a: names of the classes whose masks training saw, all others are B; None does not divide classes.
        boxes: detected, or truth: the masks of the true boxes and classes are scored.
        paste: `model.detections.paste`.
        steps: what is made of the model's masks.
        find: finds objects in the predictor's place, such as by several views of an image.
        pixels: the original images, where steps or `find` read them.
        engine: pycocotools, or the faster evaluator.
        sigmas: the sigmas of keypoints; see `evaluation.keypoints.sigmas_of`.
        map_of: gives Cityscapes' map of an image, by its id: masks are scored by its rules instead of COCO's.
        federated: LVIS' rules, by which boxes and masks are scored.
        out: a folder for detections.jsonl, from which a killed evaluation goes on, and results.json; None: neither.
        facts: what detections depend on besides weights, truth and the arguments above, as plain data, such as the
            configuration: detections in `out` that were made with others are not used.
        on_image: is called after each image.
        say: receives a line that says whether detections in `out` are used.
    """
    wanted: Sequence[IouKind] = ("mask",) if boxes == "truth" else kinds or _all_kinds(predictor.model, steps)
    mark = ""
    if out is not None:
        given = {"classes": class_names, "boxes": boxes, "paste": paste, "own": not steps.grabcut, "facts": facts}
        given |= {name: True for name in steps.names if name != "grabcut"}
        mark = runner.fingerprint(predictor, truth, **given)
    with tempfile.TemporaryDirectory(prefix="maskx-") as nowhere, store.in_use(out or Path(nowhere)) as folder:
        held = store.Store(folder / store.DETECTIONS, mark, say)
        runner.run(
            predictor,
            batches,
            truth,
            held,
            class_names=class_names,
            boxes=boxes,
            paste=paste,
            steps=steps,
            find=find,
            pixels=pixels,
            on_image=on_image,
        )
        if out is not None:
            store.write_results(folder / store.DETECTIONS, folder / store.COCO_RESULTS)
        found = store.read(folder / store.DETECTIONS)
        if map_of is not None:
            return cityscapes.measure(truth, found, map_of, classes_a=classes_a, boxes=boxes)
        if federated is not None:
            return lvis.measure(truth, found, federated, kinds=wanted, classes_a=classes_a, boxes=boxes)
        return measure(truth, found, kinds=wanted, classes_a=classes_a, engine=engine, boxes=boxes, sigmas=sigmas)


def _all_kinds(model: RCNN, steps: MaskSteps) -> list[IouKind]:
    """The kinds of which a model has something to score."""
    kinds: list[IouKind] = ["box"]
    if steps.grabcut or "masks" in model.outputs:
        kinds.append("mask")
    if "keypoints" in model.outputs:
        kinds.append("keypoint")
    return kinds
