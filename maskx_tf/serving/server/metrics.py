"""The figures of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """A server's counters and histograms. Each server has a registry, so that two may run in one process.

    Args:
        waiting: returns the number of images that wait.
        held: returns the bytes that requests and answers hold.
        states: returns the number of each version's state.
    """

    def __init__(
        self, waiting: Callable[[], int], held: Callable[[], int], states: Callable[[], Mapping[int, int]]
    ) -> None:
        self._registry = one = CollectorRegistry()
        labels = ["port", "signature", "code"]
        self.requests = Counter("maskx_requests", "Requests by port, signature and outcome.", labels, registry=one)
        self.seconds = Histogram(
            "maskx_request_seconds", "Seconds until an answer.", ["port"], buckets=SECONDS, registry=one
        )
        self.images = Counter("maskx_images", "Images by what became of them.", ["status"], registry=one)
        self.batches = Histogram("maskx_batch_images", "Images of a batch.", buckets=ROWS, registry=one)
        Gauge("maskx_queue_images", "Images that wait.", registry=one).set_function(waiting)
        Gauge("maskx_held_bytes", "Bytes that requests and answers hold.", registry=one).set_function(held)
        one.register(_States(states))
        ProcessCollector(registry=one)

    def text(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self._registry)


class _States(Collector):
    """A gauge of the versions that exist now."""

    def __init__(self, states: Callable[[], Mapping[int, int]]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauge = GaugeMetricFamily("maskx_version_state", "TF Serving's number of its state.", labels=["version"])
        for number, state in self._states().items():
            gauge.add_metric([str(number)], state)
        yield gauge
