"""A web server on this machine for tests of downloads, with the manners of good and of bad ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Site:
    """What a server gives and has been asked.

    Attributes:
        files: content by path.
        sent_on: address by path, for redirects.
        knows_parts: whether it answers a ``Range``.
        breaks_after: bytes of content after which it hangs up while it has promised more; None: never.
        asked: the path and the ``Range`` of each request.
        address: of the server.
    """

    files: dict[str, bytes]
    sent_on: dict[str, str] = field(default_factory=dict)
    knows_parts: bool = True
    breaks_after: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Runs the server on a free port of the loopback device."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, part = urlsplit(self.path).path, self.headers.get("Range")
            site.asked.append((wanted, part))
            if wanted in site.sent_on:
                self.send_response(302)
                self.send_header("Location", site.sent_on[wanted])
                self.end_headers()
                return
            if wanted not in site.files:
                self.send_error(404)
                return
            content = site.files[wanted]
            start = int(part.removeprefix("bytes=").rstrip("-")) if part and site.knows_parts else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = None if site.breaks_after is None else start + site.breaks_after
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
