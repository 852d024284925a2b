"""The SavedModel against the Python model, and what a server and its operators expect of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from maskx_tf import cli
from maskx_tf.checkpoints import io as checkpoints
from maskx_tf.config import Config
from maskx_tf.errors import BadInput
from maskx_tf.export import saved_model
from maskx_tf.export.source import ExportModel, open_source
from maskx_tf.prediction.images import ImagePredictor
from maskx_tf.protocol.messages import WARM_UP_FILE
from tests import disk, oracle
from tests.export.exported import (
    CATEGORY_IDS,
    SIZES,
    detections,
    encoded,
    exported,
    fine_folder,
    fine_model,
    folder,
    model,
    model_folder,
    picture,
    signatures,
)
from tests.models.small import assert_same_detections, config, predict_eagerly, small_model

PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]
FILES = [encoded(pixels) for pixels in PICTURES]


def assert_same_answer(outputs, index, expected) -> None:
    found = detections(outputs, index)
    assert len(found.boxes) > 3
    assert_same_detections(found, expected, pixels=1e-2, tolerance=1.01 / 255)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    predict_eagerly(monkeypatch)


@pytest.mark.usefixtures("eager")
def test_detections_are_those_of_the_python_model() -> None:
    predictor = ImagePredictor(*model())
    outputs = signatures()["serving_default"](image_bytes=tf.constant(FILES))
    assert set(outputs["image_status"].numpy()) == {b"ok"}
    for index, pixels in enumerate(PICTURES):
        expected = predictor(pixels)
        assert_same_answer(outputs, index, expected)
        np.testing.assert_allclose(outputs["image_info"][index][:2], pixels.shape[:2])
        pixels_of = signatures()["image_tensor"](input_tensor=tf.constant(pixels[None]))
        assert_same_answer(pixels_of, 0, expected)
    names = dict(zip((0, *CATEGORY_IDS), (b"", b"cat", b"dog", b"horse"), strict=True))
    classes = outputs["detection_classes"].numpy()
    np.testing.assert_array_equal(np.vectorize(names.get)(classes), outputs["detection_class_names"])


@pytest.mark.usefixtures("eager")
def test_a_mask_head_that_reads_pixels_and_a_full_answer() -> None:
    """The answer of a model with 64 x 64 masks is the Python model's; 100 detections stay below half a megabyte."""
    out = folder() / "fine-saved"
    settings = ["export.signatures=[serving_default]", "export.warmup=0"]
    assert cli.run(["export", "saved-model", str(fine_folder()), "--out", str(out), *settings]) == 0
    ask = tf.saved_model.load(str(out / "1")).signatures["serving_default"]
    outputs = ask(image_bytes=tf.constant(FILES[:1]))
    assert outputs["detection_masks"].shape == (1, 100, 64, 64)
    assert outputs["num_detections"].numpy().tolist() == [100]
    assert sum(tf.make_tensor_proto(value).ByteSize() for value in outputs.values()) < 500_000
    for index in (0, 1):
        found = detections(ask(image_bytes=tf.constant(FILES[index : index + 1])), 0)
        assert_same_detections(found, ImagePredictor(*fine_model())(PICTURES[index]), tolerance=1.01 / 255, pixels=1e-2)


def test_a_batch_equals_single_requests() -> None:
    ask = signatures()["serving_default"]
    together = ask(image_bytes=tf.constant(FILES))
    for index, file in enumerate(FILES):
        alone = detections(ask(image_bytes=tf.constant([file])), 0)
        assert_same_detections(detections(together, index), alone, tolerance=1.01 / 255)


def test_a_bad_image_does_not_affect_others() -> None:
    ask = signatures()["serving_default"]
    outputs = ask(image_bytes=tf.constant([FILES[1], b"", FILES[1][:200], FILES[0]]))
    assert outputs["num_detections"].numpy().tolist()[1:3] == [0, 0]
    assert [status.split(b":")[0] for status in outputs["image_status"].numpy()] == [b"ok", b"empty", b"broken", b"ok"]
    for name in ("boxes", "scores", "classes", "masks"):
        assert not outputs[f"detection_{name}"].numpy()[1:3].any()
    np.testing.assert_array_equal(outputs["image_info"][1:3, :2], 0)
    assert_same_answer(outputs, 3, detections(ask(image_bytes=tf.constant([FILES[0]])), 0))


@pytest.mark.usefixtures("eager")
def test_given_boxes_get_masks() -> None:
    ask = signatures()["segment_boxes"]
    found = signatures()["serving_default"](image_bytes=tf.constant(FILES))
    given = found["detection_boxes"]
    outputs = ask(image_bytes=tf.constant(FILES), boxes=given)
    predictor = ImagePredictor(*model())
    for index, pixels in enumerate(PICTURES):
        own = detections(outputs, index)
        expected = predictor.segment(pixels, own.boxes)
        assert_same_detections(own, expected, tolerance=1.01 / 255)
    # More boxes than are looked at together give what each gives by itself, and none give none.
    many = ask(image_bytes=tf.constant(FILES[:1]), boxes=tf.repeat(given[:1], 3, axis=1))
    np.testing.assert_array_equal(many["detection_masks"][:, ::3], outputs["detection_masks"][:1])
    assert ask(image_bytes=tf.constant(FILES[:1]), boxes=tf.zeros([1, 0, 4]))["detection_masks"].shape[:2] == (1, 0)


def test_boxes_that_are_no_numbers() -> None:
    boxes = np.tile(np.float32([0.1, 0.1, 0.9, 0.9]), (3, 2, 1))
    boxes[1, 1, 2], boxes[2, 0, 0] = np.nan, np.inf
    outputs = signatures()["segment_boxes"](image_bytes=tf.constant(FILES[:3]), boxes=boxes)
    assert outputs["num_detections"].numpy().tolist() == [2, 0, 0]
    assert outputs["image_status"].numpy().tolist()[1:] == [b"bad_boxes: expected finite numbers"] * 2
    assert np.isfinite(outputs["detection_scores"]).all()


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("segment_boxes", {"image_bytes": FILES[:2], "boxes": np.zeros([1, 1, 4], np.float32)}, "as many rows"),
        ("segment_boxes", {"image_bytes": FILES[:1], "boxes": np.zeros([1, 1001, 4], np.float32)}, "at most 1000"),
        ("serving_default", {"image_bytes": np.zeros([0], "S1")}, "image_bytes: expected at least one"),
        ("image_tensor", {"input_tensor": np.zeros([0, 4, 4, 3], np.uint8)}, "input_tensor: expected at least one"),
    ],
)
def test_malformed_requests(name, inputs, message) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures()[name](**{key: tf.constant(value) for key, value in inputs.items()})


def test_the_graph_needs_no_xla_and_holds_no_weights() -> None:
    saved = saved_model_pb2.SavedModel.FromString((exported() / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    functions = graph.graph_def.library.function
    assert len(functions) > 3
    assert [one.signature.name for one in functions if one.attr["_XlaMustCompile"].b] == []
    operations = {node.op for one in functions for node in one.node_def}
    assert "Conv2D" in operations
    assert "ReadVariableOp" in operations
    assert not any(op.startswith("FusedBatchNorm") for op in operations)
    # Weights are there once, though three entry points use them.
    weights = (model_folder() / "weights.npz").stat().st_size
    (values,) = (exported() / "variables").glob("variables.data-*")
    assert 0.9 * weights < values.stat().st_size < 1.1 * weights
    assert (exported() / "saved_model.pb").stat().st_size < 2e6


def test_answers_are_small() -> None:
    boxes = np.tile(np.float32([0.1, 0.1, 0.9, 0.9]), (1, 100, 1))
    outputs = signatures()["segment_boxes"](image_bytes=tf.constant(FILES[:1]), boxes=boxes)
    assert outputs["num_detections"].numpy()[0] == 100
    assert outputs["detection_masks"].numpy().any(axis=(2, 3)).all()
    assert sum(len(tf.make_tensor_proto(value.numpy()).SerializeToString()) for value in outputs.values()) < 100_000


def test_assets_and_warm_up() -> None:
    labels = json.loads((exported() / "assets" / "labels.json").read_text())
    assert labels[0] == {"index": 1, "id": 17, "name": "cat", "masks": True}
    assert [label["masks"] for label in labels] == [True, False, False]
    assert json.loads((exported() / "assets" / "metrics.json").read_text()) == {"mask_ap": 0.25}
    assert json.loads((exported() / "assets" / "versions.json").read_text())["tensorflow"] == tf.__version__
    assert "class_names: [cat, dog, horse]" in (exported() / "assets" / "config.yaml").read_text()


def test_warm_up_requests_are_official_messages() -> None:
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="the extra dev is missing")
    records = [
        logs.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(exported() / WARM_UP_FILE))
    ]
    specs = [record.predict_log.request.model_spec for record in records]
    assert [(spec.name, spec.signature_name) for spec in specs] == [("pets", name) for name in signatures()]
    for record in records:
        request = record.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        assert signatures()[request.model_spec.signature_name](**inputs)["image_status"].numpy().tolist() == [b"ok"]


ELSEWHERE = """
import sys
sys.modules["maskx_tf"] = None
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answer = model.signatures["serving_default"](image_bytes=tf.constant([open(sys.argv[2], "rb").read()]))
print(int(answer["num_detections"][0]), open(model.labels.asset_path.numpy()).read()[:1])
"""


@pytest.mark.slow
def test_the_export_loads_without_this_package(tmp_path) -> None:
    (tmp_path / "image.png").write_bytes(FILES[0])
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    arguments = [sys.executable, "-c", ELSEWHERE, str(exported()), str(tmp_path / "image.png")]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "["]


def test_the_graph_restores_the_weights() -> None:
    """TF Serving runs this operation; tf.saved_model.load, which the other tests use, takes another way."""
    saved = saved_model_pb2.SavedModel.FromString((exported() / "saved_model.pb").read_bytes())
    [graph] = saved.meta_graphs
    [restore] = [node for node in graph.graph_def.node if node.name == graph.saver_def.restore_op_name]
    assert {variable.path for variable in model()[0].variables} <= set(restore.input)


@pytest.mark.slow
def test_saved_model_cli_runs_it(tmp_path) -> None:
    np.save(tmp_path / "in.npy", PICTURES[0][None])
    tool = str(Path(sys.executable).with_name("saved_model_cli"))
    place = ["--dir", str(exported()), "--tag_set", "serve", "--signature_def"]
    shown = subprocess.run([tool, "show", *place, "segment_boxes"], capture_output=True, text=True, check=True).stdout
    assert "inputs['boxes']" in shown
    inputs = ["--inputs", f"input_tensor={tmp_path / 'in.npy'}", "--outdir", str(tmp_path)]
    subprocess.run([tool, "run", *place, "image_tensor", *inputs], capture_output=True, check=True)
    expected = signatures()["image_tensor"](input_tensor=tf.constant(PICTURES[0][None]))
    for name in ("boxes", "masks"):
        found = np.load(tmp_path / f"detection_{name}.npy")
        np.testing.assert_allclose(found, expected[f"detection_{name}"], atol=1.01 if name == "masks" else 1e-4)


def run(capsys, *arguments: object) -> tuple[int, str]:
    code = cli.run(["export", "saved-model", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, (captured.err if code else captured.out)


@pytest.mark.slow
def test_command_of_a_detector(capsys, tmp_path) -> None:
    settings = config(family="faster_rcnn")
    checkpoints.save(small_model(settings), Config(model=settings), tmp_path / "model")
    overrides = ["--version", 7, "--json", "--bf16", "model.detections.limit=3", "export.warmup=0"]
    code, text = run(capsys, tmp_path / "model", "--out", tmp_path / "boxes", *overrides)
    assert code == 0
    assert json.loads(text)["signatures"] == ["serving_default", "image_tensor"]
    outputs = tf.saved_model.load(str(tmp_path / "boxes" / "7")).signatures["serving_default"](tf.constant(FILES[:1]))
    assert "detection_masks" not in outputs
    assert set(outputs["detection_classes"].numpy()[0]) <= {1, 2, 3}
    assert outputs["detection_scores"].shape == (1, 3)
    assert not (tmp_path / "boxes" / "7" / "assets.extra").exists()
    saved = (tmp_path / "boxes" / "7" / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(saved).meta_graphs
    convolutions = {n.attr["T"].type for f in graph.graph_def.library.function for n in f.node_def if n.op == "Conv2D"}
    assert convolutions == {tf.bfloat16.as_datatype_enum}
    assert tf.keras.config.dtype_policy().name == "float32"


def test_versions_count_up_and_are_never_replaced(monkeypatch, tmp_path) -> None:
    source = open_source(model_folder())

    def small(source, path, name, names) -> None:
        (path / "saved_model.pb").touch()

    monkeypatch.setattr(saved_model, "_write", small)
    assert [saved_model.write(source, tmp_path / "m").version for _ in range(2)] == [1, 2]
    assert saved_model.write(source, tmp_path / "m", version=10).version == 10
    assert saved_model.write(source, tmp_path / "m").version == 11
    with pytest.raises(BadInput, match="stands already"):
        saved_model.write(source, tmp_path / "m", version=2)

    def fails(source, path, name, names) -> None:
        (path / "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_model, "_write", fails)
    with pytest.raises(BadInput, match="cannot be written: No space"):
        saved_model.write(source, tmp_path / "m")
    assert sorted(entry.name for entry in (tmp_path / "m").iterdir()) == ["1", "10", "11", "2"]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1])
def test_ids_beyond_int32_are_refused(tmp_path, number) -> None:
    source = open_source(model_folder())
    source = source._replace(meta={**source.meta, "category_ids": [17, 18, number]})
    with pytest.raises(BadInput, match=f"class 'horse' has the id {number}, expected at most 2147483647"):
        saved_model.write(source, tmp_path / "pets")
    assert not (tmp_path / "pets").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "x"], "nowhere: no such folder"),
        (["MODEL", "--out", "x", "model.box.width=64"], "expected shape"),
        (["MODEL", "--out", "x", "model.class_names=[a, b, c]"], "maskx vocabulary"),
        (["MODEL", "--out", "x", "export.signature=[]"], "signatures"),
        (["MODEL", "--out", "x", "--version", "0"], "--version"),
        (["MODEL"], "--out"),
    ],
)
def test_mistakes(capsys, monkeypatch, tmp_path, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(capsys, *(model_folder() if part == "MODEL" else part for part in arguments))
    assert code == 2
    assert message in text
    assert text.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.slow
@oracle.needs_oracle
def test_resnet_with_the_oracles_weights(tmp_path) -> None:
    from tests.models.torchvision_models import _imported

    imported = _imported()
    checkpoints.save(imported.model, imported.config, tmp_path / "model")
    path = saved_model.write(open_source(tmp_path / "model"), folder() / "r50").path
    ask = tf.saved_model.load(str(path)).signatures["serving_default"]
    predictor = ImagePredictor(imported.model, imported.config.model)
    for image in ("a", "b"):
        pixels = oracle.outputs()[f"{image}/image_uint8"]
        outputs = ask(image_bytes=tf.constant([encoded(pixels)]))
        count = int(outputs["num_detections"][0])
        height, width = pixels.shape[:2]
        boxes = outputs["detection_boxes"][0].numpy()[:count, [1, 0, 3, 2]] * [width, height, width, height]
        expected = predictor(pixels)
        classes = outputs["detection_classes"][0].numpy()[:count]
        ours, theirs = oracle.matched_pairs(boxes, expected.boxes, classes, expected.classes)
        assert len(ours) >= 0.99 * len(expected.boxes)
        np.testing.assert_allclose(boxes[ours], expected.boxes[theirs], atol=1e-2)
        levels = outputs["detection_masks"][0].numpy()[ours].astype(int)
        assert np.abs(levels - np.round(255 * expected.masks[theirs])).max() <= 1
        np.testing.assert_array_equal(outputs["image_info"][0][-1], 1)  # torchvision pastes on whole pixels


@pytest.fixture(scope="module")
def source() -> ExportModel:
    """The model with one entry point, which is enough for writing to fail."""
    return open_source(model_folder(), ("export.signatures=[image_tensor]",))


def test_a_full_disk_is_one_line_and_leaves_nothing(source: ExportModel, tmp_path: Path) -> None:
    out = tmp_path / "above" / "pets"
    for size in (100, 20_000):  # too little for a label file, and for the graph
        with pytest.raises(BadInput, match=r"pets/1: cannot be written: File too large$"), disk.no_room_beyond(size):
            saved_model.write(source, out)
        assert disk.names_in(tmp_path) == []


def _small(source: ExportModel, folder: Path, name: str, names: list[str]) -> None:
    (folder / "assets").mkdir()
    (folder / "assets" / "labels.json").write_text("[]")
    (folder / "saved_model.pb").write_bytes(b"graph")


@disk.each_error
def test_a_version_that_fails_is_not_there(
    source: ExportModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(saved_model, "_write", _small)
    expected = BadInput if isinstance(error, OSError) else KeyboardInterrupt
    whole = ["m", "m/1", "m/1/assets", "m/1/assets/labels.json", "m/1/saved_model.pb"]
    for _ in disk.each_step(lambda: saved_model.write(source, tmp_path / "m", version=1), error, expected):
        assert disk.names_in(tmp_path) in ([], whole)
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
    assert disk.names_in(tmp_path) == whole


def _interrupted(*_: object, **__: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _swallowed(*_: object, **__: object) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def _made_another_error(*_: object, **__: object) -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise tf.errors.UnknownError(None, None, "KeyboardInterrupt: ") from None


@pytest.mark.parametrize("what", [_interrupted, _swallowed, _made_another_error])
def test_an_interrupt_is_one_line_whatever_tensorflow_makes_of_it(
    what: Callable[..., None],
    source: ExportModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("maskx_tf.tasks.export.open_source", lambda *_, **__: source)
    monkeypatch.setattr(saved_model.Signatures, "functions", lambda *_: {})  # `what` saves none
    monkeypatch.setattr(tf.saved_model, "save", what)
    assert cli.run(["export", "saved-model", "any", "--out", str(tmp_path / "m")]) == 130
    captured = capfd.readouterr()
    assert (captured.out, captured.err.splitlines()[-1]) == ("", "maskx: interrupted")
    assert "Traceback" not in captured.err
    assert disk.names_in(tmp_path) == []
