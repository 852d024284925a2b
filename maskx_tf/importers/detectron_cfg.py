"""The configuration inside a Detectron file: YAML that may carry Python objects, read as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from maskx_tf.errors import BadInput, reason
from maskx_tf.files import Json, JsonView


class _CfgLoader(yaml.SafeLoader):
    """Makes plain data of tagged nodes; no tag makes an object."""


def _plain(loader: _CfgLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    mapping = loader.construct_mapping(node, deep=True)
    # A dict of Detectron's own kind is written as an object with these items.
    items = mapping.get("dictitems")
    return items if isinstance(items, dict) else mapping


_CfgLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)
_CfgLoader.add_multi_constructor("!", _plain)


def parse(text: str, path: Path) -> Json:
    """The settings of a file.

    Raises:
        BadInput: no YAML, or no mapping.
    """
    try:
        settings = yaml.load(text, Loader=_CfgLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise BadInput(f"{path}: cfg: expected YAML: {reason(error)}") from None
    if not isinstance(settings, dict):
        raise BadInput(f"{path}: cfg: expected settings, found a {type(settings).__name__}")
    return settings


def look_up(settings: JsonView | None, key: str, default: Any) -> Any:
    """A value by its dotted key, or the default where it has none of the default's kind."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return value if isinstance(value, type(default)) else default
