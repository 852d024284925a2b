"""Turns pydantic's validation errors into one line that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from maskx_tf.config.schema import Config
from maskx_tf.errors import BadInput

Keys = tuple[str | int, ...]
S = TypeVar("S", bound=BaseModel)

# Least similarity of an unknown key to a suggested one: nms_iuo gets a suggestion, colour for backbone does not.
LIKENESS = 0.65

# Unknown keys come first, because a mistyped key is often the reason for another error.
ORDER = {"extra_forbidden": 0, "impossible": 2}
EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of {max_length}",
    "missing": "a value",
}


def validated(data: object, schema: type[S], path: Path, what: str) -> S:
    """The contents of one of our own JSON files.

    Args:
        data: what the file holds.
        schema: the schema of the file.
        path: the path of the file, for the message.
        what: the file holds, such as "the facts of a model".

    Raises:
        BadInput: they do not fit the schema.
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        keys, problem = explain(error, schema)
        where = "".join(f"{key}: " for key in keys)
        raise BadInput(f"{path}: expected {what}: {where}{problem}") from None


def explain(error: ValidationError, schema: type[BaseModel] = Config) -> tuple[Keys, str]:
    """The first problem of a failed validation.

    Args:
        error: what pydantic raised.
        schema: the schema of what was validated.

    Returns:
        The keys that lead to the wrong value, and the text to write after them.
    """
    details = sorted(error.errors(include_url=False), key=lambda one: ORDER.get(one["type"], 1))
    first = details[0]
    keys = _keys(first["loc"])
    if first["type"] == "impossible":
        keys += tuple(part for part in first["ctx"]["key"].split(".") if part)
        return keys, f"{first['msg']}, found {show(first['ctx']['found'])}{_more(len(details) - 1)}"
    if first["type"] == "extra_forbidden":
        return keys, f"unknown key; {_nearest(keys, schema)}{_more(len(details) - 1)}"
    if first["type"] == "model_type":
        below = next((key for key in valid_keys(schema) if key.startswith(f"{_path(keys)}.")), "")
        return keys, f"expected settings such as {below}, found {show(first['input'])}{_more(len(details) - 1)}"
    if first["type"] == "missing" and isinstance(keys[-1], int):
        # A fixed-length list that is too short has one error for each missing item.
        same = [_keys(other["loc"]) for other in details if other["type"] == "missing"]
        missing = [other for other in same if other[:-1] == keys[:-1]]
        text = f"expected a list of {missing[-1][-1] + 1}, found {show(first['input'])}"  # type: ignore[operator]
        return keys[:-1], text + _more(len(details) - len(missing))
    return keys, _plain(first) + _more(len(details) - 1)


def show(value: object) -> str:
    """A value as it would stand in YAML, short enough for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        text = f"a mapping with {', '.join(map(show, value))}" if value else "an empty mapping"
    else:
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "expected a value, found none"
    values = {key: f"{value:g}" if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    expected = EXPECTED.get(error["type"], "{message}").format(**values, message=error["msg"])
    text = f"expected {expected}, found {show(error['input'])}"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        choices = expected.replace(" or ", ", ").replace("'", "").split(", ")
        near = difflib.get_close_matches(error["input"], choices, 1, LIKENESS)
        text += f"; did you mean {near[0]}?" if near else ""
    return text


def _more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _keys(location: Sequence[str | int]) -> Keys:
    """The location without the tags that mark which form of a union was tried."""
    return tuple(part for part in location if not (isinstance(part, str) and part.startswith("<")))


def _path(keys: Keys) -> str:
    """Returns the dotted key in the schema, without positions in lists."""
    return ".".join(key for key in keys if isinstance(key, str))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def valid_keys(section: type[BaseModel] = Config, above: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections before what stands in them."""
    for name, field in section.model_fields.items():
        yield above + name
        for inner in _sections(field.annotation):
            yield from valid_keys(inner, f"{above}{name}.")


def _nearest(keys: Keys, schema: type[BaseModel]) -> str:
    """Suggests a valid key for an unknown one."""
    path = _path(keys)
    known = list(valid_keys(schema))
    if path in known:
        return f"write {path} as sections, one inside the other"
    above, _, last = path.rpartition(".")
    if last in known:
        return f"did you mean {last}?"
    rated = sorted(((_likeness(above, last, key), key) for key in known), reverse=True)
    likeness, best = rated[0]
    if likeness >= LIKENESS:
        rivals = [key for _, key in rated[:2] if key.rpartition(".")[2] == best.rpartition(".")[2] == last]
        return f"did you mean {' or '.join(rivals or [best])}?"
    here = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == above]
    return f"{above or 'the top'} has {', '.join(here)}"


def _likeness(above: str, last: str, key: str) -> float:
    """How likely a person who wrote `last` in the section `above` meant `key`, from 0 to about 1.1."""
    section, _, name = key.rpartition(".")
    alike = difflib.SequenceMatcher(None, last, name).ratio()
    if set(name.split("_")) <= set(last.split("_")) or set(last.split("_")) <= set(name.split("_")):
        alike = max(alike, 0.75)  # learning_rate for rate, canvas_size for canvas
    if alike < LIKENESS:
        return 0.0
    # Among keys of like names, the one that is nearest in the tree.
    return alike + (0.1 if section == above else 0.05 * difflib.SequenceMatcher(None, above, section).ratio())
