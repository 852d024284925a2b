"""The YAML that is read here: version 1.2's plain scalars, no key twice, no aliases, no tags.

PyYAML reads version 1.1, in which `no` is false, `1e-4` is text, `010` is eight and a repeated key silently wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from maskx_tf.files import Json, JsonView

NULL = re.compile(r"~|null|Null|NULL|")
FLAG = re.compile(r"true|True|TRUE|false|False|FALSE")
WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class YamlError(Exception):
    """Text that is not the YAML we read; the message says what and, for more than one line, where."""


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader of YAML would not take for text; short lists stand on one line."""


# In addition to the rules of version 1.1, so that no reader of either version is misled.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^(?:{WHOLE.pattern})$"), list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{NUMBER.pattern})$"), list("-+.0123456789"))


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    # Escaped in quotes, because PyYAML loses the rarer line ends, such as U+0085, in any other style.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def format_yaml(value: Any) -> str:
    """Plain Python data as YAML, which `parse_yaml` reads back to the same data."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118, default_flow_style=False
    )
    return text


def parse_yaml(text: str) -> Any:
    """The data in one YAML document: dicts with text for keys, lists, text, numbers, booleans, None.

    Raises:
        YamlError: with the line, when the text has more than one.
    """
    several = "\n" in text.strip()
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _value(node, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem, line = error.problem or str(error.context), mark.line + 1 if mark else 0
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(error.character)
        problem, line = f"character U+{code:04X} is not allowed", text.count("\n", 0, error.position) + 1
    except RecursionError:
        raise YamlError("it is nested too deeply") from None
    except _NodeError as error:
        problem, line = str(error), error.line
    raise YamlError(f"line {line}: {problem}" if several and line else problem)


class _Loader(yaml.SafeLoader):
    """Leaves the tags of nodes empty, so that a tag in the file is noticed and refused."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> None:
        """No tag."""


class _NodeError(Exception):
    def __init__(self, node: yaml.Node, problem: str) -> None:
        super().__init__(problem)
        self.line = node.start_mark.line + 1


def _value(node: yaml.Node, seen: set[int]) -> Any:
    if id(node) in seen:
        raise _NodeError(node, "an alias (*name) is not supported; write the value out, or use base:")
    seen.add(id(node))
    if node.tag is not None:
        raise _NodeError(node, f"the tag {node.tag} is not supported")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, seen) for item in node.value]
    mapping: Json = {}
    for key_node, value_node in node.value:
        key = _value(key_node, seen)
        if not isinstance(key, str):
            raise _NodeError(key_node, f"a key must be text, found {key!r}")
        if key in mapping:
            raise _NodeError(key_node, f"the key {key} stands twice")
        mapping[key] = _value(value_node, seen)
    return mapping


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is None:  # plain: neither quoted nor a block
        if NULL.fullmatch(text):
            return None
        if FLAG.fullmatch(text):
            return text.lower() == "true"
        if WHOLE.fullmatch(text):
            if len(text) > 30:
                raise _NodeError(node, "a number has more than 30 digits")
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if NUMBER.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _NodeError(node, "half of a surrogate pair is not a character") from None
    return text


def dotted(settings: JsonView, prefix: str = "") -> Json:
    """Settings by their dotted names, such as {"train.steps": 100}."""
    flat: Json = {}
    for key, value in settings.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
