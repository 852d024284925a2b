"""Reads a recipe: a YAML file, the files it is based on, and the settings given on the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from maskx_tf import files
from maskx_tf.config import recipes
from maskx_tf.config.explain import Keys, explain, show
from maskx_tf.config.schema import Config
from maskx_tf.config.text import YamlError, format_yaml, parse_yaml
from maskx_tf.errors import BadInput, did_you_mean
from maskx_tf.files import Json

MOST_BASES = 3
MOST_BYTES = 4_000_000  # enough for the names of 100,000 classes; a video given by mistake is larger
KEY = re.compile(r"\w+(\.\w+)*")

Schema = TypeVar("Schema", bound=BaseModel)


class _Layer(NamedTuple):
    """Settings, and the name of their source for messages."""

    name: str
    settings: Json


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a configuration.

    Args:
        path: a YAML file, or the name of one of the package's recipes. Its key `base` may name another, relative to
            it, whose settings hold where it has none; mappings are merged, anything else replaces what the base has.
        overrides: texts such as "train.steps=100" or "model.input.canvas=[512, 512]"; the last one wins.

    Raises:
        BadInput: one line with the file or override, the key, what was expected and what was found.
    """
    return read(Config, path, overrides)


def read(
    schema: type[Schema],
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    settings: Sequence[tuple[str, Json]] = (),
) -> Schema:
    """Reads and checks a file of any schema.

    Args:
        schema: the schema of what it holds.
        path: see `load`.
        overrides: see `load`.
        settings: laid over the file and under the overrides, each after the name by which a message calls it.

    Raises:
        BadInput: see `load`.
    """
    layers = _read_chain(recipes.find(os.fspath(path))) + [_Layer(*layer) for layer in settings]
    layers += [_read_override(text) for text in overrides]
    merged: Json = {}
    origins: dict[Keys, str] = {}
    for layer in layers:
        _merge(merged, layer.settings, layer.name, origins, ())
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        keys, problem = explain(error, schema)
        raise BadInput(f"{_origin(keys, origins, layers[-1].name)}: {_dotted(keys)}: {problem}") from None


def dump(config: Config) -> str:
    """The whole configuration as YAML, which `load` reads back to an equal one."""
    return format_yaml(config.model_dump(mode="json"))


def write(config: Config, path: str | os.PathLike[str]) -> None:
    """Writes `dump(config)`. At every moment the file is absent, old or new, and never incomplete."""
    files.write_text(path, dump(config))


def _read_chain(path: str) -> list[_Layer]:
    """The layers of a file and its bases, the farthest base first."""
    layers: list[_Layer] = []
    names: list[str] = []
    visited: set[Path] = set()
    while True:
        names.append(path)
        if len(names) > MOST_BASES + 1:
            raise BadInput(
                f"{names[0]}: base: expected at most {MOST_BASES} files in a row, found {' -> '.join(names[1:])}"
            )
        settings = _read_file(path, names)
        real = Path(path).resolve()
        if real in visited:
            raise BadInput(f"{names[-2]}: base: expected files that end somewhere, found a cycle: {' -> '.join(names)}")
        visited.add(real)
        base = settings.pop("base", None)
        layers.insert(0, _Layer(path, settings))
        if base is None:
            return layers
        if not isinstance(base, str) or not base:
            raise BadInput(f"{path}: base: expected the path of one file, found {show(base)}")
        path = os.path.normpath(recipes.find(base, os.path.dirname(path)))


def _read_file(path: str, names: list[str]) -> Json:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        where = f"{names[-2]}: base: {path}" if len(names) > 1 else path
        hint = did_you_mean(Path(path).stem, recipes.names()) if isinstance(error, FileNotFoundError) else ""
        if not hint and recipes.RECIPE_NAME.fullmatch(path):
            hint = "; maskx recipes lists the names"
        raise BadInput(f"{where}: cannot be read: {reason}{hint}") from None
    if len(data) > MOST_BYTES:
        raise BadInput(f"{path}: expected a YAML file, found more than {MOST_BYTES // 1_000_000} MB")
    try:
        value = parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise BadInput(f"{path}: expected UTF-8 text, found byte 0x{byte:02x} in line {line}") from None
    except YamlError as error:
        raise BadInput(f"{path}: expected YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{path}: expected sections such as model: and train:, found {show(value)}")
    return value


def _read_override(text: str) -> _Layer:
    name = f"override {text!r}"
    key, equals, value_text = text.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise BadInput(f"{name}: expected key=value, such as train.steps=100")
    try:
        value = parse_yaml(value_text)
    except YamlError as error:
        raise BadInput(f"{name}: expected a YAML value: {error}") from None
    for part in reversed(key.split(".")):
        value = {part: value}
    return _Layer(name, value)


def _merge(below: Json, above: Json, name: str, origins: dict[Keys, str], keys: Keys) -> None:
    """Lays settings over others in place, and notes for each value where it came from."""
    for key, value in above.items():
        path = (*keys, key)
        old = below.get(key)
        if isinstance(value, dict):
            if not isinstance(old, dict):
                below[key] = {}
            origins[path] = name
            _merge(below[key], value, name, origins, path)
        elif value is not None or not isinstance(old, dict):  # an empty section changes nothing
            below[key] = value
            origins[path] = name


def _origin(keys: Keys, origins: dict[Keys, str], last: str) -> str:
    """Returns the source of a value; of a default, the last source that set something near it."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in origins:
            return origins[keys[:length]]
    return last


def _dotted(keys: Keys) -> str:
    text = ""
    for key in keys:
        if isinstance(key, str) and not key.isprintable():
            key = repr(key)
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
