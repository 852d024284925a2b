"""Counts and histograms in the text form that Prometheus reads."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Mapping, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Everything that a server counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, dict[Labels, float]] = {}
        self._bounds: dict[str, Sequence[float]] = {}
        self._histograms: dict[str, dict[Labels, tuple[list[int], float]]] = {}
        self._gauges: dict[str, Callable[[], Mapping[Labels, float]]] = {}

    def counter(self, name: str, help_text: str) -> Callable[..., None]:
        """Adds a count; what is returned adds one to it, or a number, under labels."""
        self._help[name] = (help_text, "counter")
        self._counts[name] = {}

        def add(number: float = 1, **labels: str) -> None:
            with self._lock:
                key = tuple(sorted(labels.items()))
                self._counts[name][key] = self._counts[name].get(key, 0) + number

        return add

    def histogram(self, name: str, help_text: str, bounds: Sequence[float]) -> Callable[..., None]:
        """Adds a histogram; what is returned puts a value into it, under labels."""
        self._help[name] = (help_text, "histogram")
        self._bounds[name] = bounds
        self._histograms[name] = {}

        def put(value: float, **labels: str) -> None:
            with self._lock:
                key = tuple(sorted(labels.items()))
                counts, total = self._histograms[name].setdefault(key, ([0] * (len(bounds) + 1), 0.0))
                counts[bisect.bisect_left(bounds, value)] += 1
                self._histograms[name][key] = (counts, total + value)

        return put

    def gauge(self, name: str, help_text: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """Adds what is read when somebody asks."""
        self._help[name] = (help_text, "gauge")
        self._gauges[name] = read

    def text(self) -> str:
        """All of it."""
        gauges = {name: read() for name, read in self._gauges.items()}
        with self._lock:
            lines = []
            for name, (help_text, kind) in self._help.items():
                lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
                for key, value in {**self._counts.get(name, {}), **gauges.get(name, {})}.items():
                    lines.append(f"{name}{_written(key)} {value:g}")
                for key, (counts, total) in self._histograms.get(name, {}).items():
                    lines += _buckets(name, key, self._bounds[name], counts, total)
        return "\n".join(lines) + "\n"


def _buckets(name: str, key: Labels, bounds: Sequence[float], counts: Sequence[int], total: float) -> list[str]:
    lines, below = [], 0
    for bound, count in zip([*(f"{value:g}" for value in bounds), "+Inf"], counts, strict=True):
        below += count
        lines.append(f"{name}_bucket{_written((*key, ('le', bound)))} {below}")
    return [*lines, f"{name}_sum{_written(key)} {total:g}", f"{name}_count{_written(key)} {below}"]


def _written(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
