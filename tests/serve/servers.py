"""Services on free ports, in a thread, with models that answer as a test wants."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from uvicorn import Server

from detseg.serve.app import create_app
from detseg.serve.models import ServedModel
from detseg.serve.server import server_config
from detseg.serve.settings import ServiceSettings


@contextmanager
def running(
    models: Sequence[ServedModel],
    settings: ServiceSettings | None = None,
    samples: Sequence[Path] = (),
    send_buffer: int | None = None,
) -> Iterator[httpx.Client]:
    """A client of a service that is ready; when the block is left the service has answered all and ended.

    ``send_buffer``: bytes that the system takes of an answer before its client reads.
    """
    settings = settings or ServiceSettings()
    server = Server(server_config(create_app(models, settings, samples), settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                end = time.monotonic() + 60
                while client.get("/health").status_code != 200:
                    assert time.monotonic() < end
                    time.sleep(0.02)
                yield client
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def ask(client: httpx.Client, data: bytes, kind: str = "image/png", **query: Any) -> httpx.Response:
    """``POST /predict``."""
    return client.post("/predict", content=data, headers={"content-type": kind}, params=query)


def raw(client: httpx.Client, *sent: bytes) -> tuple[int, str]:
    """Status and body of what a service answers last to any bytes, sent with pauses, until it closes the connection."""
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=20) as connection:
        for part in sent:
            connection.sendall(part)
            time.sleep(0.1)
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    last = received.rpartition(b"HTTP/1.1 ")[2]
    head, _, body = last.partition(b"\r\n\r\n")
    return int(head.split()[0]), body.decode()
