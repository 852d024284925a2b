"""The commands that stand in a text: whether they could be run as they are written."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any

import typer

from maskx_tf import cli
from maskx_tf.config import Config, explain, load, loader, recipes
from maskx_tf.errors import BadInput
from maskx_tf.study import config as study

OURS = r"(maskx|scripts/\w+|python\S* (-m|\w+/\S+\.py)|pip)( |$)"
BEGINNING = re.compile(rf"(\$ )?([A-Z_]+=\S+ )*(exec |cd \S+ && )?(\.venv/bin/)?{OURS}")
BETWEEN = re.compile(r"[();<>|&]+")
KEYS = set(explain.valid_keys(Config))
WITH_OVERRIDES = ("config", "train", "records", "saved-model", "litert", "onnx", "import", "attach-masks")


def of(text: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each command in a block of code, and the line where it begins, from 0."""
    lines = text.splitlines()
    start = 0
    for end, line in enumerate(lines):
        if line.endswith("\\"):
            continue
        joined = "\n".join(lines[start : end + 1]).replace("\\\n", " ").strip()
        if BEGINNING.match(joined):  # there are also trees of files, sketches, and other programs
            for words in sentences(joined):
                yield start, words
        start = end + 1


def sentences(line: str) -> Iterator[list[str]]:
    """The commands of a line, without what stands before their names."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    reader.commenters = "#"
    words: list[str] = []
    for word in [*reader, ";"]:
        if not BETWEEN.fullmatch(word):
            words.append(word)
            continue
        while words and (words[0] in ("$", "exec") or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words.pop(0)
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]
        words = []


def wrong(words: Sequence[str], root: Path, *, mention: bool) -> str | None:
    """What is wrong with a command, if anything.

    Args:
        words: its name and its arguments.
        root: where the project lies.
        mention: it stands in a sentence, where arguments may be left out.
    """
    name, *arguments = words
    if name == "maskx":
        return _maskx(arguments, root, mention=mention)
    if name.startswith(("scripts/", "configs/")) and not (root / name).exists():
        return f"there is no {name}"
    if name.startswith("python") and arguments[:1] == ["-m"] and arguments[1:]:
        module = arguments[1].replace(".", "/")
        is_ours = module.partition("/")[0] in ("benchmarks", "maskx_tf", "serving", "scripts", "tests")
        if is_ours and not ((root / f"{module}.py").exists() or (root / module / "__main__.py").exists()):
            return f"there is no module {arguments[1]}"
    if name.startswith("python") and arguments[:1] and arguments[0].endswith(".py"):
        return _script(root / arguments[0], arguments, root)
    if name == "pip":
        setup = ConfigParser()
        setup.read(root / "setup.cfg")
        asked = re.findall(r"\[([\w,]+)\]", " ".join(word for word in arguments if word[0] in ".m"))
        for extra in ",".join(asked).split(","):
            if extra and extra not in setup["options.extras_require"]:
                return f"there is no extra {extra}"
    return None


def _script(path: Path, arguments: Sequence[str], root: Path) -> str | None:
    if not path.exists():
        return f"there is no {path.relative_to(root)}"
    options = [word for word in arguments if word.startswith("--")]
    unknown = [option for option in options if f'"{option}"' not in path.read_text(encoding="utf-8")]
    return f"{path.relative_to(root)} has no option {unknown[0]}" if unknown else None


def _maskx(arguments: Sequence[str], root: Path, *, mention: bool) -> str | None:
    is_open = mention or "..." in arguments
    plain = [word.strip("[]") if word.startswith("[") and "=" in word else word for word in arguments]
    plain = [word for word in plain if word not in ("...", "...]", "key=value")]
    try:
        path, given = parsed(plain)
    except typer.TyperException as error:
        problem = error.format_message()
        is_left_out = problem.startswith("Missing ") or problem.endswith("requires an argument.")
        return None if is_open and is_left_out else problem
    except (typer.Exit, KeyError):  # --help and such, or a group's name alone
        return None
    missing = [word for word in plain if word.startswith(("configs/", "serving/")) and not (root / word).exists()]
    if missing:
        return f"there is no {missing[0]}"
    return _overrides(path, given, root)


def parsed(arguments: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The path of the command that a command line means, and what it would be called with."""
    command, found = _recorder()
    with contextlib.redirect_stdout(io.StringIO()), command.make_context("maskx", list(arguments)) as context:
        command.invoke(context)
    return found.popitem()


@cache
def _recorder() -> tuple[Any, dict[tuple[str, ...], dict[str, Any]]]:
    """The `maskx` command, which does nothing but note here what it would have done."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def record(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            record(inner, (*path, name))
        if not hasattr(command, "commands"):
            command.callback = lambda **given: found.update({path: given})

    command = typer.main.get_command(cli.app)
    record(command, ())
    for option in command.params:
        if option.name in ("install_completion", "show_completion"):  # they would change the user's shell, or need one
            option.callback = _leave
    return command, found


def _leave(_context: Any, _option: Any, is_given: bool) -> None:
    if is_given:
        raise typer.Exit


def _overrides(path: tuple[str, ...], given: dict[str, Any], root: Path) -> str | None:
    """What is wrong with the settings of a command line; values that a shell would fill in are not looked at."""
    overrides = [text for text in given.get("overrides") or () if "$" not in text]
    filled_in = [text for text in given.get("overrides") or () if "$" in text]
    name = given.get("recipe") or given.get("config_file") or ""
    recipe = recipes.find(name, root)
    try:
        if Path(recipe).is_file():
            study.load(recipe, overrides) if path == ("study",) else load(recipe, overrides)
            overrides = []
        for text in overrides:
            loader._read_override(text)
    except BadInput as error:
        return str(error)
    if name.islower() and recipes.RECIPE_NAME.fullmatch(name) and not Path(recipe).is_file():
        return f"there is no recipe {name}"
    for text in [*overrides, *filled_in]:
        key = text.partition("=")[0]
        if path[-1] in WITH_OVERRIDES and key not in KEYS:
            return f"there is no setting {key}"
    return None
