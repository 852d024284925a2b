"""Names in backticks that mean something of the project: files, settings, options, things in modules."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import typer

from maskx_tf import cli
from maskx_tf.config import Config, explain
from maskx_tf.study.config import StudyConfig

SUFFIXES = (".py", ".md", ".yaml", ".yml", ".txt", ".toml", ".cfg", ".json", ".html", ".png", ".config", ".tflite")
FAMILIES = "ablation|faster_rcnn|mask_rcnn|mask_x_rcnn|oracle|random_split"
RECIPE = re.compile(rf"({FAMILIES})_[a-z0-9_*]*_(coco|vg3k|cityscapes)[a-z_*]*")
# Of any model of Keras, which has nothing to do with settings.
OF_KERAS = tuple(f"model.{name}" for name in ("fit", "compile", "summary", "save", "save_weights", "export"))
KEYS = {*explain.valid_keys(Config), *explain.valid_keys(StudyConfig)}


def wrong(name: str, place: Path, root: Path) -> str | None:
    """What is wrong with a name, if it is one of the project's and not right.

    Args:
        name: what stands between the backticks, one word.
        place: the file in which it stands.
        root: where the project lies.
    """
    if name.startswith("--"):
        option = re.split(r"[ =]", name)[0]
        return None if "_" in option or option in _options(root) else f"no command has the option {option}"
    if "/" in name:
        return _file(name, place, root)
    if name.endswith(SUFFIXES):
        return None
    if RECIPE.fullmatch(name):
        return None if any(root.glob(f"configs/{name}.yaml")) else f"there is no recipe {name}"
    dotted = re.match(r"[a-z]\w*(\.\w+)+", name.replace("[]", ""))
    if dotted is None or dotted[0] in OF_KERAS:
        return None
    parts = dotted[0].removeprefix("maskx_tf.").split(".")
    is_ours = name.startswith("maskx_tf.") or parts[0] in {*Config.model_fields, *_rooms(root)}
    if not is_ours or dotted[0] in KEYS or _is_in_a_module(parts, root):
        return None
    return f"there is neither a setting nor a thing called {dotted[0]}"


def _file(name: str, place: Path, root: Path) -> str | None:
    """Paths from the root, from where the text stands, and, of Python files, from the package."""
    name = name.split("::")[0]
    first = name.partition("/")[0]
    tops = {"configs", "scripts", "maskx_tf", "tests", "benchmarks", "docs", "examples"}
    is_ours = re.fullmatch(r"[\w./*-]+", name) and (first in tops or (name.endswith(".py") and first in _rooms(root)))
    if not is_ours or any(any(base.glob(name.rstrip("/"))) for base in (root, place.parent, root / "maskx_tf")):
        return None
    return f"there is no {name}"


@cache
def _rooms(root: Path) -> frozenset[str]:
    return frozenset(path.stem for path in (root / "maskx_tf").iterdir() if not path.name.startswith("_"))


@cache
def _options(root: Path) -> frozenset[str]:
    """The options of every command, and those of the scripts."""
    found = {"--help", "--version"}
    waiting = [typer.main.get_command(cli.app)]
    while waiting:
        command = waiting.pop()
        found |= {option for one in command.params for option in one.opts}
        waiting += getattr(command, "commands", {}).values()
    for path in (root / "scripts").iterdir():
        found |= set(re.findall(r"--[a-z][a-z-]*", path.read_text(encoding="utf-8")))
    return frozenset(found)


def _is_in_a_module(parts: list[str], root: Path) -> bool:
    """Whether a dotted name below the package is a module, or something in one."""
    for length in range(len(parts), 0, -1):
        path = root.joinpath("maskx_tf", *parts[:length])
        file = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
        if file is not None:
            return length == len(parts) or parts[length] in _defined(file)
        if path.is_dir():
            return length == len(parts)
    return False


@cache
def _defined(file: Path) -> frozenset[str]:
    """Names at the top of a module."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return frozenset(found)


def missing_imports(text: str, root: Path) -> list[str]:
    """What a piece of Python imports from the package that is not there; or that it is no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [f"it is no Python: {error.msg}"]
    asked: list[list[str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "maskx_tf":
            asked += [[*(node.module or "").split(".")[1:], alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            asked += [alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("maskx_tf.")]
    return [f"there is no maskx_tf.{'.'.join(parts)}" for parts in asked if not _is_in_a_module(parts, root)]
