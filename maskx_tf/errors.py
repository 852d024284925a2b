"""The one exception that means: what the user gave us is wrong, and here is what to change."""


class BadInput(Exception):
    """Input that the user can mend.

    The message is one line that says which file, which record and what was expected. The command line prints it
    without a traceback and exits with code 2.
    """
