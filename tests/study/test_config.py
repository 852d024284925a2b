"""Studies as files: what is refused, what a cell's configuration is, and on what its checksum depends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskx_tf.errors import BadInput
from maskx_tf.study import cells, config
from maskx_tf.study.cells import Cell, Places
from maskx_tf.study.config import StudyConfig
from tests.study import small

METHODS = [
    {**method, "start": "grabcut"} if method["name"] == "two" else method for method in small.settings()["methods"]
]
GROUP = [{"name": "seed0"}]
STUDIES = sorted((small.ROOT / "configs" / "study").glob("*.yaml"))


def _cell(study: StudyConfig, name: str) -> Cell:
    return next(cell for cell in cells.cells_of(study) if cell.name == name)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_cell_of_a_shipped_study_has_a_configuration(path: Path, tmp_path: Path) -> None:
    assert f"maskx study {path.stem}" in path.read_text(encoding="utf-8")
    study = config.load(path)
    every = cells.cells_of(study)
    first = [cell for cell in every if cell.group == every[0].group]
    others = [cell for cell in every if cell.method == every[0].method]
    for cell in [*first, *others]:
        assert cells.cell_config(study, cell, Places(tmp_path)).train.seed == cell.group.seed
    for group in study.groups:
        cells.detector_config(study, group, Places(tmp_path))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"method": []}, "unknown key; did you mean methods?"),
        ({"name": "a/b"}, "name: "),
        ({"groups": [{"name": "one"}, {"name": "one"}]}, "groups: expected no name twice, found 'one'"),
        ({"groups": [{"name": "one", "masks": "voc"}]}, "groups.masks: expected a instead"),
        ({"groups": [{"name": "one", "methods": ["four"]}]}, "groups.methods: expected one of plain, two"),
        ({"groups": [{"name": "one", "detector": "two"}]}, "groups.detector: expected a group that trains one"),
        ({"synthetic": None}, "groups.a: expected masks instead"),
        ({"choices": [{"name": "plain", "among": ["two"]}]}, "methods: expected no name twice, found 'plain'"),
        ({"synthetic": None, "groups": [{"name": "one"}], "figures": []}, "choices: expected synthetic data"),
        ({"groups": [{"name": "one", "methods": ["two"]}]}, "choices: expected a group that runs every method"),
        ({"methods": METHODS, "groups": [{"name": "one"}]}, "choices.among: expected methods that learn"),
        (
            {"methods": [METHODS[0], {**METHODS[1], "steps": ["refine"]}, *METHODS[2:]]},
            "methods[1].steps: expected no refine, because start is grabcut: there is no predicted mask",
        ),
        ({"figures": [{"title": "size", "baseline": "x", "methods": ["two"]}]}, "figures: expected one of plain"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput) as error:
        small.load(tmp_path, **changes)
    assert problem in str(error.value)


def test_a_group_with_a_detector_of_another_seed_is_refused(tmp_path: Path) -> None:
    groups = [{"name": "one", "seed": 1}, {"name": "two", "seed": 2, "detector": "one"}]
    with pytest.raises(BadInput, match="one of seed 2"):
        small.load(tmp_path, groups=groups)


def test_settings_of_a_method_that_cannot_be_are_named(tmp_path: Path) -> None:
    study = small.load(tmp_path, mask_settings={"train": {"stepz": 3}})
    with pytest.raises(BadInput, match=r"^mask_settings: train.stepz: unknown key; did you mean train.steps\?$"):
        cells.cell_config(study, cells.cells_of(study)[0], Places(tmp_path))


def test_only_names_cells_groups_and_methods(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    assert len(cells.cells_of(study)) == 10
    assert [cell.name for cell in cells.cells_of(study, ["two"])] == ["seed0/two", "seed1/two", "seed0-a20/two"]
    assert [cell.name for cell in cells.cells_of(study, ["seed1/plain", "seed0-a20"])] == [
        "seed1/plain",
        "seed0-a20/plain",
        "seed0-a20/two",
    ]
    with pytest.raises(BadInput, match="--only five: expected a group, a method or a cell such as seed0/plain"):
        cells.cells_of(study, ["plain", "five"])


def test_only_the_oracle_opens_masks_of_b(tmp_path: Path) -> None:
    study, places = small.load(tmp_path), Places(tmp_path)
    policies = {cell.name: cells.cell_config(study, cell, places).data.masks for cell in cells.cells_of(study)}
    assert {name for name, policy in policies.items() if policy == "oracle"} == {"seed0/oracle", "seed1/oracle"}


def test_methods_with_all_masks_or_none_learn_once_for_all_splits(tmp_path: Path) -> None:
    groups = [{"name": name, "masks": {"random": {"a": 17, "seed": 1}}, "detector": "all"} for name in ("one", "two")]
    groups = [{"name": "all", "masks": "all"}, groups[0], {**groups[1], "seed": 1}]
    without = {"name": "without", "recipe": small.settings()["methods"][0]["recipe"], "masks": "none"}
    changes = {"synthetic": None, "groups": groups, "choices": [], "tables": [], "figures": []}
    study = small.load(tmp_path, methods=[*small.settings()["methods"], without], **changes)
    learners = {cell.name: cells.learner(study, cell).name for cell in cells.cells_of(study)}
    assert {name for name, other in learners.items() if name != other} == {"one/oracle", "one/without"}
    assert learners["one/oracle"] == "all/oracle"
    assert cells.cell_config(study, _cell(study, "one/without"), Places(tmp_path)).data.masks == "none"
    drawn = small.load(tmp_path)
    assert all(cells.learner(drawn, cell) == cell for cell in cells.cells_of(drawn))


def test_steps_of_scoring_take_the_model_of_the_same_method_without(tmp_path: Path) -> None:
    two, refined = small.settings()["methods"][1], {"name": "refined", "steps": ["refine", "disjoint"]}
    study = small.load(tmp_path, methods=[*small.settings()["methods"], {**two, **refined}])
    cell = _cell(study, "seed1/refined")
    assert cells.learner(study, cell).name == "seed1/two"
    assert cells.learner(study, _cell(study, "seed1/two")).name == "seed1/two"
    places = Places(tmp_path)
    assert cells.digest(study, cell, places) != cells.digest(study, cells.learner(study, cell), places)
    alone = small.load(tmp_path, methods=[{**two, **refined}], choices=[], tables=[], figures=[], groups=GROUP)
    assert cells.learner(alone, cells.cells_of(alone)[0]).name == "seed0/refined"


def test_a_cell_learns_its_mask_branch_on_its_groups_detector(tmp_path: Path) -> None:
    study, places = small.load(tmp_path), Places(tmp_path)
    found = cells.cell_config(study, _cell(study, "seed0-a20/two"), places)
    assert (found.train.stage, found.train.steps) == ("mask", 5)
    assert found.train.weights == str(tmp_path / "detectors" / "seed0")
    assert found.data.train[0].images == str(tmp_path / "data" / "seed0-a20" / "train")
    assert cells.detector_config(study, study.groups[2], places).train.steps == 7


def test_a_digest_depends_on_settings_and_not_on_places(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    cell, places = _cell(study, "seed0/two"), Places(tmp_path)
    plain = cells.digest(study, cell, places)
    assert cells.digest(study, cell, Places(tmp_path / "elsewhere")) == plain
    quiet = small.load(tmp_path, settings={"train": {"log_every": 7, "keep": 9}, "evaluate": {"batch": 3}})
    assert cells.digest(quiet, _cell(quiet, "seed0/two"), places) == plain
    for changes in (
        {"mask_settings": {"train": {"steps": 6}}},
        {"settings": {"evaluate": {"score": 0.01}}},
        {"detector": {**small.settings()["detector"], "settings": {"train": {"steps": 8}}}},
        {"synthetic": {**small.settings()["synthetic"], "companions": 0.5}},
        {"regions": {"per_image": 2}},
    ):
        changed = small.load(tmp_path, **changes)
        assert cells.digest(changed, _cell(changed, "seed0/two"), places) != plain
    assert cells.digest(study, _cell(study, "seed1/two"), places) != plain
    assert cells.digest(study, _cell(study, "seed0/three"), places) != plain


def test_a_detector_does_not_depend_on_who_has_masks(tmp_path: Path) -> None:
    study = small.load(tmp_path)
    other = small.load(tmp_path, synthetic={**small.settings()["synthetic"], "a": 18})
    places, group = Places(tmp_path), study.groups[0]
    assert cells.detector_digest(study, group, places) == cells.detector_digest(other, group, places)
