"""Files with the names of an imported model's classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskx_tf.errors import BadInput
from maskx_tf.importers.labels import read

CATEGORIES = [{"id": 7, "name": "b"}, {"id": 5, "name": "a"}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["b", "a"], (("b", "a"), None)),
        (CATEGORIES, (("a", "b"), (5, 7))),
        ({"images": [], "categories": CATEGORIES}, (("a", "b"), (5, 7))),
    ],
)
def test_json(content: object, expected: object, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(content))
    assert read(file) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("person", "expected a JSON list of names, or COCO's categories, found 'person'"),
        ([None, 3], "expected a JSON list of names, or COCO's categories, found [None, 3]"),
        ({"a": 1}, "expected a JSON list of names, or COCO's categories, found {'a': 1}"),
        ({"categories": {"id": 1, "name": "a"}}, "expected a JSON list of names"),
        ([{"id": 1, "name": 5}], "expected a JSON list of names"),
        ([{"id": "1", "name": "a"}], "expected a JSON list of names"),
        (["a", *CATEGORIES], "expected a JSON list of names"),
        ([*CATEGORIES, {"id": 5, "name": "c"}], "expected no id twice, found 3 categories with 2 ids"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "expected no name twice, found 'a'"),
        ([], "names no class"),
    ],
)
def test_wrong_json(content: object, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps(content))
    with pytest.raises(BadInput) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: {problem}")
