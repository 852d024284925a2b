"""The `maskx` command as its users meet it: output, one line for a mistake, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from maskx_tf import cli
from maskx_tf.config import Config, dump, load
from maskx_tf.errors import BadInput

RUN = [sys.executable, "-m", "maskx_tf"]


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What stands after "maskx: error: " on the one line of a mistake."""
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("maskx: error: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("maskx: error: ").rstrip("\n")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("train: {steps: 5}\nmodel: {class_names: [кот]}\n", encoding="utf-8")
    return "recipe.yaml"


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Each command and group by the words that lead to it; a group may ask for an argument before its commands."""
    found = {path: command}
    own = [f"<{one.name}>" for one in command.params if one.param_type_name == "argument"]
    for name, inner in getattr(command, "commands", {}).items():
        found |= commands(inner, (*path, *own, name))
    return found


COMMANDS = commands(typer.main.get_command(cli.app))


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_one_screen_and_has_an_example(
    path: tuple[str, ...], columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.run([*path, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") <= 40
    assert captured.err == ""
    example = COMMANDS[path].epilog
    assert example.startswith("Example: maskx ")
    assert captured.out.endswith(f"\n  {example}\n")  # on one line, which can be copied
    assert not [line for line in captured.out.splitlines()[1:] if line.endswith("...")]  # no command's line is cut


def test_help_names_every_option() -> None:
    for path, command in COMMANDS.items():
        for one in command.params:
            assert one.help, (path, one.name)


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    alone = capsys.readouterr().out
    assert cli.run(["-h"]) == 0
    assert capsys.readouterr().out == alone


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("maskx 0.")


@pytest.mark.parametrize("arguments", [["--help"], ["config", "--help"], ["config", "recipe.yaml"], ["confg"]])
def test_light_commands_do_not_import_tensorflow(arguments: list[str], recipe: str) -> None:
    code = (
        "import sys; from maskx_tf import cli; cli.run(sys.argv[1:]); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy', 'matplotlib')))"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


def test_config_prints_what_a_recipe_comes_to(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", recipe, "train.batch=4", "model.input.canvas=[512, 512]"]) == 0
    expected = load(recipe, ["train.batch=4", "model.input.canvas=[512, 512]"])
    text = capsys.readouterr().out
    assert text == dump(expected)
    assert "кот" in text
    assert cli.run(["config", recipe, "--json", "train.batch=4"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["train"]["steps"], values["train"]["batch"]) == (5, 4)
    assert Config.model_validate(values).model.class_names == ("кот",)


def test_config_writes_a_file_that_loads(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", recipe, "--out", "resolved.yaml"]) == 0
    assert capsys.readouterr().out == "wrote resolved.yaml\n"
    assert load("resolved.yaml") == load(recipe)


def test_config_does_not_replace_its_recipe(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(recipe).read_text(encoding="utf-8")
    assert fails(capsys, "config", recipe, "--out", f"./{recipe}").startswith(
        "--out recipe.yaml: expected another file"
    )
    assert Path(recipe).read_text(encoding="utf-8") == before
    assert fails(capsys, "config", recipe, "--out", "nowhere/a.yaml").startswith("nowhere/a.yaml: cannot be written: ")
    assert os.listdir() == [recipe]


def test_mistakes_are_one_line(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'config'?" in fails(capsys, "confgi", recipe)
    assert "No such command 'xyz'" in fails(capsys, "xyz")
    assert "CONFIG" in fails(capsys, "config")
    assert fails(capsys, "config").endswith("(see maskx config --help)")
    assert "--json" in fails(capsys, "config", recipe, "--jsn")
    assert "--out" in fails(capsys, "config", recipe, "--out")
    assert fails(capsys, "config", "nope.yaml") == "nope.yaml: cannot be read: No such file or directory"
    assert "did you mean train.rate?" in fails(capsys, "config", recipe, "train.rat=1")
    assert "expected key=value" in fails(capsys, "config", recipe, "train.rate")


def _fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `maskx config` end with an error of any kind."""

    def load(*_: object) -> None:
        raise error

    monkeypatch.setattr("maskx_tf.config.load", load)


def test_every_message_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(BadInput("a.json: record 3\n  expected\ttext"), monkeypatch)
    assert fails(capsys, "config", "a") == "a.json: record 3 expected text"


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(KeyboardInterrupt(), monkeypatch)
    assert cli.run(["config", "a"]) == 130
    assert capsys.readouterr().err == "maskx: interrupted\n"


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(ZeroDivisionError("secret reason"), monkeypatch)
    assert cli.run(["config", "a"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert "ZeroDivisionError: secret reason" in lines
    assert lines[-1].startswith("maskx: this is a bug in maskx")


def test_a_command_may_choose_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(typer.Exit(7), monkeypatch)
    assert cli.run(["config", "a"]) == 7


@pytest.mark.parametrize("arguments", [["config", "recipe.yaml"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str], recipe: str) -> None:
    command = subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_one_line(recipe: str) -> None:
    with open("/dev/full", "wb") as full:
        command = subprocess.run([*RUN, "config", recipe], check=False, stdout=full, stderr=subprocess.PIPE)
    assert command.stderr == b"maskx: error: the output: No space left on device\n"
    assert command.returncode == 2


def test_exit_codes_reach_the_shell(recipe: str) -> None:
    assert subprocess.run([*RUN, "config", recipe], check=False, capture_output=True).returncode == 0
    assert subprocess.run([*RUN, "config"], check=False, capture_output=True).returncode == 2
