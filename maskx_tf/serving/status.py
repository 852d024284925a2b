"""Errors of requests: gRPC's status names, and HTTP's numbers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Returned = TypeVar("Returned")
Quoted = TypeVarTuple("Quoted")
LONGEST_REASON, LONGEST_QUOTE = 500, 100
OK = "OK"
INVALID_ARGUMENT = "INVALID_ARGUMENT"
NOT_FOUND = "NOT_FOUND"
PERMISSION_DENIED = "PERMISSION_DENIED"
FAILED_PRECONDITION = "FAILED_PRECONDITION"
RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
UNAVAILABLE = "UNAVAILABLE"
UNIMPLEMENTED = "UNIMPLEMENTED"
CANCELLED = "CANCELLED"
INTERNAL = "INTERNAL"
UNKNOWN = "UNKNOWN"
HTTP_NUMBERS = {
    OK: 200,
    INVALID_ARGUMENT: 400,
    FAILED_PRECONDITION: 400,
    PERMISSION_DENIED: 403,
    NOT_FOUND: 404,
    RESOURCE_EXHAUSTED: 429,
    CANCELLED: 499,
    INTERNAL: 500,
    UNIMPLEMENTED: 501,
    UNAVAILABLE: 503,
    DEADLINE_EXCEEDED: 504,
}
HTTP_CODES = {number: code for code, number in HTTP_NUMBERS.items()} | {
    400: INVALID_ARGUMENT,
    405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
}


class ServingError(Exception):
    """A server refused a request, or could not be reached.

    Attributes:
        code: the name of a gRPC status, over HTTP too.
        reason: a reason in words; cut, because it may repeat what the client sent.
        number: HTTP's status.
    """

    def __init__(self, code: str, reason: str, number: int | None = None) -> None:
        self.code, self.reason = code, reason[:LONGEST_REASON]
        super().__init__(f"{code}: {self.reason}")
        self.number = HTTP_NUMBERS.get(code, 500) if number is None else number

    def copy(self) -> ServingError:
        """Returns the same error without its traceback, to be stored, or raised after it was stored.

        An exception refers to its stack frames, and they refer to their variables, such as images. If one of these
        refers to the stored exception, this reference cycle stays in memory until Python's garbage collector runs.
        """
        return ServingError(self.code, self.reason, self.number)


def outcome(function: Callable[[*Quoted], Returned], *values: *Quoted) -> Returned | ServingError:
    """Returns a function's result, or the error that it raises; `result` is the inverse."""
    try:
        return function(*values)
    except ServingError as error:
        return error.copy()


def result(found: Returned | ServingError) -> Returned:
    """Returns the result that `outcome` stored; raises it if it is an error."""
    if isinstance(found, ServingError):
        raise found.copy()
    return found


def quoted(name: str) -> str:
    """A name that a client chose, for a reason."""
    return repr(name[:LONGEST_QUOTE])


def invalid(reason: str) -> ServingError:
    """The error for a request that is not of the form that it should have."""
    return ServingError(INVALID_ARGUMENT, reason)


def too_large(reason: str) -> ServingError:
    """The error for a request that is too large, which sending again will not help."""
    return ServingError(RESOURCE_EXHAUSTED, reason, 413)
