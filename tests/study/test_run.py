"""Which cells run, which are not run again, and what the controls of T read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskx_tf import cli, locks
from maskx_tf.config import Config
from maskx_tf.data import opening
from maskx_tf.errors import BadInput
from maskx_tf.study import cells, controls, regions, results, run
from tests.study import small


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were run, by a stand-in; "stop" in the list stops the next one."""
    names: list[str] = []

    def run_cell(group: run.Group) -> dict[str, Any]:
        if "stop" in names:
            raise run.StudyStopped
        names.append(group.cell.name)
        group.places.regions(group.cell.group).mkdir(parents=True, exist_ok=True)
        figures = {"test": {"mask/B/AP": 0.5}}
        return {"group": group.cell.group.name, "method": group.cell.method.name, "figures": figures, "a": 17}

    monkeypatch.setattr(run, "run_cell", run_cell)
    return names


def test_finished_cells_are_not_run_again(tmp_path: Path, asked: list[str]) -> None:
    study, out = small.load(tmp_path), tmp_path / "out"
    run.run(study, out, ["seed1"])
    assert asked == ["seed1/plain", "seed1/two", "seed1/three", "seed1/oracle"]
    run.run(study, out)
    assert asked[4:] == ["seed0/plain", "seed0/two", "seed0/three", "seed0/oracle", "seed0-a20/plain", "seed0-a20/two"]
    run.run(study, out)
    assert len(asked) == 10


def test_cells_with_other_settings_run_again(tmp_path: Path, asked: list[str]) -> None:
    run.run(small.load(tmp_path), tmp_path / "out")
    asked.clear()
    methods = small.settings()["methods"]
    methods[2]["settings"]["model"]["transfer"]["activation"] = "relu"
    changed = small.load(tmp_path, methods=methods)
    run.run(changed, tmp_path / "out")
    assert asked == ["seed0/three", "seed1/three"]
    assert len(results.read(tmp_path / "out" / results.RESULTS)) == 10


def test_regions_go_with_the_last_cell_of_their_detector(tmp_path: Path, asked: list[str]) -> None:
    study, out = small.load(tmp_path), tmp_path / "out"
    regions = cells.Places(out).regions(study.groups[0])
    run.run(study, out, ["seed0/plain", "seed0/two", "seed0/three"])
    assert regions.exists()
    run.run(study, out, ["oracle"])
    assert regions.exists()  # another division of the classes on the same detector
    run.run(study, out, ["seed0-a20"])
    assert not regions.exists()


def test_two_processes_do_not_share_a_folder(tmp_path: Path, asked: list[str]) -> None:
    study, out = small.load(tmp_path), tmp_path / "out"
    out.mkdir()
    with (
        locks.locked(out / ".lock"),
        pytest.raises(BadInput, match=f"{out}: expected a folder that is not in use, found process"),
    ):
        run.run(study, out, ["plain"])
    assert asked == []
    run.run(study, out, ["plain"])
    assert asked[0] == "seed0/plain"


def test_a_signal_ends_the_command(tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture) -> None:
    small.load(tmp_path)
    arguments = ["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]
    assert cli.run([*arguments, "--only", "plain"]) == 0
    assert "| baseline |" in " ".join(capsys.readouterr().out.split())
    asked.append("stop")
    assert cli.run(arguments) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_bad_settings_are_found_before_anything_runs(tmp_path: Path, asked: list[str]) -> None:
    methods = small.settings()["methods"]
    methods[3]["settings"] = {"train": {"steps": 0}}
    small.load(tmp_path, methods=methods)
    assert cli.run(["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert asked == []


def test_a_folder_with_other_settings_is_removed(tmp_path: Path) -> None:
    folder, said = tmp_path / "cells" / "one", []
    run.fresh(folder, "a", said.append)
    assert not folder.exists()
    folder.mkdir()
    (folder / "kept").touch()
    run.fresh(folder, "a", said.append)
    assert (folder / "kept").exists()
    run.fresh(folder, "b", said.append)
    assert not folder.exists()
    assert len(said) == 1
    folder.mkdir()  # made by nobody knows what
    (folder.parent / "one.digest").unlink()
    run.fresh(folder, "b", said.append)
    assert not folder.exists()


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A model folder as far as controls look: rows of a background and six classes."""
    generator = np.random.default_rng(0)
    (tmp_path / "model.json").write_text("{}")
    np.savez(
        tmp_path / "weights.npz",
        **{
            "box_predictor/class_rows": generator.normal(0, 0.1, [7, 8]).astype(np.float32),
            "box_predictor/box_rows": generator.normal(0, 0.01, [6, 4, 8]).astype(np.float32),
        },
    )
    return tmp_path


def test_pooled_regions_belong_to_weights_settings_and_annotations(tmp_path: Path, detector: Path) -> None:
    annotations = tmp_path / "annotations.json"
    annotations.write_text("{}")

    def mark(**model: Any) -> str:
        source = {"images": "images", "annotations": str(annotations)}
        settings = {"train": {"stage": "mask", "weights": str(detector)}, "data": {"train": [source]}, "model": model}
        return regions.mark_of(Config.model_validate(settings))

    plain = mark()
    assert mark(mask={"convs": 2}, transfer={"layers": 3}) == plain
    assert mark(rpn={"nms_iou": 0.6}) != plain
    assert mark(mask={"regions": "truth"}) != plain
    annotations.write_text("[]")
    assert mark() != plain
    annotations.write_text("{}")
    assert mark() == plain
    with np.load(detector / "weights.npz") as weights:
        arrays = {name: np.array(weights[name]) for name in weights}
    arrays["box_predictor/class_rows"][0, 0] += 1
    np.savez(detector / "weights.npz", **arrays)
    assert mark() != plain


def test_grabcut_stands_in_for_the_masks_of_b(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs opencv-python-headless")
    oracle = {"name": "cut", "recipe": str(small.ROOT / "configs/synthetic_agnostic.yaml"), "masks": "grabcut"}
    study = small.load(tmp_path, methods=[oracle], groups=[{"name": "seed0"}], choices=[], tables=[], figures=[])
    cell, places = cells.cells_of(study)[0], cells.Places(tmp_path / "out")
    group = run.Group(study, cell, places, lambda text: None)
    run.prepare_data(group)
    classes_a = run.a_of(group)
    run.cut_masks(group)
    plain = opening.training_set(group._replace(cell=small.as_everyone(cell)).config().data)
    made = opening.training_set(group.config().data)
    assert made.class_names == plain.class_names
    pairs = [
        pair
        for images in zip(made.images, plain.images, strict=True)
        for pair in zip(*(one.instances for one in images), strict=True)
    ]
    for ours, theirs in pairs:
        assert ours.has_mask
        assert theirs.has_mask == (plain.class_names[theirs.label - 1] in classes_a)
    assert not all(theirs.has_mask for _, theirs in pairs)


def test_shuffled_rows_are_those_of_other_classes(detector: Path) -> None:
    with np.load(detector / "weights.npz") as weights:
        boxes = weights["box_predictor/box_rows"].reshape(6, 32)
        own = np.concatenate([weights["box_predictor/class_rows"][1:], boxes], axis=1)
    table = controls.make("shuffled", detector, 0, unit_rms=False)
    rows = [np.flatnonzero((own == row).all(axis=1)).tolist() for row in table]
    assert sorted(place for found in rows for place in found) == list(range(6))
    assert all(found != [place] for place, found in enumerate(rows))


def test_parts_of_a_table_have_unit_size_where_t_would_scale_them(detector: Path) -> None:
    table = controls.make("shuffled", detector, 0, unit_rms=True)
    np.testing.assert_allclose(np.square(table[:, :8]).mean(axis=1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(np.square(table[:, 8:]).mean(axis=1), 1.0, rtol=1e-4)


def test_a_constant_table_has_equal_rows_and_a_random_one_the_detectors_size(detector: Path) -> None:
    constant = controls.make("constant", detector, 0, unit_rms=False)
    assert constant.shape == (6, 40)
    assert (constant == constant[0]).all()
    table = controls.make("random", detector, 0, unit_rms=False)
    own = controls.make("shuffled", detector, 0, unit_rms=False)
    assert 0.5 < np.std(table) / np.sqrt(np.mean(np.square(own))) < 2.0
    assert np.linalg.matrix_rank(table) == 6
    assert not np.array_equal(table, controls.make("random", detector, 1, unit_rms=False))
