"""LiteRT models against the Python model they were made of."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskx_tf import cli
from maskx_tf.errors import BadInput
from maskx_tf.export import device, litert
from maskx_tf.export.source import open_source
from maskx_tf.ops.images import letterbox, normalise
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.structures import Detections
from tests import disk
from tests.export.exported import SIZES, encoded, fine_folder, fine_model, folder, model, model_folder, picture
from tests.models.small import assert_same_detections

pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert (the extra litert) is missing")
PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]


def written(precision: str, parts: bool = False) -> Path:
    return _written(precision, parts)


@functools.cache
def _written(precision: str, parts: bool) -> Path:
    path = folder() / f"litert-{precision}-{parts}"
    arguments = ["export", "litert", str(model_folder()), "--out", str(path), "--precision", precision]
    if precision == "int8":
        photos = folder() / "photos"
        photos.mkdir()
        for index, pixels in enumerate(PICTURES):
            (photos / f"{index}.png").write_bytes(encoded(pixels))
        arguments += ["--images", str(photos)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert cli.run([*arguments, *(["--parts"] if parts else [])]) == 0
    assert said.getvalue().startswith(f"wrote {path}\n")
    assert "  pixels: mean 123." in said.getvalue()
    return path


def matched(found, expected) -> float:
    """The share of expected detections with a partner of the same class at IoU > .9."""
    low = np.maximum(found.boxes[:, None, :2], expected.boxes[None, :, :2])
    high = np.minimum(found.boxes[:, None, 2:], expected.boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(one.boxes[:, 2:] - one.boxes[:, :2], axis=-1) for one in (found, expected)]
    iou = shared / (areas[0][:, None] + areas[1][None] - shared)
    same = found.classes[:, None] == expected.classes[None]
    return float(((iou > 0.9) & same).any(axis=0).mean())


@pytest.mark.parametrize("size", [(30, 40), (64, 64), (200, 90), (1, 1), (700, 3)])
def test_letterbox_is_tensorflows(size) -> None:
    pixels = picture(*size)
    expected, inside = letterbox(tf.constant(pixels), canvas=(96, 64), short_side=50, long_side=90)
    found, found_inside = device.letterbox(pixels, (96, 64), 50, 90)
    np.testing.assert_array_equal(found_inside, inside)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bgr", [False, True])
def test_normalisation_is_tensorflows(bgr) -> None:
    canvas, size = device.letterbox(picture(30, 40), (64, 64), 60, 60)
    options = {"mean": (1.0, 20.0, 130.0), "std": (2.0, 50.0, 60.0), "bgr": bgr}
    expected = normalise(tf.constant(canvas[None]), tf.constant(size[None]), **options)
    np.testing.assert_allclose(device.normalise(canvas, size, **options), expected[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [False, True])
def test_detections_are_those_of_the_python_model(parts) -> None:
    runner, predictor = device.Runner(written("float32", parts)), ImagePredictor(*model())
    for pixels in PICTURES:
        assert_same_detections(runner(pixels), predictor(pixels), pixels=0.5, tolerance=1 / 255)


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_rounds_end_with_the_last_detection(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks as of all detections at once, and zeros after the last round; nine places are three rounds."""
    network = open_source(model_folder(), portable=True).model
    canvas = tf.constant(PICTURES[0][None], tf.float32)
    corners = np.sort(np.random.default_rng(0).uniform(0, 64, (1, 9, 2, 2)), axis=2).reshape(1, 9, 4)
    boxes, classes = tf.constant(corners, tf.float32), tf.constant([[1, 2, 3] * 3])
    found = Detections(boxes, None, classes, tf.range(9)[None] < count)
    scene, prepared = network.scene(canvas, tf.constant([[64.0, 64.0]])), network.prepare()
    calls, complete = [], network.complete
    monkeypatch.setattr(network, "complete", lambda *arguments: calls.append(1) or complete(*arguments))
    in_rounds = litert.completed_in_rounds(network, scene, found, prepared).masks.numpy()
    rounds = -(-count // litert.ROUND)
    assert len(calls) == 1 + rounds  # the first learns the shapes
    whole = complete(scene, found, prepared).masks.numpy()
    np.testing.assert_allclose(in_rounds[:, :count], whole[:, :count], atol=1e-5)
    assert in_rounds.shape == whole.shape
    assert not in_rounds[:, rounds * litert.ROUND :].any()


@pytest.mark.slow
def test_mixed_has_the_boxes_of_floats_and_about_their_masks() -> None:
    runner, predictor = device.Runner(written("mixed")), ImagePredictor(*model())
    assert runner.facts["graphs"] == ["detector", "masks"]
    for pixels in PICTURES:
        found, expected = runner(pixels), predictor(pixels)
        shared = matched(found, expected)
        assert shared >= 0.95
        if shared == 1 and np.array_equal(found.classes, expected.classes):
            np.testing.assert_allclose(found.masks, expected.masks, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["whole", "parts", "int8"])
def test_a_mask_head_that_reads_pixels(form, tmp_path) -> None:
    """Its graphs get the image as it is, also next to maps and where the first graph gets it normalised."""
    source = open_source(fine_folder(), portable=True)
    shape = {"canvas": (64, 64), "short_side": 64, "long_side": 64}
    examples = [device.letterbox(pixels, **shape) for pixels in PICTURES]
    precision = "int8" if form == "int8" else "float32"
    litert.write(source, tmp_path / form, precision=precision, parts=form == "parts", images=examples)
    runner, predictor = device.Runner(tmp_path / form), ImagePredictor(*fine_model())
    for pixels in PICTURES[:2]:
        found = runner(pixels)
        assert found.masks.shape[1:] == (64, 64)
        if form != "int8":
            assert_same_detections(found, predictor(pixels), pixels=0.5, tolerance=1 / 255)
    if form == "int8":  # the maps are rounded, and with them the boxes; of these, another picture is another mask
        heads = runner._graphs["heads"]
        canvas, size = examples[0]
        normal = device.normalise(canvas, size, **runner.facts["pixels"])
        maps = runner._graphs["features"](image=normal[None])
        seen, dark = (
            heads(size=size[None], pixels=one[None].astype(np.float32), **maps) for one in (canvas, 0 * canvas)
        )
        np.testing.assert_array_equal(seen["boxes"], dark["boxes"])
        assert np.abs(seen["masks"] - dark["masks"]).max() > 0.01


@pytest.mark.slow
def test_the_file_explains_itself() -> None:
    path = written("float32")
    with zipfile.ZipFile(path / "model.tflite") as archive:
        assert json.loads(archive.read("labels.json"))[2] == {"index": 3, "id": 99, "name": "horse", "masks": False}
        assert b"class_names" in archive.read("config.yaml")
        assert json.loads(archive.read("lite.json")) == json.loads((path / "lite.json").read_text())
    assert json.loads((path / "lite.json").read_text())["graphs"] == ["model"]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "share", "least"), [("float16", 0.55, 0.95), ("dynamic", 0.6, 0.3)])
def test_smaller_models(precision, share, least) -> None:
    path = written(precision)
    size = (path / "model.tflite").stat().st_size
    assert size < share * (written("float32") / "model.tflite").stat().st_size
    runner, predictor = device.Runner(path), ImagePredictor(*model())
    assert np.mean([matched(runner(pixels), predictor(pixels)) for pixels in PICTURES]) >= least


@pytest.mark.slow
def test_features_in_integers() -> None:
    path = written("int8")
    runner = device.Runner(path)
    (first, *_) = runner._interpreters.values()
    types = {detail["dtype"] for detail in first.get_tensor_details()}
    assert np.int8 in types
    weights = (model_folder() / "weights.npz").stat().st_size
    assert sum(file.stat().st_size for file in path.glob("*.tflite")) < 0.6 * weights
    for pixels in PICTURES:
        found = runner(pixels)
        assert np.isfinite(found.boxes).all()
        assert len(found.boxes)
    # The maps themselves: random weights give detections that hang on the last digit.
    canvas, size = device.letterbox(PICTURES[0], (64, 64), 64, 64)
    exact = model()[0].features(tf.constant(canvas[None]), tf.constant(size[None]))
    normal = device.normalise(canvas, size, **runner.facts["pixels"])
    maps = runner._graphs["features"](image=normal[None])
    for index, expected in enumerate(exact):
        error = np.sqrt(np.mean((maps[f"map_{index}"] - expected) ** 2) / np.mean(expected**2))
        assert error < 0.25, (index, error)


def test_mistakes(capsys, tmp_path) -> None:
    def fails(*arguments: object) -> str:
        assert cli.run(["export", "litert", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    out = ["--out", tmp_path / "out"]
    assert "--images goes with --precision int8" in fails(model_folder(), *out, "--precision", "int8")
    assert "--images goes with --precision int8" in fails(model_folder(), *out, "--images", tmp_path)
    assert "not there yet" in fails(model_folder(), "--out", tmp_path)
    assert "model.roi.op is pool" in fails(model_folder(), *out, "model.roi.op=pool")
    source = open_source(model_folder(), portable=True)
    with pytest.raises(BadInput, match=r"precision: expected one of float32, float16, .*, found 'fp16'"):
        litert.write(source, tmp_path / "out", precision="fp16", parts=False)
    with pytest.raises(BadInput, match="int8 writes two graphs"):
        litert.write(source, tmp_path / "out", precision="int8", parts=True, images=[])
    with pytest.raises(BadInput, match=r"folder of a LiteRT or ONNX model"):
        device.Runner(tmp_path)
    assert list(tmp_path.iterdir()) == []


@disk.each_error
def test_a_folder_that_fails_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    source = open_source(model_folder(), portable=True)
    monkeypatch.setattr(litert, "_converted", lambda graph, images: b"graph" * 1000)
    monkeypatch.setattr(litert, "_graphs", lambda *_: [litert.Graph("model", None, {}, "float32")])

    def write() -> None:
        litert.write(source, tmp_path / "above" / "phone", precision="float32", parts=False)

    with pytest.raises(BadInput, match=r"phone: cannot be written: File too large$"), disk.no_room_beyond(3000):
        write()
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    steps = 0
    for _ in disk.each_step(write, error, expected):
        steps += 1
        names = disk.names_in(tmp_path)
        assert names == [] or "above/phone/model.tflite" in names
        assert not [name for name in names if "/." in name]
        shutil.rmtree(tmp_path / "above", ignore_errors=True)
    assert steps > 10
