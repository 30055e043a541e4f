"""The service under uvicorn: its socket, its processes, and connections that do not say what they want."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import os
import socket
import sys
import time
from collections import deque
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
from detseg.memory import keep_freed_memory
from detseg.serve.app import create_app
from detseg.serve.metrics import forget_process
from detseg.serve.models import open_models
from detseg.serve.settings import ServiceSettings

logger = logging.getLogger("detseg")

HEADER_SECONDS = 10.0
"""In which the head of a request must have arrived, and the body of one that was answered without it."""

_BACKLOG = 128  # connections that the system queues, and that asyncio accepts at a time
_DESCRIPTORS = 64  # for all that is not a connection
_MOST_DEATHS, _DEATHS_SECONDS = 5, 60.0  # of workers, before the service gives up


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
            if workers.died_too_often:
                what = f"workers ended {_MOST_DEATHS} times within a minute (out of memory?)"
                raise ConfigError(f"{what}; the service has stopped")


def server_config(app: Any, settings: ServiceSettings, factory: bool = False) -> Config:
    """uvicorn's settings for an application, or for what makes one (``factory``)."""
    _filter_logs()
    protocol: Any = partial(HttpProtocol, settings=settings)
    return Config(
        app,
        factory=factory,
        workers=settings.workers,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # a malformed request is a warning of uvicorn's, and anybody can send one
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=round(2 * settings.timeout + HEADER_SECONDS),
        timeout_worker_healthcheck=60,  # a worker that imports torch does not answer for seconds
    )


def most_connections(settings: ServiceSettings) -> int:
    """How many connections a process keeps: several for each request that it answers at a time, since clients leave
    some idle, but no more than the system gives descriptors for."""
    wanted = 4 * settings.max_queue + 256
    if sys.platform == "win32":
        return wanted
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - _DESCRIPTORS), 1)


class _Workers(Multiprocess):
    """uvicorn's processes.

    The socket is closed here, too, when they are told to stop: while it is open in one process the system goes on
    queueing connections, which nobody accepts.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.died_too_often = False
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)

    def init_processes(self) -> None:
        """Start all."""
        super().init_processes()
        self._leave_pipes_to_workers()

    def _leave_pipes_to_workers(self) -> None:
        """While their end of the pipe is open here, too, one that is killed when it is asked whether it is alive would
        be waited for: a minute."""
        for process in self.processes:
            process.child_conn.close()

    def keep_subprocess_alive(self) -> None:
        """Start again what has died, but not for ever."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        self._leave_pipes_to_workers()
        for process in set(before) - set(self.processes):
            logger.warning(f"worker {process.pid} ended (exit code {process.exitcode}); another one is started")
            forget_process(process.pid)
            self._deaths.append(time.monotonic())
        if len(self._deaths) == _MOST_DEATHS and self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS:
            self.died_too_often = True
            self.should_exit.set()

    def terminate_all(self) -> None:
        """Tell all to stop."""
        super().terminate_all()
        for one in self.sockets:
            one.close()


class HttpProtocol(H11Protocol):
    """uvicorn's protocol, whose errors are JSON, and which bounds what uvicorn itself leaves open for ever: connections
    (503 for more than ``most_connections``), the time for the head of a request, and for the body of one that was
    answered without it (``HEADER_SECONDS``), and the time for a client to read its answer (``settings.timeout``).

    Args:
        settings: of the service; the others are uvicorn's.
    """

    def __init__(self, *arguments: Any, settings: ServiceSettings, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._settings = settings
        self._request_is_due: asyncio.TimerHandle | None = None
        self._reading_is_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """The head of the first request is due."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that writing is paused while anything is unsent
        if len(self.connections) > most_connections(self._settings):
            self._refuse(503, "Service Unavailable", "there are too many connections; try again in a second")
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or the beginning of the next one, whose head is then due."""
        super().data_received(data)
        self._watch_request()

    def pause_writing(self) -> None:
        """The system takes no more of the answer, since the client does not read."""
        super().pause_writing()
        self._reading_is_due = self.loop.call_later(self._settings.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """All is sent."""
        super().resume_writing()
        _cancel(self._reading_is_due)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        _cancel(self._request_is_due)
        _cancel(self._reading_is_due)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """A request that is not HTTP."""
        self._refuse(400, "Bad Request", msg.rstrip("."))

    def _waits(self) -> bool:
        """Whether all was answered, and what comes next is a request, or the rest of one that nobody will read."""
        answered = self.cycle is not None and self.cycle.response_complete
        state = self.conn.their_state
        return not self.transport.is_closing() and (state is h11.IDLE or (answered and state is h11.SEND_BODY))

    def _watch_request(self) -> None:
        if not self._waits():
            _cancel(self._request_is_due)
            self._request_is_due = None
        elif self._request_is_due is None:
            self._request_is_due = self.loop.call_later(HEADER_SECONDS, self._on_request_too_late)

    def _on_request_too_late(self) -> None:
        self._request_is_due = None
        if self._waits():
            self._refuse(408, "Request Timeout", f"no request arrived within {HEADER_SECONDS:g} s")

    def _refuse(self, status: int, reason: str, message: str) -> None:
        self.app_state["metrics"].requests.labels("other", status).inc()
        body = json.dumps({"error": message})
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode("ascii"))
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _filter_logs() -> None:
    """In each process; the same filter is added once."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    logging.getLogger("asyncio").addFilter(_NO_DESCRIPTORS)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A second Ctrl-C cancels requests and lifespan, which is no error of theirs; of the lifespan the traceback is the
    message."""
    is_raised = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not is_raised and "CancelledError" not in record.getMessage()


class _NoDescriptors(logging.Filter):
    """Without descriptors asyncio says so for each connection that waits, every second, with a traceback: 400 MB a
    minute. One line a minute is enough."""

    _last = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be seen."""
        if not record.getMessage().startswith("socket.accept() out of system resource"):
            return True
        record.msg, record.args, record.exc_info = "error: no file descriptors are left; see ulimit -n", (), None
        is_new = time.monotonic() > self._last + 60
        self._last = time.monotonic() if is_new else self._last
        return is_new


_NO_DESCRIPTORS = _NoDescriptors()


def _application(paths: Sequence[Path], settings: ServiceSettings, samples: Sequence[Path]) -> Starlette:
    keep_freed_memory()
    _filter_logs()
    try:
        return create_app(open_models(paths, settings), settings, samples)
    except DetsegError as error:  # as if a file has gone since: uvicorn stops all, where it would try for ever
        logger.error(f"error: {error}")
        time.sleep(0.2)  # a thread answers uvicorn's ping, for whose answer it would wait for a minute
        os._exit(STARTUP_FAILURE)  # at once: that thread ends before the process would


def _listen(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
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
