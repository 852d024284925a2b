"""An ONNX model against the Python model it was made of."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.errors import BadInput
from maskx_tf.export import device
from maskx_tf.prediction.images import ImagePredictor
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


@pytest.mark.slow
def test_detections_are_those_of_the_python_model() -> None:
    path, facts = written()
    assert facts["check"]["images"] == len(PICTURES)
    assert facts["check"]["detections"] > 3 * len(PICTURES)
    runner, predictor = device.Runner(path), ImagePredictor(*model())
    for pixels in PICTURES:
        assert_same_detections(runner(pixels), predictor(pixels), pixels=0.5, tolerance=1 / 255)


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
def test_a_model_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = written()
    photo = next((folder() / "onnx-photos").iterdir())
    source = export.open_source(model_folder(), portable=True)
    monkeypatch.setitem(export.LARGEST_ERRORS, "boxes", -1.0)
    with pytest.raises(BadInput, match=r"boxes differ by .* on .*png, expected at most -1.0"):
        export._compare(source, path, [photo])


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["export", "onnx", str(model_folder()), "--out", str(tmp_path)]) == 2
    assert "not there yet" in capsys.readouterr().err
    (tmp_path / "lite.json").write_text('{"form": "onnx", "graphs": ["model"]}')
    (tmp_path / "labels.json").write_text("[]")
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="expected the folder of a LiteRT or ONNX model"):
        device.Runner(tmp_path)
