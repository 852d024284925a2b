"""LiteRT models of builtin operators alone, for images of one size, from a model that was built portable.

Forms, each a folder of one or two graphs and `lite.json`, which describes them:

whole     model: image -> boxes, scores, classes, masks, keypoints
parts     detector: image -> boxes, scores, classes, count and feature maps; masks: feature maps, boxes, classes, count
          -> masks and keypoints
int8      features, every operator of it in integers: normalised image -> feature maps; heads: feature maps -> boxes,
          scores, classes, masks. What chooses boxes loops, and LiteRT's calibration crashes on loops; what normalises
          compares, and its comparisons of integers crash at some scales: both stay outside of the integers.

Where the mask head reads pixels, masks and heads also take `pixels`, the image before it is normalised; masks takes its
size, too.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskx_tf import files
from maskx_tf.config import ModelConfig
from maskx_tf.errors import BadInput
from maskx_tf.export import device
from maskx_tf.export.freeze import Frozen, as_constants
from maskx_tf.export.precision import Precision
from maskx_tf.export.source import ExportModel, descriptions
from maskx_tf.files import Json
from maskx_tf.models.branch import Prepared, Scene
from maskx_tf.models.rcnn import RCNN
from maskx_tf.structures import ADDED_FIELDS, Detections

GraphOutputs = dict[str, tf.Tensor]
Example = tuple[NDArray[np.uint8], NDArray[np.float32]]  # a canvas [H, W, 3] and the size [2] of the image in it
# Detections that go through the branches at a time: four were faster than eight, of which the last round wastes more.
ROUND = 4


class Graph(NamedTuple):
    """One graph to convert.

    Attributes:
        name: the name of its file.
        function: a function of named tensors, which returns named tensors.
        specs: the specifications of its inputs.
        precision: a `Precision`.
    """

    name: str
    function: Callable[..., GraphOutputs]
    specs: dict[str, tf.TensorSpec]
    precision: str


def write(source: ExportModel, out: Path, *, precision: str, parts: bool, images: Iterable[Example] = ()) -> Json:
    """Writes the folder of a LiteRT model and returns what `lite.json` says of it.

    Args:
        source: a model built portable.
        out: a folder that is not there yet.
        precision: a `Precision`.
        parts: detector and mask head apart, as they always are where the precision is mixed.
        images: what `device.letterbox` makes of images like those that will be seen, for int8.

    Raises:
        BadInput: there is no such precision, or the combination cannot be.
    """
    if precision not in tuple(Precision):
        raise BadInput(f"precision: expected one of {', '.join(Precision)}, found {precision!r}")
    examples = list(images)
    if precision == "int8" and (parts or not examples):
        raise BadInput("int8 writes two graphs: expected --images that resemble those of later use, and no --parts")
    parts = parts or precision == "mixed"
    if parts and "masks" not in source.model.outputs:
        raise BadInput("a family without masks has no parts")
    with files.new_folder(out) as unfinished:
        return _write(source, unfinished, precision, parts, examples)


def _write(source: ExportModel, folder: Path, precision: str, parts: bool, images: list[Example]) -> Json:
    settings = source.config.model
    graphs = _graphs(source.model, settings, precision, parts)
    form = "int8" if precision == "int8" else "parts" if parts else "whole"
    facts: Json = {"form": form, "precision": precision, **facts_of(settings, graphs)}
    texts = {**descriptions(source), device.DESCRIPTION: files.as_json(facts)}
    for graph in graphs:
        path = folder / f"{graph.name}.tflite"
        path.write_bytes(_converted(graph, [device.normalise(*one, **facts["pixels"]) for one in images]))
        # As LiteRT's own metadata does: files in a zip behind the model, which readers of either do not notice.
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    facts["megabytes"] = round(sum(path.stat().st_size for path in folder.glob("*.tflite")) / 1e6, 2)
    return facts


def facts_of(settings: ModelConfig, graphs: list[Graph]) -> Json:
    """Returns the facts that a program needs to run the graphs."""
    return {
        "graphs": [graph.name for graph in graphs],
        "canvas": list(settings.input.canvas),
        "short_side": settings.input.short_side,
        "long_side": settings.input.long_side,
        "rounding": settings.input.rounding,
        "paste": settings.detections.paste,
        "pixels": _normalisation(settings),
    }


def whole_graph(model: RCNN, settings: ModelConfig, precision: str, batch: int | None = 1) -> Graph:
    """Returns the model as one graph, for this number of images at a time, or for any number."""
    prepared = as_constants(model.prepare())

    def whole(image: tf.Tensor, size: tf.Tensor) -> GraphOutputs:
        scene = model.scene(image, size)
        complete = completed_in_rounds if batch == 1 else RCNN.complete
        return _named(complete(model, scene, model.detect(scene), prepared))

    return Graph("model", whole, _image_specs(settings, batch), precision)


def _image_specs(settings: ModelConfig, batch: int | None) -> dict[str, tf.TensorSpec]:
    canvas = settings.input.canvas
    return {"image": tf.TensorSpec([batch, *canvas, 3], name="image"), "size": tf.TensorSpec([batch, 2], name="size")}


def _graphs(model: RCNN, settings: ModelConfig, precision: str, parts: bool) -> list[Graph]:
    if precision != "int8" and not parts:
        return [whole_graph(model, settings, precision)]
    prepared = as_constants(model.prepare())
    image = _image_specs(settings, 1)

    def features(image: tf.Tensor, size: tf.Tensor) -> list[tf.Tensor]:
        return model.features(image, size)

    maps = tf.function(features, autograph=False).get_concrete_function(*image.values()).structured_outputs
    some_maps = {f"map_{index}": tf.TensorSpec(one.shape, one.dtype, f"map_{index}") for index, one in enumerate(maps)}

    reads_pixels = "masks" in model.outputs and model.mask.reads_pixels
    pixels = {"pixels": tf.TensorSpec(image["image"].shape, name="pixels")} if reads_pixels else {}

    def heads(size: tf.Tensor, pixels: tf.Tensor | None = None, **levels: tf.Tensor) -> GraphOutputs:
        scene = Scene(pixels, size, [levels[name] for name in some_maps])
        return _named(completed_in_rounds(model, scene, model.detect(scene), prepared))

    def maps_of_normal(image: tf.Tensor) -> GraphOutputs:
        return dict(zip(some_maps, model.neck(model.backbone(image)), strict=True))

    if precision == "int8":
        return [
            Graph("features", maps_of_normal, {"image": image["image"]}, "int8"),
            Graph("heads", heads, {"size": image["size"], **pixels, **some_maps}, "dynamic"),
        ]

    def detector(image: tf.Tensor, size: tf.Tensor) -> GraphOutputs:
        scene = model.scene(image, size)
        return {**_named(model.detect(scene)), **dict(zip(some_maps, scene.features, strict=True))}

    # Boxes lose by quantising, and the mask head gains time.
    of_detector, of_masks = ("float16", "dynamic") if precision == "mixed" else (precision, precision)
    limit = settings.detections.limit
    # The mask head reads the finer maps alone, and LiteRT wants no input that nothing reads.
    read = dict(list(some_maps.items())[: len(model.mask.pool.strides)])

    def masks(
        boxes: tf.Tensor,
        classes: tf.Tensor,
        count: tf.Tensor,
        pixels: tf.Tensor | None = None,
        size: tf.Tensor | None = None,
        **levels: tf.Tensor,
    ) -> GraphOutputs:
        scene = Scene(pixels, size, [levels[name] for name in read])
        given = Detections(boxes, None, classes, tf.range(limit)[None] < count[:, None])
        return _added(completed_in_rounds(model, scene, given, prepared))

    given = {
        "boxes": tf.TensorSpec([1, limit, 4], name="boxes"),
        "classes": tf.TensorSpec([1, limit], tf.int32, "classes"),
        "count": tf.TensorSpec([1], tf.int32, "count"),
        **({**pixels, "size": image["size"]} if pixels else {}),
    }
    return [
        Graph("detector", detector, image, of_detector),
        Graph("masks", masks, {**given, **read}, of_masks),
    ]


def completed_in_rounds(model: RCNN, scene: Scene, found: Detections, prepared: tuple[Prepared, ...]) -> Detections:
    """`RCNN.complete` of one image in a loop that ends with the last valid detection; zeros after its last round.

    Most images have fewer detections than there is room for. Every shape stays fixed, as XNNPACK needs it.
    """
    if not model.branches:
        return found
    limit = found.boxes.shape[1]
    rounds = -(-limit // ROUND)
    missing = rounds * ROUND - limit
    boxes = tf.reshape(tf.pad(found.boxes, [[0, 0], [0, missing], [0, 0]]), [rounds, ROUND, 4])
    classes = tf.reshape(tf.pad(found.classes, [[0, 0], [0, missing]]), [rounds, ROUND])
    count = tf.reduce_sum(tf.cast(found.valid, tf.int32))

    def added(number: tf.Tensor) -> GraphOutputs:
        own = Detections(boxes[number][None], None, classes[number][None], None)
        return _added(model.complete(scene, own, prepared))

    def fill(number: tf.Tensor, filled: GraphOutputs) -> tuple[tf.Tensor, GraphOutputs]:
        here = tf.range(rounds) == number
        new = added(number)
        for name, values in filled.items():
            is_here = tf.reshape(here, [rounds] + [1] * (len(values.shape) - 1))
            new[name] = tf.where(is_here, new[name], values)
        return number + 1, new

    traced = tf.function(added, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int32))
    start = {name: tf.zeros([rounds, *one.shape[1:]], one.dtype) for name, one in traced.structured_outputs.items()}
    _, filled = tf.while_loop(lambda number, _: number * ROUND < count, fill, (tf.constant(0), start))
    whole = {name: tf.reshape(one, [1, rounds * ROUND, *one.shape[2:]])[:, :limit] for name, one in filled.items()}
    return found._replace(**whole)


def _normalisation(settings: ModelConfig) -> Json:
    pixels = settings.input
    return {"mean": pixels.pixel_mean, "std": pixels.pixel_std, "bgr": pixels.channel_order == "bgr"}


def _named(found: Detections) -> GraphOutputs:
    outputs = {
        "boxes": found.boxes,
        "scores": found.scores,
        "classes": found.classes,
        "count": tf.reduce_sum(tf.cast(found.valid, tf.int32), axis=1),
    }
    return {**outputs, **_added(found)}


def _added(found: Detections) -> GraphOutputs:
    """Returns the fields that the branches have filled."""
    return {name: value for name, value in found._asdict().items() if name in ADDED_FIELDS and value is not None}


def frozen_graph(graph: Graph) -> Frozen:
    """The function of a graph with its weights as constants; it takes the inputs by position."""
    names = list(graph.specs)
    return Frozen(lambda *inputs: graph.function(**dict(zip(names, inputs, strict=True))), list(graph.specs.values()))


def _converted(graph: Graph, images: list[NDArray[np.float32]]) -> bytes:
    names, frozen = list(graph.specs), frozen_graph(graph)
    # The frozen graph has lost the names of its inputs.
    traced = tf.function(lambda **inputs: frozen(*(inputs[name] for name in names)), autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function(**graph.specs)], tf.Module()
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if graph.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if graph.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if graph.precision == "int8":

        def examples() -> Iterator[dict[str, NDArray[np.float32]]]:
            for image in images:
                yield {"image": image[None]}

        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings():
        # TensorFlow's converter calls TensorFlow's interpreter, which advises against itself.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated", UserWarning)
        model: bytes = converter.convert()
    return model
