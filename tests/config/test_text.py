"""Reading and writing our YAML."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskx_tf.config.text import YamlError, format_yaml, parse_yaml


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_plain_data_survives_yaml(value: Any) -> None:
    assert parse_yaml(format_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-4", 1e-4), ("1E4", 1e4), ("-.5", -0.5), ("5.", 5.0), (".inf", float("inf"))],
        *[("010", 10), ("0x10", 16), ("0o17", 15), ("-3", -3), ("1_000", "1_000"), ("1:30", "1:30")],
        *[("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("False", False)],
        *[("~", None), ("", None), ("'5'", "5"), ('"1e-4"', "1e-4"), ("2024-01-01", "2024-01-01"), ("<<", "<<")],
        *[("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("|\n  a\n", "a\n")],
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    read = parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key a stands twice"),
        ("a:\n  b: {c: 1, c: 2}", "line 2: the key c stands twice"),
        ("a: &x [1]\nb: *x", "line 1: an alias (*name) is not supported; write the value out, or use base:"),
        ("a: &x [*x]", "an alias (*name) is not supported; write the value out, or use base:"),
        (
            "a: 1\nb: !!python/name:os.system x",
            "line 2: the tag tag:yaml.org,2002:python/name:os.system is not supported",
        ),
        ("!!int x", "the tag tag:yaml.org,2002:int is not supported"),
        ("a: 1\n2: b", "line 2: a key must be text, found 2"),
        ("a: 1\n[a]: b", "line 2: a key must be text, found ['a']"),
        ("a: [1\nb: 2", "line 2: expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2", "line 2: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("a: 1\nb: \x01", "line 2: character U+0001 is not allowed"),
        ('a: "\\ud800"', "half of a surrogate pair is not a character"),
        ("9" * 40, "a number has more than 30 digits"),
        ("[" * 5000, "it is nested too deeply"),
    ],
)
def test_other_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert str(caught.value) == message
