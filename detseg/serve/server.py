"""The service under uvicorn: its socket, its processes, and connections that do not say what they want."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h11
from starlette.applications import Starlette
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from detseg.errors import ConfigError, DetsegError
from detseg.serve.app import create_app
from detseg.serve.models import open_models
from detseg.serve.settings import ServiceSettings

logger = logging.getLogger("detseg")

HEADER_SECONDS = 10.0
"""In which the head of a request must have arrived."""


def serve(
    paths: Sequence[Path],
    settings: ServiceSettings,
    samples: Sequence[Path] = (),
    on_listening: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve models until SIGINT or SIGTERM, after which accepted requests are answered and the signal is raised again.

    Args:
        paths: run directories and files, see ``detseg.load_predictor``.
        settings: see ``ServiceSettings``.
        samples: images that the page offers.
        on_listening: is told the address of the page when connections are accepted.

    Raises:
        DetsegError: a model cannot be opened, then or by a worker that is started again later; or the port is taken.
    """
    listener = _listen(settings)
    with listener:
        models = open_models(paths, settings)  # also for workers: what is wrong is said here, once
        _say(listener, settings, on_listening)
        if settings.workers == 1:
            app = create_app(models, settings, samples)
            asyncio.run(Server(server_config(app, settings)).serve(sockets=[listener]))
        else:
            del models
            start = partial(_application, list(paths), settings, list(samples))
            workers = _Workers(server_config(start, settings, factory=True), sockets=[listener])
            workers.run()
            if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
                raise ConfigError("a worker cannot start, see above; the service has stopped")


def server_config(app: Any, settings: ServiceSettings, factory: bool = False) -> Config:
    """uvicorn's settings for an application, or for what makes one (``factory``)."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)  # the same one is added once
    return Config(
        app,
        factory=factory,
        workers=settings.workers,
        http=HttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # a malformed request is a warning of uvicorn's, and anybody can send one
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(2 * settings.timeout + HEADER_SECONDS),
        timeout_worker_healthcheck=60,  # a worker that imports torch does not answer for seconds
    )


class _Workers(Multiprocess):
    """uvicorn's processes; the socket is closed here, too, when they are told to stop: while it is open in one process
    the system goes on queueing connections, which nobody accepts."""

    def terminate_all(self) -> None:
        """Tell all to stop."""
        super().terminate_all()
        for one in self.sockets:
            one.close()


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, whose errors are JSON, and which closes a connection when the head of a request takes longer
    than ``HEADER_SECONDS``: uvicorn itself would wait for ever."""

    _head_is_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """The head of the first request is due."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or the beginning of the next one, whose head is then due."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop_watching()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """A request that is not HTTP."""
        self._refuse(400, "Bad Request", msg.rstrip("."))

    def _watch_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._stop_watching()
        elif self._head_is_due is None:
            self._head_is_due = self.loop.call_later(HEADER_SECONDS, self._on_head_too_late)

    def _stop_watching(self) -> None:
        if self._head_is_due is not None:
            self._head_is_due.cancel()
            self._head_is_due = None

    def _on_head_too_late(self) -> None:
        self._head_is_due = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(408, "Request Timeout", f"no request arrived within {HEADER_SECONDS:g} s")

    def _refuse(self, status: int, reason: str, message: str) -> None:
        body = json.dumps({"error": message})
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode("ascii"))
        self.transport.close()


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A second Ctrl-C cancels requests and lifespan, which is no error of theirs; of the lifespan the traceback is the
    message."""
    is_raised = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not is_raised and "CancelledError" not in record.getMessage()


def _application(paths: Sequence[Path], settings: ServiceSettings, samples: Sequence[Path]) -> Starlette:
    try:
        return create_app(open_models(paths, settings), settings, samples)
    except DetsegError as error:  # as if a file has gone since: uvicorn stops all, where it would try for ever
        logger.error(f"error: {error}")
        time.sleep(0.2)  # a thread answers uvicorn's ping, for whose answer it would wait for a minute
        os._exit(STARTUP_FAILURE)  # at once: that thread ends before the process would


def _listen(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        reason = reason.partition(" (while ")[0]  # the rest is the address again
        where = f"{settings.host}, port {settings.port}"
        raise ConfigError(f"cannot listen on {where}: {reason}; choose others with --host and --port") from None
    # asyncio does it only for sockets that name their protocol, and answers would wait 40 ms for an acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # whose connections inherit it
    return listener


def _say(listener: socket.socket, settings: ServiceSettings, on_listening: Callable[[str], object]) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    if settings.api_key is None and not is_loopback(settings.host):
        logger.warning(f"{settings.host} is open to other machines, and no key is asked for: set DETSEG_API_KEY")
    logger.info(f"serving on {address} (page: /, operations: /docs); stop with Ctrl-C")
    on_listening(address)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
