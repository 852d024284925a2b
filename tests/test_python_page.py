"""The names that `maskx_tf` offers, and docs/python.md, whose code is run here."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import maskx_tf
from maskx_tf import structures
from maskx_tf.errors import BadInput
from maskx_tf.tasks.predict import predict_files
from maskx_tf.tasks.progress import Progress
from tests.documents import markdown
from tests.models.small import predict_eagerly
from tests.training import runs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder in which the page's code ran, and the names that it made."""
    folder = tmp_path_factory.mktemp("page")
    data = runs.scenes(folder / "synthetic")
    path = runs.recipe(folder, data)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["model"]["detections"]["score"] = 0.001  # four steps teach little
    settings["export"] = {"signatures": ["serving_default"], "warmup": 0}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copytree(data / "val", folder / "photos")
    shutil.copy(data / "instances_val.json", folder / "instances.json")
    shutil.copy(min((folder / "photos").iterdir()), folder / "photo.png")
    names: dict[str, Any] = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The page trains, evaluates and predicts: to trace a graph for each takes most of its time.
        runs.train_eagerly(patch)
        predict_eagerly(patch)
        for block in markdown.split(markdown.read(PAGE))[1]:
            if block.language == "python":
                exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec"), names)
    return folder, names


def test_page_runs(after: tuple[Path, dict[str, Any]]) -> None:
    folder, names = after
    assert names["training"].steps == 4
    assert (folder / "runs" / "first" / "model" / "weights.npz").exists()
    assert (folder / "models" / "first" / "1" / "saved_model.pb").exists()
    assert (folder / "evals" / "first" / "metrics.json").exists()
    assert len(names["predictions"]) == len(list((folder / "photos").iterdir())) + 2


def test_paths_images_and_arrays_give_equal_predictions(after: tuple[Path, dict[str, Any]]) -> None:
    folder, names = after
    path, pixels = folder / "photo.png", names["pixels"]
    with Image.open(path) as opened:
        every = maskx_tf.predict(names["model"], [path, str(path), opened, pixels, pixels[None]], score=0.0)
    assert len(every) == 5
    assert len(every[0].names) == 5
    assert every[0].pasted().shape == (5, *pixels.shape[:2])
    for other in every[1:]:
        for one, two in zip(every[0].detections, other.detections, strict=True):
            np.testing.assert_array_equal(one, two)
    [sure] = maskx_tf.predict(names["model"], pixels, score=float(every[0].detections.scores[1:3].mean()))
    assert sure.names == every[0].names[:2]


class Counted(Progress):
    def __init__(self) -> None:
        self.total = self.done = 0

    def started(self, total: int) -> None:
        self.total = total

    def advance(self) -> None:
        self.done += 1


def test_each_image_is_a_step(after: tuple[Path, dict[str, Any]]) -> None:
    folder, names = after
    progress, files = Counted(), sorted((folder / "photos").iterdir())
    maskx_tf.predict(names["model"], str(folder / "photos" / "*"), progress=progress)
    assert progress.total == progress.done == len(files) > 1
    predict_files(names["model"], files[:1], results=folder / "found.json", score=0.0, progress=progress)
    assert (progress.total, progress.done) == (1, len(files) + 1)
    assert len(json.loads((folder / "found.json").read_text())) == 5


def test_predictions_follow_the_weights(after: tuple[Path, dict[str, Any]]) -> None:
    model, pixels = after[1]["model"], after[1]["pixels"]
    before = model.predictor(pixels).masks
    kernel = next(variable for variable in model.network.trainable_variables if "transfer" in variable.path)
    plain = kernel.numpy()
    try:
        kernel.assign(-plain)
        [changed] = maskx_tf.predict(model, pixels, score=0.0)
    finally:
        kernel.assign(plain)
    assert np.abs(changed.detections.masks - before).max() > 1e-6


@pytest.mark.parametrize(
    "image", [np.zeros([4, 4], np.uint8), np.zeros([4, 4, 3], np.float32), np.zeros([4, 4, 4], np.uint8), "nowhere.png"]
)
def test_what_is_no_image(after: tuple[Path, dict[str, Any]], image: Any) -> None:
    with pytest.raises(BadInput, match=r"image: expected an array uint8 \[H, W, 3\]|nowhere.png: no such file"):
        maskx_tf.predict(after[1]["model"], image)


def test_page_lists_every_name() -> None:
    listed = {span for _, line in markdown.split(markdown.read(PAGE))[0] for span in markdown.spans(line)}
    offered = {f"mx.{name}" for name in maskx_tf.__all__}
    assert {span for span in listed if span.startswith("mx.") and span[3:] in dir(maskx_tf)} == offered
    code = "".join(block.text for block in markdown.split(markdown.read(PAGE))[1])
    assert [name for name in sorted(offered) if name not in code] == []


def test_type_checkers_and_python_find_the_same() -> None:
    tree = ast.parse(Path(maskx_tf.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == maskx_tf._ORIGINS
    assert sorted(typed) == sorted(maskx_tf.__all__)
    assert set(typed) <= set(dir(maskx_tf))
    assert maskx_tf.Detections is structures.Detections
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        maskx_tf.nothing  # noqa: B018


def test_import_is_cheap() -> None:
    code = (
        "import sys, maskx_tf; light = set(sys.modules); maskx_tf.load_config, maskx_tf.Detections, maskx_tf.BadInput; "
        "print(sorted({'numpy', 'pydantic', 'PIL', 'tensorflow'} & light), 'tensorflow' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[] False\n"
