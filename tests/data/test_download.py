"""Downloads from a server of our own: whole and right, or an error of one line and nothing left."""

from __future__ import annotations

import hashlib
import io
import shutil
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import build_opener

import pytest

from detseg.data.download import VOC_ARCHIVES, Archive, download_voc, fetch, https_opener
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, write_voc


@dataclass
class Site:
    files: dict[str, bytes]  # content by path
    redirects: dict[str, str] = field(default_factory=dict)
    breaks_after: int | None = None  # bytes of content after which the connection ends
    asked: list[str] = field(default_factory=list)  # the paths of the requests that it has answered
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


CONTENT = bytes(range(256)) * 40
HTTP = build_opener()  # the server has no certificate


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with a file, and with an archive of one image for each of the real ones, under its name."""
    files = {"/a.tar": CONTENT}
    for year, lists in VOC_ARCHIVES.items():
        for name, archive in lists.items():
            folder, stem = tmp_path / "made" / year / name, f"{year}{name}"
            write_voc(folder, {name: stem}, {stem: annotation_xml(object_xml(("cat", 1, 1, 2, 2)))})
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                tar.add(folder, f"VOCdevkit/VOC{year}")
            files["/" + archive.url.split("/")[-1]] = stream.getvalue()
    with serve(Site(files)) as running:
        yield running


def remote(site: Site, path: str = "/a.tar", content: bytes = CONTENT) -> Archive:
    return Archive(site.address + path, len(content), hashlib.sha256(content).hexdigest())


def download(site: Site, root: Path, year: str) -> None:
    paths = {list_name: "/" + archive.url.split("/")[-1] for list_name, archive in VOC_ARCHIVES[year].items()}
    download_voc(root, year, {year: {name: remote(site, path, site.files[path]) for name, path in paths.items()}}, HTTP)


def test_archives_have_https_addresses_and_a_sha256_and_are_downloaded_once(tmp_path: Path, site: Site) -> None:
    assert [list(lists) for lists in VOC_ARCHIVES.values()] == [["trainval", "test"], ["trainval"]]
    for lists in VOC_ARCHIVES.values():
        assert all(archive.url.startswith("https://") and len(archive.sha256) == 64 for archive in lists.values())
    with ThreadPoolExecutor(4) as pool:  # each thread opens the lock file itself, as processes do
        list(pool.map(lambda _: download(site, tmp_path, "2007"), range(4)))
    assert site.asked == ["/VOCtrainval_06-Nov-2007.tar", "/VOCtest_06-Nov-2007.tar"]
    assert read_voc(tmp_path, "2007:test+2007:trainval").path(0).stem == "2007test"
    assert not list(tmp_path.glob(".*.unpacked"))


def test_a_download_that_failed_while_files_were_moved_is_completed(tmp_path: Path, site: Site) -> None:
    blocked = tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2012trainval.jpg"
    blocked.mkdir(parents=True)  # a file cannot take the place of a folder
    with pytest.raises(DataError, match="cannot download VOC 2012"):
        download(site, tmp_path, "2012")
    assert not (blocked.parents[1] / "ImageSets").exists()  # lists come last: they say that all is there
    blocked.rmdir()
    download(site, tmp_path, "2012")
    assert len(read_voc(tmp_path, "2012:trainval")) == 1


def test_an_error_says_where_the_data_should_be(tmp_path: Path, site: Site) -> None:
    archives = {"2012": {"trainval": remote(site, "/missing.tar")}}
    with pytest.raises(DataError, match=r"missing\.tar \(HTTP Error 404: Not Found\); download it elsewhere and save"):
        download_voc(tmp_path, "2012", archives, HTTP)
    with pytest.raises(DataError, match="VOC 2005 cannot be downloaded; expected one of the years 2007, 2012"):
        download_voc(tmp_path, "2005")


@pytest.mark.parametrize(
    ("given", "breaks_after", "message"),
    [
        (CONTENT, 1000, "expected 10240 bytes, got 1000; the download was deleted"),
        (CONTENT[::-1], None, r"expected the SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}; the download was deleted"),
        (bytes(50_000_000), None, "expected 10240 bytes, got more; the download was deleted"),
    ],
    ids=["broken connection", "same size", "too long"],
)
def test_wrong_downloads(given: bytes, breaks_after: int | None, message: str, tmp_path: Path, site: Site) -> None:
    site.files["/a.tar"], site.breaks_after = given, breaks_after
    with pytest.raises(DataError, match=message):
        fetch(remote(site), tmp_path / "a.tar", HTTP)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_file_that_is_there_is_used_or_named_and_kept(tmp_path: Path, site: Site) -> None:
    name = "VOCtrainval_11-May-2012.tar"
    (tmp_path / name).write_bytes(site.files[f"/{name}"])
    download(site, tmp_path / "VOCdevkit", "2012")  # a root that is the devkit
    assert len(read_voc(tmp_path, "2012:trainval")) == 1
    (tmp_path / "a.tar").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.tar: expected 10240 bytes, got 4; delete the file to download it again"):
        fetch(remote(site), tmp_path / "a.tar", HTTP)
    assert (tmp_path / "a.tar").read_bytes() == b"mine"
    assert site.asked == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_https_is_the_only_scheme(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    redirects = {"/to_http": f"{site.address}/a.tar", "/to_ftp": "ftp://127.0.0.1/a.tar", "/to_a": "/a.tar"}
    with serve(Site({"/a.tar": CONTENT}, redirects), certificate) as safe:
        fetch(remote(safe, "/to_a"), tmp_path / "a.tar", https_opener())
        assert (tmp_path / "a.tar").read_bytes() == CONTENT
        for address in (f"{safe.address}/to_http", f"{safe.address}/to_ftp", f"{site.address}/a.tar", "file:///a.tar"):
            with pytest.raises(URLError, match=r"unknown url type|is not allowed"):
                fetch(Archive(address, 1, ""), tmp_path / "b.tar", https_opener())
    assert site.asked == []
    assert not (tmp_path / "b.tar").exists()
