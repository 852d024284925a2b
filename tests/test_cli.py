"""The `maskx` command as its users meet it: output, one line for a mistake, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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


def test_config_prints_the_resolved_recipe(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert fails(capsys, "config", recipe, "--out", f"{recipe}/a.yaml").startswith(
        f"{recipe}/a.yaml: cannot be written: "
    )
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
    _fail_with(BadInput(f"a.json: expected a class, found {'x' * 100_000}; did you mean cat?"), monkeypatch)
    said = fails(capsys, "config", "a")
    assert len(said) < 2100
    assert said.startswith("a.json: expected a class, found xxx")
    assert said.endswith("xxx; did you mean cat?")


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
def test_a_closed_pipe_is_not_an_error(arguments: list[str], recipe: str) -> None:
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


def test_an_interrupt_that_a_library_swallows_is_not_lost(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> Config:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return Config()

    monkeypatch.setattr("maskx_tf.config.load", load)
    before = signal.getsignal(signal.SIGINT)
    for arguments in (["config", recipe, "--out", "resolved.yaml"], ["config", recipe]):
        assert cli.run(arguments) == 130
        assert capsys.readouterr().err == "maskx: interrupted\n"
    assert os.listdir() == [recipe]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_a_library_makes_another_error_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("UnknownError: KeyboardInterrupt") from None

    monkeypatch.setattr("maskx_tf.config.load", load)
    assert cli.run(["config", "a"]) == 130
    assert capsys.readouterr().err == "maskx: interrupted\n"


def test_an_interrupt_while_modules_are_imported_is_one_line() -> None:
    code = """
import signal, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "maskx_tf.commands.train":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
from maskx_tf.__main__ import main
main()
"""
    command = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.PIPE)
    assert (command.returncode, command.stderr) == (130, b"maskx: interrupted\n")


def closed(*descriptors: int) -> Any:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def test_a_closed_output_is_one_line(recipe: str) -> None:
    command = subprocess.run([*RUN, "config", recipe], check=False, stderr=subprocess.PIPE, preexec_fn=closed(1))
    assert command.stderr.startswith(b"maskx: error: the output: closed; expected a file, a pipe, or /dev/null")
    assert command.stderr.count(b"\n") == 1
    assert command.returncode == 2


def test_an_output_that_is_open_to_read_alone_is_one_line(recipe: str) -> None:
    with open(os.devnull, "rb") as unwritable:
        command = subprocess.run([*RUN, "config", recipe], check=False, stdout=unwritable, stderr=subprocess.PIPE)
    assert command.stderr == b"maskx: error: the output: Bad file descriptor\n"
    assert command.returncode == 2


def test_closed_standard_files_do_not_mix_with_ours(recipe: str) -> None:
    code = (
        "import os, sys; from maskx_tf.__main__ import main; "
        "import maskx_tf.cli as cli; cli.run = lambda _: 7 if os.open(os.devnull, os.O_RDONLY) > 2 else 8; main()"
    )
    for descriptors in ((0, 1, 2), (2,), (0,), ()):
        command = subprocess.run([sys.executable, "-c", code], check=False, preexec_fn=closed(*descriptors))
        assert command.returncode == 7
    both = subprocess.run([*RUN, "config", "nope.yaml"], check=False, stdout=subprocess.PIPE, preexec_fn=closed(2))
    assert (both.returncode, both.stdout) == (2, b"")  # its line goes nowhere, and not to the standard output


def test_an_output_that_cannot_hold_a_letter_is_one_line(recipe: str) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments in ([recipe], [recipe, "--json"]):
        command = subprocess.run([*RUN, "config", *arguments], check=False, capture_output=True, env=ascii_only)
        assert command.stderr == (
            b"maskx: error: the output: '\\u043a' cannot be written in ascii; PYTHONUTF8=1 sets UTF-8\n"
        )
        assert command.returncode == 2


def test_what_a_terminal_obeys_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Names of classes and files come from anywhere; some terminals run what they are told by them."""
    name = "cat\x1b]0;owned\x07\x9b2J\u202etac"
    categories = [{"id": 1, "name": name}]
    path = tmp_path / "evil\x1b[2J.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    for more in ([], ["--json"]):
        assert cli.run(["data", "split", "all", "--annotations", str(path), *more]) == 0
        output = capsys.readouterr().out
        assert output.replace("\n", "").isprintable()
        assert r"cat\u001b]0;owned\u0007\u009b2J\u202etac" in output
    assert json.loads(output) == {"a": [name], "b": []}
    assert cli.run(["data", "split", "all", "--annotations", str(tmp_path / "none\x1b[2J")]) == 2
    assert capsys.readouterr().err.rstrip("\n").isprintable()
