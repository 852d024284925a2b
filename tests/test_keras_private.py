"""The private names of Keras that the package uses: all are listed here, and Keras is pinned to a minor version."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

import maskx_tf

ROOT = Path(__file__).resolve().parents[1]
# Private methods that the package overrides or calls: the class of Keras, and the signature.
METHODS: dict[str, tuple[type, str]] = {
    "_maybe_symbolic_build": (keras.Model, "(self, iterator=None, data_batch=None)"),
    "_all_reduce_sum_gradients": (keras.optimizers.SGD, "(self, grads_and_vars)"),
    "_get_variable_index": (keras.optimizers.SGD, "(self, variable)"),
}
CALLED = {"_get_variable_index"}
REPLACED = {"_all_reduce_sum_gradients"}  # for the time of an update, by models/update.py
# Private attributes that it reads.
ATTRIBUTES = {"_model_variables_moving_average"}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_replace"}


@pytest.mark.parametrize("name", METHODS)
def test_method_has_the_signature_that_the_package_relies_on(name: str) -> None:
    owner, signature = METHODS[name]
    assert str(inspect.signature(getattr(owner, name))) == signature


def test_averages_of_weights_are_where_the_package_reads_them() -> None:
    optimizer = keras.optimizers.SGD(use_ema=True)
    optimizer.build([keras.Variable([1.0, 2.0])])
    (average,) = optimizer._model_variables_moving_average
    assert average.shape == (2,)


def test_keras_is_pinned_to_this_minor_version() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    major, minor = map(int, keras.__version__.split(".")[:2])
    assert f"keras>={major}.{minor},<{major}.{minor + 1}" in settings["options"]["install_requires"].split()


def test_no_other_private_name_is_used() -> None:
    """A private name that is defined nowhere in the package belongs to someone else."""
    defined: set[str] = set()
    read: set[str] = set()
    for path in (ROOT / "maskx_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Attribute):
                (read if isinstance(node.ctx, ast.Load) else defined).add(node.attr)
    private = {name for name in read - defined if name.startswith("_") and not name.startswith("__")}
    assert private - OF_NAMED_TUPLES == CALLED | ATTRIBUTES


def subclasses() -> Iterator[type]:
    """Every class of the package that derives from one of Keras."""
    for module in pkgutil.walk_packages(maskx_tf.__path__, "maskx_tf."):
        if module.name.endswith("__main__"):  # it runs the command
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__ == module.name and bases(value):
                yield value


def bases(owner: type) -> list[type]:
    return [base for base in inspect.getmro(owner) if base.__module__.split(".")[0] == "keras"]


def test_no_other_private_method_is_overridden() -> None:
    overridden = {
        name
        for owner in subclasses()
        for name in vars(owner)
        if name.startswith("_") and not name.startswith("__") and any(name in vars(base) for base in bases(owner))
    }
    assert overridden == set(METHODS) - CALLED - REPLACED
