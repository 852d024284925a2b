"""The configuration inside a Detectron file: YAML that may carry Python objects, read as plain data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskx_tf.errors import BadInput, reason, shorten
from maskx_tf.files import Json, JsonView

# What results depend on and an import does not take over: the keys, and the values that mean what is done here.
ASSUMED = {
    "FPN.ROI_CANONICAL_LEVEL": 4,
    "FPN.ROI_CANONICAL_SCALE": 224,
    "FPN.ROI_MAX_LEVEL": 5,
    "FPN.ROI_MIN_LEVEL": 2,
    "FPN.RPN_MAX_LEVEL": 6,
    "FPN.RPN_MIN_LEVEL": 2,
    "MRCNN.THRESH_BINARIZE": 0.5,
    "TEST.BBOX_AUG.ENABLED": False,
    "TEST.BBOX_REG": True,
    "TEST.BBOX_VOTE.ENABLED": False,
    "TEST.MASK_AUG.ENABLED": False,
    "TEST.RPN_MIN_SIZE": 0,
    "TEST.SOFT_NMS.ENABLED": False,
}


class _CfgLoader(yaml.SafeLoader):
    """Makes plain data of tagged nodes; no tag makes an object."""


def _plain(loader: _CfgLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    mapping = loader.construct_mapping(node, deep=True)
    if suffix.endswith("multiarray._reconstruct"):
        return _numbers_of_array(mapping)
    # A dict of Detectron's own kind is written as an object with these items.
    items = mapping.get("dictitems")
    return items if isinstance(items, dict) else mapping


def _numbers_of_array(mapping: Mapping[Hashable, Any]) -> object:
    """The numbers of a NumPy array, nested lists; the plain data where they are no array."""
    try:
        _, shape, number_type, fortran, data = mapping["state"]
        dtype = f"{number_type['state'][1]}{number_type['args'][0]}"
        array = np.frombuffer(data if isinstance(data, bytes) else data.encode(), dtype)
        return array.reshape(shape, order="F" if fortran else "C").tolist()
    except (ValueError, TypeError, LookupError, AttributeError):
        return mapping


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
    """A value by its dotted key, or the default where it has none of the default's kind; with None it has any kind."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(default, str) and isinstance(value, bytes):  # texts of Python 2, written by Python 3
        value = value.decode("latin1")
    return value if default is None or isinstance(value, type(default)) else default


def numbers(path: Path, settings: JsonView | None, key: str, count: int | None = None) -> list[float] | None:
    """A list of numbers, which may be nested twice, as that of the pixels is; None where the key is missing.

    Raises:
        BadInput: the value is something else, or has another count.
    """
    value = look_up(settings, key, None)
    if value is None:
        return None
    for _ in range(2):
        value = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value
    wrong = not isinstance(value, list) or not all(isinstance(number, (int, float)) for number in value)
    if wrong or len(value) != (count or max(len(value), 1)):
        raise BadInput(f"{path}: cfg: {key}: expected {count or 'some'} numbers, found {shorten(value)}")
    return [float(number) for number in value]


def ignored(settings: JsonView | None) -> tuple[str, ...]:
    """A note for each setting of `ASSUMED` that has another value."""
    found = {key: look_up(settings, key, None) for key in ASSUMED}
    return tuple(
        f"its cfg has {key} {shorten(value)}, which is not imported: the model behaves as with {ASSUMED[key]}"
        for key, value in found.items()
        if value is not None and value != ASSUMED[key]
    )
