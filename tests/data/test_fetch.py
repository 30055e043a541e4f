"""Files over the network: whole and right, or an error; the server is one of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from detseg.data import download as fetch_module
from detseg.data.download import RemoteFile, fetch
from detseg.errors import DataError
from tests.data.serving import Site, serve

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server without a certificate, which is trusted for the test."""
    monkeypatch.setattr(fetch_module, "_SCHEMES", {"http"})
    with serve(Site({"/a.tar": CONTENT})) as running:
        yield running


def remote(site: Site, content: bytes = CONTENT, path: str = "/a.tar") -> RemoteFile:
    return RemoteFile(site.address + path, len(content), hashlib.sha256(content).hexdigest())


def test_a_file_is_fetched_once(tmp_path: Path, site: Site) -> None:
    path = tmp_path / "new" / "a.tar"
    fetch(remote(site), path)
    fetch(remote(site), path)
    assert path.read_bytes() == CONTENT
    assert site.asked == [("/a.tar", None)]
    assert [file.name for file in path.parent.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("knows_parts", [True, False])
def test_what_a_broken_connection_left_is_gone_on_from(tmp_path: Path, site: Site, knows_parts: bool) -> None:
    path = tmp_path / "a.tar"
    site.breaks_after, site.knows_parts = 1000, knows_parts
    with pytest.raises(DataError, match="the connection ended after 1000 of 10240 bytes; call again to go on"):
        fetch(remote(site), path)
    assert not path.exists()
    site.breaks_after = None
    fetch(remote(site), path)
    assert path.read_bytes() == CONTENT
    assert [part for _, part in site.asked] == [None, "bytes=1000-"]


def test_another_file_of_the_same_size_is_deleted(tmp_path: Path, site: Site) -> None:
    site.files["/a.tar"] = CONTENT[::-1]
    with pytest.raises(DataError, match=r"SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}; what came was deleted"):
        fetch(remote(site), tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_the_size_is_taken(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["/a.tar"] = bytes(50_000_000)
    taken: list[int] = []
    copy = fetch_module._copy

    def counting(response: object, file: object, wanted: RemoteFile, done: int) -> None:
        copy(response, file, wanted, done)  # type: ignore[arg-type]  # the types of http.client
        taken.append(file.tell())  # type: ignore[attr-defined]  # an open file

    monkeypatch.setattr(fetch_module, "_copy", counting)
    with pytest.raises(DataError, match="the file has at least 10241 bytes, expected 10240; what came was deleted"):
        fetch(remote(site), tmp_path / "a.tar")
    assert taken == [len(CONTENT) + 1]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_that_lies_there_is_named_and_kept(tmp_path: Path, site: Site) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.tar: the file has 4 bytes, expected 10240, so it was not opened; delete"):
        fetch(remote(site), path)
    assert path.read_bytes() == b"mine"
    assert site.asked == []


def test_a_missing_file_and_a_missing_server(tmp_path: Path, site: Site) -> None:
    with pytest.raises(DataError, match="HTTP Error 404"):
        fetch(remote(site, path="/b.tar"), tmp_path / "b.tar")
    nobody = RemoteFile("http://127.0.0.1:9/a.tar", 1, "0" * 64)  # the port of discard, where nobody listens
    with pytest.raises(DataError, match="refused"):
        fetch(nobody, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_addresses_without_encryption_are_refused(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.sent_on["/old.tar"] = "ftp://127.0.0.1/a.tar"
    with pytest.raises(
        DataError, match=r"the server sends on to 'ftp://127\.0\.0\.1/a\.tar', which is no https address"
    ):
        fetch(remote(site, path="/old.tar"), tmp_path / "a.tar")
    monkeypatch.setattr(fetch_module, "_SCHEMES", {"https"})
    with pytest.raises(DataError, match="expected an https address, got http://127"):
        fetch(remote(site), tmp_path / "a.tar")
    assert [path for path, _ in site.asked] == ["/old.tar"]
