"""A web server on this machine, for tests of downloads."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Site:
    """The content of a server by path, its redirects, and the paths of the requests that it has answered."""

    files: dict[str, bytes]
    redirects: dict[str, str] = field(default_factory=dict)
    breaks_after: int | None = None  # bytes of content after which the connection ends
    asked: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(site: Site, certificate: Path | None = None) -> Iterator[Site]:
    """Run the server on a free port of the loopback device; over https with a certificate (a file that has its key)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            content, target = site.files.get(self.path, b""), site.redirects.get(self.path)
            self.send_response(302 if target else 200 if content else 404)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(content[: site.breaks_after])

        def log_message(self, format: str, *args: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    site.address = f"{'http' if certificate is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
