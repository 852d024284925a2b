"""The `maskx` command: the frame around every subcommand.

Subcommands live in `maskx_tf/commands/`, a file for each command, and a folder for each group (`maskx data synth` is in
`data/__init__.py`). They are registered below, so this file stays short. They import typer alone at their top, and all
that loads slowly inside their functions, so that `maskx --help` answers at once.

A subcommand has a docstring of one line, an example, `--json` if it prints figures, and `BadInput` for each error that
the user can fix. The frame sets the exit code: 0; 2 with one line for bad input; 130 for Ctrl-C; 1 with a traceback for
a bug.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, TextIO, cast

import typer

from maskx_tf import __version__, interrupts
from maskx_tf.commands import (
    ask,
    batch,
    config,
    data,
    doctor,
    export,
    import_,
    predict,
    recipes,
    report,
    serve,
    study,
    train,
    vocabulary,
)
from maskx_tf.commands import eval as evaluate
from maskx_tf.commands.batch import label
from maskx_tf.commands.data import pseudo, records
from maskx_tf.errors import BadInput, visible

BAD_INPUT, BUG = 2, 1
LONGEST_LINE = 2000
COMPLETION = "_MASKX_COMPLETE"  # set by a shell when its Tab key asks for completions
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

app = typer.Typer(
    name="maskx",
    help="Instance segmentation for classes that have boxes but no masks: Mask^X R-CNN and its family.",
    epilog="Example: maskx data synth --out data/synthetic --size 96; maskx train synthetic_detector --out runs/first",
    rich_markup_mode=None,  # frames and columns of types would take twice the lines, and a tenth of a second
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command(epilog=doctor.EXAMPLE)(doctor.doctor)
app.command("recipes", epilog=recipes.EXAMPLE)(recipes.recipes_)
app.command(epilog=config.EXAMPLE)(config.config)
app.command(epilog=train.EXAMPLE)(train.train)
app.command("eval", epilog=evaluate.EXAMPLE)(evaluate.eval_)
app.command(epilog=report.EXAMPLE)(report.report)
app.command(epilog=study.EXAMPLE)(study.study)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command(epilog=label.EXAMPLE)(label.label)
app.command("import", epilog=import_.EXAMPLE)(import_.import_)
app.command(epilog=serve.EXAMPLE)(serve.serve)
app.command(epilog=ask.EXAMPLE)(ask.ask)
data.app.command(epilog=records.EXAMPLE)(records.records)
data.app.command(epilog=pseudo.EXAMPLE)(pseudo.pseudo)
app.add_typer(data.app)
app.add_typer(batch.app)
app.add_typer(vocabulary.app, name="vocabulary")
app.add_typer(export.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Returns:
        The exit code.
    """
    if sys.stdout is None:
        return _refuse("the output: closed; expected a file, a pipe, or /dev/null if nothing is to be seen")
    with interrupts.remembered(), contextlib.redirect_stdout(cast(TextIO, _Visible(sys.stdout))):
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        interrupts.check()
        return code
    except BadInput as error:
        return _refuse(str(error))
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        return _refuse(error.format_message() + (f" (see {context.command_path} --help)" if context else ""))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        _abandon_output()
        return BROKEN_PIPE
    except UnicodeEncodeError as error:
        if codecs.lookup(error.encoding).name == "utf-8":  # `_Visible` leaves no letter that UTF-8 lacks
            return _bug()
        _abandon_output()
        letter, encoding = error.object[error.start], error.encoding
        return _refuse(f"the output: {letter!a} cannot be written in {encoding}; PYTHONUTF8=1 sets UTF-8")
    except Exception as error:
        if interrupts.was_received():  # libraries make other errors of an interrupt
            return _interrupted()
        if isinstance(error, OSError) and error.errno in OUTPUT_ERRORS:
            _abandon_output()
            return _refuse(f"{error.filename or 'the output'}: {error.strerror}")
        return _bug()


def _interrupted() -> int:
    _say("interrupted")
    return interrupts.EXIT_CODE


def _bug() -> int:
    traceback.print_exc()
    _say(f"this is a bug in maskx {__version__}: please report it with the lines above and maskx doctor's answer")
    return BUG


class _Visible:
    """The standard output, in which control characters, such as in the name of a class, are shown and not obeyed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(visible(text, keep="\n\t"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _invoke(arguments: Sequence[str]) -> int:
    """Calls command(arguments) and returns its result; click's own handling of interrupts and broken pipes is off."""
    command = typer.main.get_command(app)
    if COMPLETION in os.environ:
        command.main([], prog_name="maskx")  # prints the answer and ends the process
    _keep_examples_whole(command)
    try:
        with command.make_context("maskx", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    return 0


def _keep_examples_whole(command: Any) -> None:
    """Lets the example below a command's help, and below those of its subcommands, stand on one line, to be copied."""
    command.epilog = f"\b\n{command.epilog}"
    for inner in getattr(command, "commands", {}).values():
        _keep_examples_whole(inner)


def _refuse(problem: str) -> int:
    _say(f"error: {problem}")
    return BAD_INPUT


def _say(text: str) -> None:
    """Prints one line, whatever the text holds, on the standard error output."""
    line = visible(" ".join(text.split()))
    if len(line) > LONGEST_LINE:  # it may contain a name of any length, and the expected value is at its end
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
    print("maskx:", line, file=sys.stderr)


def _abandon_output() -> None:
    """Discards output that is not yet printed, or Python would report an error again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
