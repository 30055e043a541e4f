"""What a service counts, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Counters of one service; of several processes where ``PROMETHEUS_MULTIPROC_DIR`` names the folder that they share
    (the client library's way, which reads the variable when it is imported)."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("detseg_requests", "Requests answered", ["path", "status"], registry=registry)
        what = "From the first byte of a request to its answer"
        self.seconds = Histogram("detseg_request_seconds", what, ["path"], buckets=_SECONDS, registry=registry)
        what = "Images predicted together"
        self.batch_size = Histogram("detseg_batch_size", what, ["model"], buckets=_SIZES, registry=registry)
        what = "Requests that are read, wait or are predicted"
        self.queue = Gauge("detseg_queue_length", what, registry=registry, multiprocess_mode="livesum")

    def text(self) -> bytes:
        """All numbers, in Prometheus' text format."""
        registry = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library types it by halves
        return generate_latest(registry)


def forget_process(pid: int | None) -> None:
    """Leave out the gauges of a process that has ended, or its requests would be in the queue for ever."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library types it by halves
