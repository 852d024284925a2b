"""The page of all keys: complete, described, and equal to the current schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from maskx_tf import cli
from maskx_tf.config import Config, explain
from maskx_tf.config.fields import Count, Float, Fraction, Section, Seed, Text
from maskx_tf.config.reference import as_markdown
from maskx_tf.study.config import StudyConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "--reference"]) == 0
    printed = capsys.readouterr().out
    advice = "the schema changed: run `maskx config --reference > docs/configuration.md`"
    assert printed == PAGE.read_text(encoding="utf-8"), advice


def sections(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield schema
    for field in schema.model_fields.values():
        for inner in explain._sections(field.annotation):
            yield from sections(inner)


@pytest.mark.parametrize("schema", [Config, StudyConfig])
def test_every_key_is_there_and_says_what_it_means(schema: type[BaseModel]) -> None:
    for section in sections(schema):
        for name, field in section.model_fields.items():
            assert field.description, (section, name)
    rows = {line.split("`")[1] for line in as_markdown(schema, "top").splitlines() if line.startswith("| `")}
    seen = {key.replace("[]", "") for key in rows}
    twice = ("data.val.", "evaluate.masks.")  # described where they stand first
    assert seen == {key for key in explain.valid_keys(schema) if not key.startswith(twice)}


class Inner(Section):
    """Some settings."""

    share: Fraction = Field(default=0.5, description="A share | of it.")


class Outer(Section):
    """All settings."""

    name: Text = Field(description="Its name.")
    size: tuple[Count, Count] = Field(default=(1, 2), description="Height and width.")
    seed: Seed | None = Field(default=None, description="A seed.")
    rate: Float = Field(default=0.1, gt=0, lt=1, description="A rate.")
    one: Inner = Field(default=Inner(), description="Some settings.")
    many: tuple[Inner, ...] = Field(default=(), min_length=1, description="More of them.")


def test_a_small_schema() -> None:
    assert (
        as_markdown(Outer, "Everything")
        == """## Everything

All settings.

| key | value | default | meaning |
|---|---|---|---|
| `name` | text | must be given | Its name. |
| `size` | list of 2: whole number, at least 1 | `[1, 2]` | Height and width. |
| `seed` | whole number, at least 0 and below 4294967296; or null | `null` | A seed. |
| `rate` | number, above 0 and below 1 | `0.1` | A rate. |
| `one` | section [one](#one) |  | Some settings. |
| `many` | list, not empty: section [one](#one) | `[]` | More of them. |

## `one`

Some settings.

| key | value | default | meaning |
|---|---|---|---|
| `one.share` | number, 0 to 1 | `0.5` | A share \\| of it. |
"""
    )
