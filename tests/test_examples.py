"""The notebooks and scripts under examples/."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskx_tf.data import keypoints, stats
from maskx_tf.data.formats import readers

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
LEAST_BOX_AP = 20.0  # in per cent, of what own_data.ipynb trains; it reached 42.9
NOTEBOOKS = (
    "own_data.ipynb",
    "serve_and_query.ipynb",
)  # in the order in which they run: the second serves the first's model


def cells(notebook: str, kind: str = "code") -> list[dict[str, Any]]:
    book = json.loads((EXAMPLES / notebook).read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == kind]


def outputs(cell: dict[str, Any]) -> Iterator[str]:
    """What a cell printed, and the text of its result."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield output.get("data", {}).get("text/plain", "")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_names_what_exists(notebook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    code = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    tree = ast.parse(code)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), notebook, "exec"), names)
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    missing = [
        ast.unparse(node)
        for node in used
        if isinstance(names.get(node.value.id), (ModuleType, type)) and not hasattr(names[node.value.id], node.attr)
    ]
    assert missing == []
    assert len(imports) > 5


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook_is_kept_without_outputs(notebook: str) -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook))
    assert "".join(cells(notebook, "markdown")[0]["source"]).startswith("# ")


def test_shapes_are_a_data_set_with_masks_for_some(tmp_path: Path) -> None:
    shapes = script("shapes")
    shapes.write(tmp_path, 20, ("pebble",))
    sources = [readers.DataFiles(tmp_path / part, tmp_path / f"{part}.json") for part in ("train", "val")]
    train, val = (readers.for_evaluation([source]) for source in sources)
    assert (len(train.images), len(val.images)) == (16, 4)
    assert stats.a_set(train, "all") == {"pebble"}
    shapes.write(tmp_path / "few", 20, ("star",), few=1)
    few = readers.for_evaluation([readers.DataFiles(tmp_path / "few" / "train", tmp_path / "few" / "train.json")])
    counted = {one["name"]: (one["instances"], one["with_masks"]) for one in stats.count(few)["classes"]}
    assert counted["star"][0] == counted["star"][1] > 1
    assert [counted[name][1] for name in ("pebble", "ring")] == [1, 1]
    assert stats.a_set(val, "all") == set(val.class_names) == {"pebble", "star", "ring"}


def test_shapes_have_labelled_points_where_they_have_no_mask(tmp_path: Path) -> None:
    script("shapes").write(tmp_path, 20, ("pebble",), points=10)
    train = readers.for_evaluation([readers.DataFiles(tmp_path / "train", tmp_path / "train.json")])
    labels = []
    for one in (one for image in train.images for one in image.instances):
        assert (one.clicks is None) == one.has_mask
        if one.clicks is not None:
            x1, y1, x2, y2 = one.box
            assert keypoints.inside(one.clicks, (x1 - 0.1, y1 - 0.1, x2 + 0.1, y2 + 0.1)).all()  # they are rounded
            labels += one.clicks[:, 2].tolist()
    assert set(labels) == {1.0, 2.0}
    assert 0.3 < np.mean(np.equal(labels, 1)) < 0.7


def test_a_ring_has_a_hole() -> None:
    corners = script("shapes").outline("ring", 50, 50, 40, np.random.RandomState(0))
    polygon = [[float(value) for corner in corners for value in corner]]
    pixels = coco_mask.decode(coco_mask.frPyObjects(polygon, 100, 100))[..., 0]
    assert not pixels[45:55, 45:55].any()
    assert pixels[48:52, 12:24].all()
    assert 0.5 < pixels.sum() / (np.pi * 40**2) < 0.8


@pytest.mark.slow
def test_notebooks_run(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    printed = []
    for folder in ("examples", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for notebook in NOTEBOOKS:
        book = nbformat.read(tmp_path / "examples" / notebook, as_version=4)
        kernel = {"resources": {"metadata": {"path": str(tmp_path / "examples")}}, "kernel_name": "python3"}
        NotebookClient(book, timeout=600, **kernel).execute()
        printed.append("".join(text for cell in book.cells for text in outputs(cell)))
    boxes = re.search(r"^all +(\S+)", printed[0], re.MULTILINE)
    assert boxes is not None
    assert float(boxes[1]) > LEAST_BOX_AP
    assert "(240, 240)" in printed[1]
    assert "not_an_image" in printed[1]
    assert (tmp_path / "runs" / "notebook" / "run" / "model" / "weights.npz").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["configs", "examples", "runs"]
