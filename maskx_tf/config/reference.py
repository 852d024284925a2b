"""Every key of a schema as tables in Markdown; `maskx config --reference` makes docs/configuration.md of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import BaseModel

from maskx_tf.config.explain import show
from maskx_tf.files import Json

KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
RANGE = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
HEAD = "| key | value | default | meaning |\n|---|---|---|---|"


def as_markdown(schema: type[BaseModel], top: str) -> str:
    """A heading and a table for each section of a schema, a section before those that stand in it.

    Args:
        schema: the schema of the whole file.
        top: the heading of the keys that stand in no section.
    """
    whole = schema.model_json_schema()
    definitions = whole.get("$defs", {})
    parts = []
    for path, section, places in _sections(whole, definitions, "", {}):
        title = f"`{path}`" if path else top
        rows = [_row(path, name, one, section, places, definitions) for name, one in section["properties"].items()]
        parts.append("\n".join([f"## {title}", "", section["description"], "", HEAD, *rows]))
    return "\n\n".join(parts) + "\n"


def _sections(
    section: Json, definitions: Json, path: str, places: dict[str, str]
) -> Iterator[tuple[str, Json, dict[str, str]]]:
    """Each section's path and schema, and the paths at which sections are described, by their names in the schema."""
    inner = []
    for name, one in section["properties"].items():
        for found, mark in _inner(one):
            if found not in places:
                places[found] = (f"{path}.{name}" if path else name) + mark
                inner.append(found)
    yield path, section, places
    for found in inner:
        yield from _sections(definitions[found], definitions, places[found], places)


def _inner(one: Json) -> Iterator[tuple[str, str]]:
    """The sections that a value may be, and those that it may be a list of, which are marked."""
    if "$ref" in one:
        yield _name(one), ""
    for form in [*one.get("anyOf", []), *one.get("oneOf", [])]:
        yield from _inner(form)
    if "items" in one:
        for name, mark in _inner(one["items"]):
            yield name, f"[]{mark}"


def _name(one: Json) -> str:
    name: str = one["$ref"].rpartition("/")[2]
    return name


def _row(path: str, name: str, one: Json, section: Json, places: dict[str, str], definitions: Json) -> str:
    """A key's line of the table."""
    default = "must be given" if name in section.get("required", ()) else ""
    if "default" in one and "$ref" not in one:
        value = one["default"]
        default = f"`{value if isinstance(value, str) else show(value) if value != {} else '{}'}`"
    # What a key says in the words of its section, pydantic leaves out.
    meaning = one["description"] if "description" in one else definitions[_name(one)]["description"]
    cells = f"`{path}.{name}`" if path else f"`{name}`", _kind(one, places), default, meaning
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(one: Json, places: dict[str, str]) -> str:
    """Describes the values that a field accepts, in words."""
    if "$ref" in one:
        place = places[_name(one)]
        return f"section [{place}](#{re.sub(r'[^a-z_]', '', place.lower())})"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    forms = one.get("anyOf", one.get("oneOf"))
    if forms:
        return "; or ".join(_kind(form, places) for form in forms)
    if one["type"] == "object":
        return "settings"
    if one["type"] == "array":
        fixed = one.get("prefixItems")
        items = _kind(fixed[0] if fixed else one["items"], places)
        length = f" of {len(fixed)}" if fixed else ", not empty" if one.get("minItems") else ""
        return f"list{length}: {items}"
    return f"{KINDS[one['type']]}{_range(one)}"


def _range(one: Json) -> str:
    if "minimum" in one and "maximum" in one:
        return f", {one['minimum']} to {one['maximum']}"
    limits = [f"{word} {one[key]}" for key, word in RANGE.items() if key in one]
    return f", {' and '.join(limits)}" if limits else ""
