"""An ONNX model of standard operators, for any number of canvases at a time, from a model that was built portable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from maskx_tf import files
from maskx_tf.errors import BadInput
from maskx_tf.export import device, litert
from maskx_tf.export.source import ExportModel, descriptions
from maskx_tf.files import Json

OPERATORS = 18  # the version of ONNX's set of operators


def write(source: ExportModel, out: Path, check: Callable[[Path], Json] = lambda folder: {}) -> Json:
    """Writes the folder of an ONNX model and returns what `lite.json` says of it.

    Args:
        source: a model built portable.
        out: a folder that is not there yet.
        check: is given the finished model's folder before it takes its place, to refuse it; returns further facts.

    Raises:
        BadInput: tf2onnx is missing, or the check failed.
    """
    settings = source.config.model
    graph = litert.whole_graph(source.model, settings, "float32", batch=None)
    facts: Json = {"form": "onnx", "precision": graph.precision, **litert.facts_of(settings, [graph])}
    with files.new_folder(out) as unfinished:
        model = _converted(graph)
        (unfinished / f"{graph.name}.onnx").write_bytes(model)
        for name, text in {**descriptions(source), device.DESCRIPTION: files.as_json(facts)}.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        found = check(unfinished)
    return {**facts, "megabytes": round(len(model) / 1e6, 2), **found}


def _converted(graph: litert.Graph) -> bytes:
    try:
        import tf2onnx.convert
    except ImportError:
        raise BadInput("tf2onnx is missing: pip install 'maskx_tf[onnx]'") from None
    function = tf.function(litert.frozen_graph(graph), autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, list(graph.specs.values()), opset=OPERATORS)
    give_loops_outputs(proto.graph)
    model: bytes = proto.SerializeToString()
    return model


def give_loops_outputs(graph: Any) -> None:
    """Lets no loop of a graph return one of its inputs as it is, which OpenVINO reads wrongly or refuses.

    Args:
        graph: `onnx.GraphProto`, which is changed.
    """
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                give_loops_outputs(attribute.g)
        if node.op_type == "Loop":
            body = node.attribute[0].g
            inputs = {value.name for value in body.input}
            for value in body.output:
                if value.name in inputs:
                    body.node.add(op_type="Identity", input=[value.name], output=[f"{value.name}/same"])
                    value.name += "/same"
