"""The command `maskx`, which is also `python -m maskx_tf`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from maskx_tf import interrupts


def main() -> NoReturn:
    """Runs the command line and ends the process."""
    _open_standard_files()
    try:
        from maskx_tf import cli

        code = cli.run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were imported
        print("maskx: interrupted", file=sys.stderr)
        code = interrupts.EXIT_CODE
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while libraries end, an interrupt would print a traceback
    sys.exit(code)


def _open_standard_files() -> None:
    """Opens /dev/null in place of closed standard files: else C++ might print into a file of ours with number 2."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:  # print(file=None) would print to the standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for the rest of the process


if __name__ == "__main__":
    main()
