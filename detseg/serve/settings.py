"""What a service is told when it starts, and the errors that it answers with."""

from __future__ import annotations

from dataclasses import dataclass

from detseg.errors import ConfigError


@dataclass(frozen=True)
class ServiceSettings:
    """The settings of a service, of each of its processes.

    Attributes:
        host, port: where it listens; port 0 is any free one.
        workers: processes, each with all models.
        device: see ``detseg.load_predictor``.
        max_batch: images that a network sees at a time, at most.
        max_wait_ms: how long an image waits for others that are being decoded.
        max_queue: requests that are read or answered at a time; what comes on top gets 503.
        timeout: seconds for a request to arrive, and then for its answer.
        max_mb: size of the body of a request, MiB.
        max_megapixels: size of an image, millions of pixels.
        min_score: of detectors: what scores less is never answered; the page's slider begins here.
        api_key: what ``Authorization: Bearer`` must give; None: nothing is asked for.

    Raises:
        ConfigError: a number is not in its range, or the key is empty.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    device: str = "auto"
    max_batch: int = 8
    max_wait_ms: float = 5.0
    max_queue: int = 64
    timeout: float = 30.0
    max_mb: float = 20.0
    max_megapixels: float = 50.0
    min_score: float = 0.05
    api_key: str | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: expected {low:g} to {high:g}, got {getattr(self, name):g}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            what = "expected ASCII letters, digits or signs on one line, and at least one"
            raise ConfigError(f"the API key (--api-key-file, or DETSEG_API_KEY): {what}")

    @property
    def max_bytes(self) -> int:
        """``max_mb`` in bytes."""
        return round(self.max_mb * 2**20)

    @property
    def max_pixels(self) -> int:
        """``max_megapixels`` in pixels."""
        return round(self.max_megapixels * 1e6)


_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "workers": (1, 256),
    "max_batch": (1, 1024),
    "max_wait_ms": (0, 10_000),
    "max_queue": (1, 100_000),
    "timeout": (0.1, 3600),
    "max_mb": (0.001, 1024),
    "max_megapixels": (0.001, 178.95697),  # MAX_PIXELS of the reader
    "min_score": (0, 1),
}


class ServiceError(Exception):
    """A request that is answered with an error; the connection closes if its body was not read.

    Attributes:
        status: of HTTP.
        message: one line for whoever sent the request.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
