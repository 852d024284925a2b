"""`maskx recipes`, and recipes by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskx_tf import cli
from maskx_tf.config import load, recipes
from maskx_tf.study import config as study


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_lists_every_recipe_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0] for line in lines if line.startswith("  ")}
    every = {path.stem for path in recipes.PACKAGED.rglob("*.yaml") if path.parent.name != "base"}
    assert listed == every == set(recipes.names())
    assert len(recipes.names()) == len(every), "a recipe and a study have the same name"
    assert all(len(line.split(None, 1)[1]) > 20 for line in lines if line.startswith("  "))
    assert any("synthetic_quick " in line and "Two methods, one seed" in line for line in lines)


def test_name_stands_for_the_packages_recipe_and_a_file_wins() -> None:
    assert load("synthetic_mask_x") == load(recipes.PACKAGED / "synthetic_mask_x.yaml")
    Path("synthetic_mask_x").write_text("data: {train: [{images: mine, annotations: mine.json}]}\n", encoding="utf-8")
    assert load("synthetic_mask_x").data.train[0].images == "mine"
    Path("mine.yaml").write_text("base: synthetic_agnostic\ntrain: {steps: 7}\n", encoding="utf-8")
    assert load("mine.yaml") == load("synthetic_agnostic", ["train.steps=7"])


@pytest.mark.parametrize("name", ["own_data", "synthetic_mask_x", "mask_x_rcnn_r50_fpn_coco_voc_stagewise"])
def test_printed_recipe_means_the_same_elsewhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipes", name]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert load("mine.yaml") == load(name)


@pytest.mark.parametrize("name", list(recipes.purposes("study")))
def test_printed_study_means_the_same_elsewhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipes", name]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert study.load("mine.yaml") == study.load(name)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["recipes", "synthetic_maskx"], "a name that maskx recipes lists; did you mean 'synthetic_mask_x'?"),
        (["config", "synthetic_maskx"], "No such file or directory; did you mean 'synthetic_mask_x'?"),
        (["config", "configs/own_data.yaml"], "No such file or directory; did you mean 'own_data'?"),
        (["recipes", "base/ccp"], "base/ccp: expected a name that maskx recipes lists"),
    ],
)
def test_unknown_names(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answers"),
    [("maskx rec", {"recipes"}), ("maskx train synthetic_m", {"synthetic_mask_x"}), ("maskx import keras --w", None)],
)
def test_shell_completion(
    words: str, answers: set[str] | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cli.COMPLETION, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as ended:
        cli.run([])
    assert ended.value.code == 0
    assert set(capsys.readouterr().out.split()) == (answers or {"--without-rpn"})
