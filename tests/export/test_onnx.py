"""An ONNX model against the Python model it was made of."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.export import device, onnx
from maskx_tf.export.source import ExportModel
from maskx_tf.masks.rgb import read_image
from maskx_tf.ops import masks, nms
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.structures import Detections
from maskx_tf.tasks import export
from tests.export.exported import SIZES, encoded, folder, model, model_folder, picture
from tests.models.small import assert_same_detections

pytest.importorskip("onnxruntime", reason="onnxruntime (the extra onnx) is missing")
PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]


@functools.cache
def written() -> tuple[Path, dict]:
    path, photos = folder() / "onnx", folder() / "onnx-photos"
    photos.mkdir()
    for index, pixels in enumerate(PICTURES):
        (photos / f"{index}.png").write_bytes(encoded(pixels))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        arguments = ["export", "onnx", str(model_folder()), "--out", str(path), "--check", str(photos), "--json"]
        assert cli.run(arguments) == 0
    return path, json.loads(said.getvalue())


def source() -> ExportModel:
    network, settings = model()
    return ExportModel(network, Config(model=settings), {})


@pytest.mark.slow
def test_detections_are_those_of_the_python_model() -> None:
    path, facts = written()
    assert facts["check"]["images"] == len(PICTURES)
    assert facts["check"]["detections"] > 3 * len(PICTURES)
    runner, predictor = device.Runner(path), ImagePredictor(*model())
    for pixels in PICTURES:
        assert_same_detections(runner(pixels), predictor(pixels), pixels=0.5, tolerance=1 / 255)


def test_no_loop_hands_an_input_on() -> None:
    """OpenVINO refuses such loops, or runs them once; ONNX Runtime finds the same with and without them."""
    tf2onnx = pytest.importorskip("tf2onnx.convert", reason="tf2onnx (the extra onnx) is missing")
    from onnxruntime import InferenceSession

    @tf.function(input_signature=[tf.TensorSpec([None, 30, 4], name="boxes"), tf.TensorSpec([None, 30], name="scores")])
    def suppress(boxes: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        groups = tf.zeros_like(scores, tf.int32)
        return nms.nms(boxes, scores, groups, scores >= 0.0, iou_threshold=0.5, limit=5)

    proto, _ = tf2onnx.from_function(suppress, suppress.input_signature, opset=onnx.OPERATORS)
    bodies = [node.attribute[0].g for node in proto.graph.node if node.op_type == "Loop"]

    def handed_on() -> list[str]:
        return [one.name for body in bodies for one in body.output if one.name in {each.name for each in body.input}]

    assert handed_on()
    onnx.give_loops_outputs(proto.graph)
    assert not handed_on()
    generator = np.random.default_rng(0)
    boxes = np.sort(100 * generator.random((2, 30, 2, 2)), axis=2).reshape(2, 30, 4).astype(np.float32)
    inputs = {"boxes": boxes, "scores": generator.random((2, 30)).astype(np.float32)}
    found = InferenceSession(proto.SerializeToString()).run(None, inputs)
    for ours, theirs in zip(suppress(**inputs), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_openvino_finds_the_same() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert written()[1]["check_openvino"]["detections"] == written()[1]["check"]["detections"]


@pytest.mark.slow
def test_a_batch_equals_single_images() -> None:
    (session,) = device.Runner(written()[0])._graphs.values()
    canvases, sizes = zip(*(device.letterbox(pixels, (64, 64), 64, 64) for pixels in PICTURES), strict=True)
    images, sizes = np.stack(canvases).astype(np.float32), np.stack(sizes)
    together = session(image=images, size=sizes)
    assert together["count"].min() > 3
    for index in range(len(images)):
        alone = session(image=images[index : index + 1], size=sizes[index : index + 1])
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][index], values[0], atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_a_model_with_other_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = written()
    photo = next((folder() / "onnx-photos").iterdir())
    answer = ImagePredictor(*model())(read_image(photo))
    monkeypatch.setitem(export.LARGEST_ERRORS, "boxes", -1.0)
    with pytest.raises(BadInput, match=r"boxes differ by .* on .*png, expected at most -1.0"):
        export._compare([(photo, answer)], device.Runner(path), "model")


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["export", "onnx", str(model_folder()), "--out", str(tmp_path)]) == 2
    assert "not there yet" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"no image there \(\.jpg, "):
        export.export_onnx(tmp_path / "none", tmp_path / "out", check=[str(tmp_path)])
    (tmp_path / "lite.json").write_text('{"form": "onnx", "graphs": ["model"]}')
    (tmp_path / "labels.json").write_text("[]")
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="expected the folder of a LiteRT or ONNX model"):
        device.Runner(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": np.array([2])}, "other detections than the model's"),
        ({"scores": np.array([0.6])}, "scores differ by 0.1 on .*, expected at most"),
        ({"scores": np.array([np.nan])}, "scores differ by nan"),
        ({"masks": np.zeros([1, 28, 28])}, "expected no masks on .*, as the model's, found some"),
        ({"boxes": None}, "expected some boxes on .*, as the model's, found none"),
    ],
)
def test_answers_that_differ_are_refused(tmp_path, monkeypatch, change, said) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(PICTURES[0]))
    found = Detections(np.zeros([1, 4]), np.array([0.5]), np.array([1]), np.ones(1, bool))
    monkeypatch.setattr(export, "open_source", lambda *_, **__: source())
    monkeypatch.setattr(export, "ImagePredictor", lambda *_: lambda pixels: found)
    monkeypatch.setattr(export, "Runner", lambda *_, **__: lambda pixels: found._replace(**change))
    monkeypatch.setattr(export.onnx, "write", lambda source, out, check: check(out))
    with pytest.raises(BadInput, match=f"{tmp_path / 'onnx'}: {said}"):
        export.export_onnx("model", tmp_path / "onnx", check=[str(photo)])


def test_nothing_is_predicted_before_the_conversion(tmp_path, monkeypatch) -> None:
    def convert(*_: object) -> None:
        raise BadInput("tf2onnx is missing")

    (tmp_path / "photo.png").touch()
    monkeypatch.setattr(export, "open_source", lambda *_, **__: source())
    monkeypatch.setattr(export, "ImagePredictor", lambda *_: pytest.fail("it is not needed"))
    monkeypatch.setattr(export.onnx, "write", convert)
    with pytest.raises(BadInput, match="tf2onnx is missing"):
        export.export_onnx("model", tmp_path / "onnx", check=[str(tmp_path)])


def test_a_check_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    def refuse(folder: Path) -> dict:
        assert (folder / "model.onnx").read_bytes() == b"model"
        raise BadInput("answers differ")

    monkeypatch.setattr(onnx, "_converted", lambda graph: b"model")
    monkeypatch.setattr(onnx.litert, "whole_graph", lambda *_, **__: SimpleNamespace(name="model", precision="float32"))
    monkeypatch.setattr(onnx.litert, "facts_of", lambda *_: {})
    monkeypatch.setattr(onnx, "descriptions", lambda _: {})
    with pytest.raises(BadInput, match="answers differ"):
        onnx.write(source(), tmp_path / "out", refuse)
    assert not list(tmp_path.iterdir())


def test_masks_with_a_margin_convert_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """tf2onnx logs the traceback of an equation that it cannot read, and goes on."""
    tf2onnx = pytest.importorskip("tf2onnx.convert", reason="tf2onnx (the extra onnx) is missing")
    from onnxruntime import InferenceSession

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 8, 8], name="masks")])
    def cut(wide: tf.Tensor) -> tf.Tensor:
        return masks.cut_margin(wide, 0.1)

    proto, _ = tf2onnx.from_function(cut, cut.input_signature, opset=onnx.OPERATORS)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    wide = np.random.default_rng(0).random((2, 3, 8, 8)).astype(np.float32)
    (found,) = InferenceSession(proto.SerializeToString()).run(None, {"masks": wide})
    np.testing.assert_allclose(found, cut(wide), atol=1e-6)
