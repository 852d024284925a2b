"""`maskx vocabulary`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maskx_tf import cli
from maskx_tf.checkpoints import io, npz, vocabulary
from maskx_tf.checkpoints.folder import open_config
from maskx_tf.checkpoints.settings import resolve
from maskx_tf.data.splits import a_classes
from maskx_tf.errors import BadInput
from maskx_tf.names import COCO
from maskx_tf.tasks.vocabulary import _listed
from tests.checkpoints import small
from tests.checkpoints.small import quick_backbone  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    io.save(*small.model(), folder / "run" / "best", category_ids=[1, 2, 3, 5, 8, 13, 21], note="kept")
    io.save(*small.model("faster_rcnn"), folder / "boxes")
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["vocabulary", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("maskx: error: ").rstrip("\n")


def names(path: str) -> tuple[str, ...]:
    return open_config(path)[0].model.class_names


def test_list(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["vocabulary", str(saved / "run"), "list"]) == 0
    assert capsys.readouterr().out.splitlines()[3] == "    4  dog  (id 5)"
    assert cli.run(["vocabulary", str(saved / "boxes"), "list", "--json"]) == 0
    classes = json.loads(capsys.readouterr().out)
    assert classes[6] == {"index": 7, "name": "gnu", "category_id": None}


def test_list_does_not_import_tensorflow(saved: Path) -> None:
    code = (
        "import sys; from maskx_tf import cli; code = cli.run(sys.argv[1:]); "
        "sys.exit(code or any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    command = [sys.executable, "-c", code, "vocabulary", str(saved / "run"), "list"]
    subprocess.run(command, check=True, capture_output=True)


def test_add_drop_and_reorder(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["vocabulary", str(saved / "run"), "add", "yak", "--like", "dog", "--out", "more"]) == 0
    assert capsys.readouterr().out == "wrote more: mask_x_rcnn, 8 classes (7 before)\n"
    assert cli.run(["vocabulary", "more", "drop", "ape", "bee", "--out", "more"]) == 0  # in its own place
    assert cli.run(["vocabulary", "more", "reorder", "yak", "cat", "--out", "moved"]) == 0
    assert names("moved") == ("yak", "cat", "dog", "eel", "fox", "gnu")
    assert cli.run(["vocabulary", "moved", "reorder", "gnu", "dog", "--only", "--out", "two"]) == 0
    assert names("two") == ("gnu", "dog")
    _, meta = open_config("two")
    assert meta == {
        "category_ids": [21, 5],
        "note": "kept",
        "changes": ["added yak", "dropped ape, bee", "put first yak, cat", "kept gnu, dog"],
    }
    assert open_config("moved")[1]["category_ids"] == [22, 3, 5, 8, 13, 21]


def test_a_stays_a(tmp_path: Path) -> None:
    """Every change leaves the masks of the same classes to training; new classes are in B."""
    draw = {"random": {"a": 3, "seed": 0}}  # bee, cat, gnu; of six classes it would be bee, cat, fox
    model, config = small.model("faster_rcnn")
    policies = {"data": {"masks": draw}, "evaluate": {"masks": "voc"}}
    io.save(model, resolve({**config.model_dump(mode="json"), **policies}), tmp_path / "draw")

    def after(*change: str) -> tuple[object, object]:
        assert cli.run(["vocabulary", "draw", *change, "--out", "changed"]) == 0
        changed = open_config("changed")[0]
        return changed.data.masks, changed.evaluate.masks

    assert after("drop", "gnu") == (("bee", "cat"), ("cat", "dog"))
    assert after("reorder", "gnu", "cat") == (("bee", "cat", "gnu"), ("cat", "dog"))
    assert after("add", "cow") == (("bee", "cat", "gnu"), ("cat", "dog"))
    assert after("reorder", "dog", "eel", "--only") == ("none", ("dog",))


def test_published_splits_become_lists() -> None:
    """They need COCO's 80 classes in COCO's order."""
    config = resolve({"model": {"class_names": list(COCO)}, "data": {"masks": "E2_A20"}})
    listed = _listed(config).data.masks
    assert isinstance(listed, tuple)
    assert (set(listed), len(listed)) == (a_classes("E2_A20", COCO), 20)
    # As earlier commits left it after a change.
    old = resolve({"model": {"class_names": ["cat"]}, "data": {"masks": "E2_A20"}})
    with pytest.raises(BadInput, match=r"the model's config.yaml: data.masks: E2_A20: expected COCO's 80 classes"):
        _listed(old)


def test_rows_of_a_file_and_random_ones(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, config, _ = io.open_model(saved / "run")
    npz.write(Path("rows.npz"), vocabulary.like(model, config, "cat", 1).items())
    assert cli.run(["vocabulary", str(saved / "run"), "add", "yak", "--from", "rows.npz", "--out", "given"]) == 0
    filters = io.open_model("given").model.mask.prepare()[0].numpy()
    np.testing.assert_array_equal(filters[7], filters[2])
    assert cli.run(["vocabulary", str(saved / "run"), "add", "yak", "--out", "random"]) == 0
    assert not np.array_equal(io.open_model("random").model.mask.prepare()[0][7], filters[2])
    capsys.readouterr()
    both = ["add", "yak", "--from", "rows.npz", "--like", "cat", "--out", "a"]
    assert fails(capsys, str(saved / "run"), *both) == "expected --from or --like, found both"


def test_attach_masks(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["attach-masks", "model.transfer.layers=1"]
    for out in ("one", "two"):
        assert cli.run(["vocabulary", str(saved / "boxes"), *arguments, "--out", out]) == 0
    assert capsys.readouterr().out.startswith("wrote one: mask_x_rcnn, 7 classes (7 before)\n")
    one, two = (io.open_model(out) for out in ("one", "two"))
    assert one.config.model.transfer.layers == 1
    for name, value in small.values(one.model).items():  # of one seed
        np.testing.assert_array_equal(small.values(two.model)[name], value)


def test_mistakes(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(saved / "run")
    assert fails(capsys, model, "drop", "yak", "--out", "a") == "expected classes of the model, found yak"
    assert fails(capsys, model, "drop", "dog").startswith("Missing option '--out'")
    assert fails(capsys, model, "add", "dog", "--out", "a") == "expected names that are new, found dog twice"
    assert fails(capsys, model, "attach-masks", "--out", "a").startswith("expected a model of family faster_rcnn")
    assert fails(capsys, "none", "list") == "none: no such folder"
    assert fails(capsys, model, "lst").startswith("No such command 'lst'")
    assert not Path("a").exists()
