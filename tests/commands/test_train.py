"""The output of `maskx train`; training itself is tested in tests/training."""

from __future__ import annotations

import pytest

from maskx_tf import cli
from maskx_tf.config import Config
from maskx_tf.training import dry


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("[]", "classes      80, made up: the recipe names none, and a dry run reads no data"),
        ("[cat, dog]", "classes      2"),
    ],
)
def test_a_dry_run_says_where_its_classes_come_from(names: str, line: str, tmp_path, capsys, monkeypatch) -> None:
    def trial(config: Config) -> dry.Trial:
        assert set(config.model.keypoint.classes) <= set(config.model.class_names)
        return dry.Trial(len(config.model.class_names or ()), 1, 1, 1, {"loss": 1.0}, 1.0, 1.0, 1, 1.0)

    monkeypatch.setattr(dry, "trial", trial)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: [{images: none, annotations: none.json}]}\n")
    keypoints = ["model.keypoint={use: true, classes: [cat]}"]
    assert cli.run(["train", str(recipe), "--dry-run", f"model.class_names={names}", *keypoints]) == 0
    assert line in capsys.readouterr().out.splitlines()
