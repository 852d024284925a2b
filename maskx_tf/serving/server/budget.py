"""The bytes of all requests and answers in the server, which may not exceed a limit."""

from __future__ import annotations

import threading

import numpy as np

from maskx_tf.serving.status import RESOURCE_EXHAUSTED, ServingError


class Budget:
    """Counts bytes.

    Args:
        limit: how many may be held at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._lock = threading.Lock()

    def held(self) -> int:
        """How many bytes are held."""
        with self._lock:
            return self._held

    def move(self, change: int, *, refuse: bool) -> None:
        """Adds to the bytes that are held.

        Raises:
            ServingError: they would exceed the limit, and `refuse` is set.
        """
        with self._lock:
            if refuse and change > 0 and self._held + change > self._limit:
                reason = f"the server holds {self._held} bytes of requests, expected at most {self._limit}"
                raise ServingError(RESOURCE_EXHAUSTED, reason)
            self._held += change


class Share:
    """The bytes of one request, given back at the end of a `with` block."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._held = budget, 0

    def set(self, count: int, *, refuse: bool = True) -> None:
        """Sets the number of bytes that the request holds.

        Args:
            count: the number of bytes.
            refuse: False for an answer, which exists already: the next requests are refused instead.

        Raises:
            ServingError: all requests together would exceed the limit.
        """
        self._budget.move(count - self._held, refuse=refuse)
        self._held = count

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.set(0)


def size_of(array: np.ndarray) -> int:
    """The bytes of an array, and of the files in it."""
    return array.nbytes + (sum(map(len, array.ravel())) if array.dtype == np.object_ else 0)
