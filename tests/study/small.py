"""A small study for tests, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from maskx_tf.study import config
from maskx_tf.study.cells import Cell

ROOT = Path(__file__).resolve().parents[2]


def settings(**changes: Any) -> dict[str, Any]:
    """Two seeds and a smaller A of the first; three methods, of which one is chosen."""
    recipes = ROOT / "configs"
    plain: dict[str, Any] = {
        "name": "small",
        "synthetic": {"images": 20, "size": 64, "classes": 24, "a": 17},
        "detector": {"recipe": str(recipes / "synthetic_detector.yaml"), "settings": {"train": {"steps": 7}}},
        "mask_settings": {"train": {"steps": 5}},
        "groups": [
            {"name": "seed0", "seed": 0},
            {"name": "seed1", "seed": 1},
            {"name": "seed0-a20", "seed": 0, "a": 20, "detector": "seed0", "methods": ["plain", "two"]},
        ],
        "methods": [
            {"name": "plain", "recipe": str(recipes / "synthetic_agnostic.yaml")},
            {"name": "two", "recipe": str(recipes / "synthetic_mask_x.yaml")},
            {
                "name": "three",
                "recipe": str(recipes / "synthetic_mask_x.yaml"),
                "settings": {"model": {"transfer": {"layers": 3}}},
            },
            {"name": "oracle", "recipe": str(recipes / "synthetic_agnostic.yaml"), "masks": "all"},
        ],
        "choices": [{"name": "best", "among": ["two", "three"]}],
        "tables": [
            {
                "name": "1",
                "title": "methods",
                "baseline": "plain",
                "rows": [
                    {"method": "plain", "title": "baseline", "paper": [14.2, 34.4, 21.5, 30.7]},
                    {"method": "best", "title": "chosen"},
                    {"method": "oracle", "title": "oracle"},
                ],
            }
        ],
        "figures": [{"name": "3", "title": "size", "baseline": "plain", "methods": ["two"]}],
    }
    return {**plain, **changes}


def load(folder: Path, **changes: Any) -> config.StudyConfig:
    """The study, read from a file in a folder."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings(**changes)), encoding="utf-8")
    return config.load(path)


def as_everyone(cell: Cell) -> Cell:
    """The cell, if its method saw the masks of A alone."""
    return cell._replace(method=cell.method.model_copy(update={"masks": "a"}))
