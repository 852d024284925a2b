"""The output of commands: TensorFlow's messages about the machine are hidden, its errors are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskx_tf.synthetic import generate
from maskx_tf.synthetic.parameters import Recipe

ROOT = Path(__file__).resolve().parents[1]
NOTE = "I0000 port.cc] a note about the machine"

# In place of TensorFlow: it talks as the real one does while it is imported, and ends a command that asks it anything.
TALKER = f"""
import os
from maskx_tf.errors import BadInput

os.write(2, b"{NOTE}\\n")

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise BadInput("TensorFlow was asked")
"""

# Commands one after the other, each in a fork: imports are most of what a command costs that does nothing.
COMMANDS = """
import os, sys
from maskx_tf import cli

for number, line in enumerate(sys.stdin):
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT), 2)
        code = cli.run(line.split())
        print("tensorflow" in sys.modules, code > 0, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
LINES = """train recipe.yaml
train recipe.yaml --workers localhost:1,localhost:2
train recipe.yaml --dry-run
train --replay failed
eval model --images . --annotations boxes.json
predict model a.png --out out
import torchvision model.pth --out out
vocabulary model drop cat --out out
export saved-model model --out out
export litert model --out out
serve models
data records recipe.yaml --out out
study {root}/configs/study/synthetic_quick.yaml --out out
"""
HOLD = "import os\nfrom maskx_tf.quiet import held_back\nwith held_back():\n    os.write(2, b'said ')\n    "


def run(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=inherited | environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("rest", "code", "said"),
    [
        ("pass", 0, "after"),
        ("raise KeyboardInterrupt", 130, "after"),
        ("raise ImportError", 1, "said after"),
        ("os.abort()", -6, "said "),  # as where the processor has no AVX
    ],
)
def test_what_is_held_back_is_shown_when_something_fails(rest: str, code: int, said: str) -> None:
    ends = "\nexcept BaseException as error:\n    os.write(2, b'after')\n    codes = {KeyboardInterrupt: 130}\n"
    ends += "    os._exit(codes.get(type(error), 1))\nos.write(2, b'after')"
    indented = (HOLD + rest).replace("\n", "\n    ")
    found = run("-c", f"try:\n    {indented}{ends}")
    assert (found.returncode, found.stderr) == (code, said)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, a data set, and a TensorFlow that talks and does nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(TALKER, encoding="utf-8")
    (tmp_path / "keras.py").write_text("from tensorflow import Tensor", encoding="utf-8")
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    boxes = {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "cat"}]}
    Path("boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    Path("a.png").touch()
    Path("recipe.yaml").write_text("data: {train: [{images: ., annotations: boxes.json}]}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("level", "lines"), [("3", LINES), ("0", LINES[: LINES.index("\n")])])
def test_commands_import_tensorflow_in_silence(level: str, lines: str, place: Path) -> None:
    path = f"{place}{os.pathsep}{ROOT}"
    driver = run("-c", COMMANDS, given=lines.format(root=ROOT), PYTHONPATH=path, TF_CPP_MIN_LOG_LEVEL=level)
    assert driver.stdout.splitlines() == ["True True"] * len(lines.splitlines()), driver.stderr
    for number, line in enumerate(lines.splitlines()):
        said = Path(f"{number}.txt").read_text(encoding="utf-8").splitlines()
        assert said[-1].startswith("maskx: "), line
        assert (NOTE in said) == (level == "0"), line


@pytest.mark.slow  # differs from the one in its place only where another TensorFlow is installed
def test_the_real_one_is_silent_too() -> None:
    found = run("-c", "from maskx_tf.quiet import import_tensorflow; import_tensorflow(); import tensorflow")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.slow
def test_worker_processes_are_silent_too(tmp_path: Path) -> None:
    generate.generate(Recipe(images=20, size=64, classes=24, a=17), tmp_path / "data", workers=1)
    entry = {"images": str(tmp_path / "data/train"), "annotations": str(tmp_path / "data/instances_train.json")}
    (tmp_path / "recipe.yaml").write_text(json.dumps({"data": {"train": [entry]}}), encoding="utf-8")
    places = [str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "records"), "--per-shard", "5"]
    found = run("-m", "maskx_tf", "data", "records", *places, "--workers", "2", TF_CPP_MIN_LOG_LEVEL="3")
    assert (found.returncode, found.stderr) == (0, "")
