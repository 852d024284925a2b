"""Which room may import which, and the sizes of files and folders (ARCHITECTURE.md), read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "maskx_tf"
MOST_FILES, MOST_LINES = 15, 300  # of a folder, and of a file

# A room is a file or a folder directly under maskx_tf/. It may import the rooms of every tier above its own in this
# list, never one of its own tier: whoever stands below wires them together.
TIERS: list[set[str]] = [
    {"errors", "names", "protocol", "interrupts"},
    {"structures", "files", "quiet", "plugins"},
    {"locks"},
    {"ops", "masks"},
    {"targets", "losses"},
    {"layers"},
    {"models"},
    {"checkpoints"},
    {"importers"},
    {"training", "evaluation", "export", "prediction"},
    {"report"},
    {"tasks"},
    {"study"},
    {"serving"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
GROUND = {"errors", "names", "interrupts", "structures", "files", "locks", "plugins", "ops", "masks"}
# Rooms next to the tiers: what they may import, and the first tier that may import them.
ASIDE: dict[str, tuple[set[str], str]] = {
    "config": ({"errors", "names", "files", "plugins"}, "models"),  # layers take plain arguments
    "visualize": (GROUND | {"config"}, "training"),
    "data": (GROUND | {"config"}, "tasks"),  # the tools receive their data sets as arguments
    "synthetic": (GROUND | {"config", "data"}, "tasks"),
}
TENSORFLOW = {"tensorflow", "keras", "tf_keras", "tensorflow_serving"}  # the last one imports the first
# Files that work without TensorFlow, with all that they import. The flag says whether imports inside functions count:
# the command imports TensorFlow in the functions that need it.
WITHOUT_TENSORFLOW = {
    "serving/client/__init__.py": True,
    "config/__init__.py": True,
    "structures.py": True,
    "files/__init__.py": True,
    "visualize/__init__.py": True,
    "masks/grabcut.py": True,
    "data/checks.py": True,
    "data/opening.py": False,
    "data/formats/readers.py": True,
    "tasks/images.py": True,
    "tasks/pseudo.py": False,
    "tasks/pictures.py": True,
    "tasks/report.py": False,
    "cli.py": False,
}


def allowed() -> dict[str, set[str]]:
    """The rooms that each room may import."""
    # What the package offers as `maskx_tf.NAME`: type checkers read these imports, Python makes them on first use.
    offered = {"errors", "structures", "config", "prediction", "tasks"}
    rules: dict[str, set[str]] = {"__init__": offered} | {room: set(sees) for room, (sees, _) in ASIDE.items()}
    above: set[str] = set()
    for tier in TIERS:
        above |= {room for room, (_, first) in ASIDE.items() if first in tier}
        rules |= {room: set(above) for room in tier}
        above |= tier
    return rules


class Import(NamedTuple):
    module: str
    line: int
    lazy: bool  # inside a function
    typing_only: bool  # under `if TYPE_CHECKING`


def imports(file: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands; `from a import b` counts as a and as a.b."""
    folder = [package.name, *file.relative_to(package).parent.parts]

    def walk(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join((folder[: len(folder) + 1 - node.level] if node.level else []) + [node.module or ""])
            module = module.strip(".")
            for found in [module, *(f"{module}.{name.name}" for name in node.names)]:
                yield Import(found, node.lineno, lazy, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                yield from walk(child, lazy, True)
            for child in node.orelse:
                yield from walk(child, lazy, typing_only)
        else:
            inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from walk(child, inside, typing_only)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False, False)


def wrong_imports(package: Path) -> list[str]:
    """One line for each import against the direction, and for each room that has no place."""
    rules = allowed()
    wrong = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        room = path.parts[0].removesuffix(".py")
        if room not in rules:
            wrong.append(f"{path}: {room} has no place in TIERS")
            continue
        for found in imports(file, package):
            parts = found.module.split(".")
            if parts[0] != package.name or len(parts) == 1 or not _exists(package, parts[1]):
                continue
            if parts[1] != room and parts[1] not in rules[room]:
                wrong.append(f"{path}:{found.line}: {room} may not import {parts[1]}")
    return list(dict.fromkeys(wrong))


def _exists(package: Path, name: str) -> bool:
    return (package / name).is_dir() or (package / f"{name}.py").exists()


def wrong_stops(package: Path) -> list[str]:
    """One line for each stopped gradient outside models/, where it is visible at the call."""
    wrong = []
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        if path.parts[0] == "models":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            used = node.func if isinstance(node, ast.Call) else node
            name = used.attr if isinstance(used, ast.Attribute) else used.id if isinstance(used, ast.Name) else ""
            # Uncalled, the name may be a setting: config.transfer.stop_gradient.
            uncalled = isinstance(used, ast.Attribute) and ast.unparse(used).split(".")[0] in ("tf", "keras")
            taken = isinstance(node, ast.ImportFrom) and any(one.name == "stop_gradient" for one in node.names)
            if taken or (name in ("stop_gradient", "StopGradient") and (isinstance(node, ast.Call) or uncalled)):
                wrong.append(f"{path}:{node.lineno}: stop_gradient outside models/")
    return list(dict.fromkeys(wrong))


def wrong_tensorflow(package: Path, start: str, lazy: bool) -> list[str]:
    """One line for each import of TensorFlow by a file, or by any file of the package that it imports."""
    wrong: list[str] = []
    waiting, seen = [package / "__init__.py", package / start], set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.exists():
            continue
        seen.add(file)
        for found in imports(file, package):
            if found.typing_only or (found.lazy and not lazy):
                continue
            parts = found.module.split(".")
            if parts[0] in TENSORFLOW:
                wrong.append(f"{file.relative_to(package)}:{found.line}: imports {parts[0]}, and {start} must not")
            if parts[0] == package.name:
                for end in range(2, len(parts) + 1):  # importing a.b.c runs a/__init__.py and a/b/__init__.py, too
                    below = package.joinpath(*parts[1:end])
                    waiting += [below.with_suffix(".py"), below / "__init__.py"]
    return list(dict.fromkeys(wrong))


def too_large(package: Path) -> list[str]:
    """One line for each file that is too long to be one subject, and for each folder with too many files."""
    wrong = []
    for folder in (package, *sorted(path for path in package.rglob("*") if path.is_dir())):
        files = sorted(folder.glob("*.py"))
        if len(files) > MOST_FILES:
            wrong.append(f"{folder.relative_to(package)}: {len(files)} files, expected at most {MOST_FILES}")
        for file in files:
            lines = len(file.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES:
                wrong.append(f"{file.relative_to(package)}: {lines} lines, expected at most {MOST_LINES}")
    return wrong


def test_package_imports_in_one_direction() -> None:
    assert wrong_imports(PACKAGE) == []


def test_package_has_small_rooms_and_files() -> None:
    assert too_large(PACKAGE) == []


def test_package_stops_gradients_in_models_alone() -> None:
    assert wrong_stops(PACKAGE) == []


@pytest.mark.parametrize(("start", "lazy"), WITHOUT_TENSORFLOW.items())
def test_package_spares_tensorflow(start: str, lazy: bool) -> None:
    assert wrong_tensorflow(PACKAGE, start, lazy) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package with an empty file in each room."""
    package = tmp_path / "maskx_tf"
    for room in ["__init__", *allowed()]:
        is_folder = room in ("ops", "masks", "config", "layers", "models", "data", "training", "evaluation", "serving")
        file = package / room / "__init__.py" if is_folder else package / f"{room}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return package


def _write(package: Path, path: str, text: str) -> None:
    (package / path).parent.mkdir(parents=True, exist_ok=True)
    (package / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("layers/rpn.py", "from maskx_tf.config import load", "layers may not import config"),
        ("layers/rpn.py", "import maskx_tf.models.build", "layers may not import models"),
        ("layers/rpn.py", "from maskx_tf import ops, config", "layers may not import config"),
        ("layers/rpn.py", "from ..config import load", "layers may not import config"),
        ("layers/deep/rpn.py", "from ...config.schema import Config", "layers may not import config"),
        ("layers/rpn.py", "def f():\n    import maskx_tf.config", "layers may not import config"),
        ("layers/rpn.py", "if TYPE_CHECKING:\n    from maskx_tf.config import Config", "layers may not import config"),
        ("ops/boxes.py", "from maskx_tf.targets import match", "ops may not import targets"),
        ("targets.py", "import maskx_tf.losses", "targets may not import losses"),
        ("models/build.py", "from maskx_tf.data import coco", "models may not import data"),
        ("training/fit.py", "from maskx_tf.data import coco", "training may not import data"),
        ("training/fit.py", "from maskx_tf.evaluation import runner", "training may not import evaluation"),
        ("data/formats/coco.py", "from maskx_tf.models import build", "data may not import models"),
        ("data/formats/coco.py", "import maskx_tf.visualize", "data may not import visualize"),
        ("config/schema.py", "import maskx_tf.ops", "config may not import ops"),
        ("structures.py", "import maskx_tf.ops", "structures may not import ops"),
        ("serving/server/server.py", "import maskx_tf.cli", "serving may not import cli"),
        ("__init__.py", "from maskx_tf.models import build", "__init__ may not import models"),
        ("registry/all.py", "", "registry has no place in TIERS"),
    ],
)
def test_wrong_import_is_found(tree: Path, path: str, text: str, wrong: str) -> None:
    assert wrong_imports(tree) == []
    _write(tree, path, text)
    assert len(wrong_imports(tree)) == 1
    assert wrong in wrong_imports(tree)[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("layers/rpn.py", "import keras\nfrom maskx_tf import __version__, ops\nfrom maskx_tf.layers import norm"),
        ("layers/rpn.py", "from . import norm\nfrom ..ops import boxes\nfrom maskx_tf.targets import match"),
        ("models/build.py", "from maskx_tf.config import ModelConfig\nfrom maskx_tf.layers.rpn import Rpn"),
        ("study.py", "from maskx_tf import data, training, evaluation, visualize"),
        ("cli.py", "from maskx_tf import commands, serving, data, models"),
    ],
)
def test_right_import_is_let_through(tree: Path, path: str, text: str) -> None:
    _write(tree, path, text)
    assert wrong_imports(tree) == []


@pytest.mark.parametrize(
    "text",
    [
        "y = tf.stop_gradient(x)",
        "map(tf.stop_gradient, x)",
        "keras.ops.stop_gradient(x)",
        "ops.stop_gradient(x)",
        "from tensorflow import stop_gradient",
        "tf.raw_ops.StopGradient(input=x)",
    ],
)
def test_stopped_gradient_is_found(tree: Path, text: str) -> None:
    for path in ("ops/boxes.py", "layers/transfer.py"):
        _write(tree, path, text)
    _write(tree, "models/rcnn.py", text)
    assert len(wrong_stops(tree)) == 2


def test_setting_of_that_name_is_no_stopped_gradient(tree: Path) -> None:
    _write(tree, "prediction/images.py", "stop_gradient = config.transfer.stop_gradient\nf(stop_gradient=True)")
    assert wrong_stops(tree) == []


def test_large_rooms_and_files_are_found(tmp_path: Path) -> None:
    for number in range(MOST_FILES):
        _write(tmp_path, f"layers/deep/part{number}.py", "pass\n" * MOST_LINES)
    assert too_large(tmp_path) == []
    _write(tmp_path, "layers/deep/__init__.py", "pass\n" * (MOST_LINES + 1))
    assert too_large(tmp_path) == [
        "layers/deep: 16 files, expected at most 15",
        "layers/deep/__init__.py: 301 lines, expected at most 300",
    ]


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"serving/client/client.py": "import tensorflow as tf"}, "serving/client/client.py:1"),
        ({"serving/client/client.py": "def f():\n    from keras import ops"}, "serving/client/client.py:2"),
        (
            {"serving/client/client.py": "from tensorflow_serving.apis import predict_pb2"},
            "serving/client/client.py:1",
        ),
        (
            {"serving/client/client.py": "import maskx_tf.masks.paste", "masks/paste.py": "import tensorflow.nn"},
            "masks/paste.py:1",
        ),
        (
            {"serving/client/client.py": "from maskx_tf.masks import paste", "masks/paste.py": "import keras"},
            "masks/paste.py:1",
        ),
        (
            {"serving/client/client.py": "import maskx_tf.masks.paste", "masks/__init__.py": "import keras"},
            "masks/__init__.py:1",
        ),
        (
            {"serving/client/client.py": "from .. import protocol", "serving/protocol.py": "import keras"},
            "serving/protocol.py:1",
        ),
        ({"serving/client/client.py": "", "__init__.py": "import keras"}, "__init__.py:1"),
    ],
)
def test_tensorflow_is_found(tree: Path, files: dict[str, str], where: str) -> None:
    for path, text in files.items():
        _write(tree, path, text)
    found = wrong_tensorflow(tree, "serving/client/client.py", lazy=True)
    assert len(found) == 1
    assert found[0].startswith(where)


def test_tensorflow_may_stand_where_it_does_not_run(tree: Path) -> None:
    _write(tree, "serving/client/client.py", "if TYPE_CHECKING:\n    import tensorflow")
    _write(tree, "cli.py", "def train():\n    import tensorflow")
    assert wrong_tensorflow(tree, "serving/client/client.py", lazy=True) == []
    assert wrong_tensorflow(tree, "cli.py", lazy=False) == []
    assert wrong_tensorflow(tree, "cli.py", lazy=True) != []
