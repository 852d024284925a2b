"""The words of messages: one line, short, and nothing that a terminal obeys."""

from __future__ import annotations

import json

import pytest

from maskx_tf.errors import did_you_mean, listed, reason, shorten, visible

COMMANDS = "\x00\x07\x1b\x7f\x9b\n\t\r\u2028\u202e\u2066\ud800"


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert visible(COMMANDS).isprintable()
    assert json.loads(f'"{visible(COMMANDS)}"') == COMMANDS
    assert visible("a\x1b[2J\n", keep="\n") == "a\\u001b[2J\n"
    plain = "кот, Türkçe, क्षि, 👩‍👩‍👧, می‌خواهم"
    assert visible(plain) == plain


def test_names_and_reasons() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed("edcba") == "a, b, c and 2 more"
    assert listed(["a\x1b[2J"]) == r"a\u001b[2J"
    assert reason(ValueError("one\n  two\x07")) == r"one two\u0007"
    assert reason(KeyError()) == "KeyError"
    assert reason(OSError(28, "No space left on device", "/a/b")) == "No space left on device"


@pytest.mark.parametrize("value", ["x" * 10**5, list(range(10**5)), {str(n): "x" * 99 for n in range(99)}, 10**4000])
def test_values_are_short(value: object) -> None:
    assert len(shorten(value)) < 1000


def test_nearest_name() -> None:
    assert did_you_mean("hosre", ["cat", "horse"]) == "; did you mean 'horse'?"
    assert did_you_mean("hosre", ["cat"]) == ""
