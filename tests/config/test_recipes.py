"""The recipes under configs/."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskx_tf.config import dump, load, recipes
from tests.config.helpers import put

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Those under study are of another schema: tests/study.
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "study")


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 2


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_recipe_loads(recipe: Path) -> None:
    config = load(recipe)
    assert config.data.names is None or Path(recipes.find(config.data.names)).is_file()  # from any folder
    assert load(put("resolved.yaml", dump(config))) == config


@pytest.mark.parametrize("recipe", [path for path in RECIPES if path.parent.name != "base"], ids=lambda path: path.name)
def test_recipe_says_what_it_takes(recipe: Path) -> None:
    header = recipe.read_text(encoding="utf-8").partition("\nbase:")[0]
    for word in ("command:", "hardware:", "time:", "AP:"):
        assert f"\n# {word}" in header
    assert f" {recipe.stem}" in header
