"""`train.callbacks`: from names to callbacks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from maskx_tf.config import load
from maskx_tf.config.training import CallbackConfig
from maskx_tf.errors import BadInput
from maskx_tf.training.own_callbacks import make

MINE = """
import keras


class Watcher(keras.callbacks.Callback):
    def __init__(self, every):
        super().__init__()
        self.every = 1 / every
"""


@pytest.fixture(autouse=True)
def _a_module_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_callbacks.py").write_text(MINE, encoding="utf-8")
    Path("broken_callbacks.py").write_text("1 / 0", encoding="utf-8")


def test_callbacks_are_made_with_their_arguments() -> None:
    listed = "[{name: my_callbacks.Watcher, arguments: {every: 4}}, {name: keras.callbacks.TerminateOnNaN}]"
    mine, keras_own = make(load("own_data", [f"train.callbacks={listed}"]).train.callbacks)
    assert type(mine).__name__ == "Watcher"
    assert mine.every == 0.25
    assert isinstance(keras_own, keras.callbacks.TerminateOnNaN)


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("no_such.Watcher", {}, ".name: no_such cannot be imported: No module named 'no_such'"),
        ("broken_callbacks.Watcher", {}, ".name: broken_callbacks cannot be imported: division by zero"),
        ("my_callbacks.Wacher", {}, ".name: my_callbacks has no Wacher; did you mean 'Watcher'?"),
        ("keras.layers.Dense", {}, ".name: expected a class derived from keras.callbacks.Callback, found keras.l"),
        ("my_callbacks.Watcher", {}, ": my_callbacks.Watcher cannot be made: "),
        ("my_callbacks.Watcher", {"every": 0}, ": my_callbacks.Watcher cannot be made: division by zero"),
    ],
)
def test_mistakes_are_one_line(name: str, arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(BadInput) as refused:
        make([CallbackConfig(name=name, arguments=arguments)])
    assert str(refused.value).startswith(f"train.callbacks[0]{problem}")
    assert "\n" not in str(refused.value)


def test_name_has_a_module() -> None:
    with pytest.raises(BadInput, match=r"train\.callbacks\[0\]\.name"):
        load("own_data", ["train.callbacks=[{name: Watcher}]"])
