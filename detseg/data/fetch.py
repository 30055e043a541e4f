"""Fetches one file of known size and SHA-256 over https: the right file lies there afterwards, or an error says why."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from detseg.errors import DataError, one_line

_SCHEMES = {"https"}
_TIMEOUT = 60.0
"""Seconds without a byte after which the server is given up."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and what it must be.

    Attributes:
        url: its https address.
        size: bytes; no more are taken.
        sha256: 64 hexadecimal digits.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return urlsplit(self.url).path.rpartition("/")[2]


def fetch(remote: RemoteFile, path: Path) -> None:
    """Have a file: the one that lies there, checked, or a download.

    What has come is kept in ``<path>.partial`` when the connection breaks; the next call goes on behind it.

    Args:
        remote: what to fetch.
        path: where to have it; the folder is made.

    Raises:
        DataError: the file that lies there is another one; or the download failed, or gave another file.
    """
    if path.exists():
        if (reason := _difference(path, remote)) is not None:
            raise DataError(f"{path}: {reason}, so it was not opened; delete it, and it is fetched from {remote.url}")
        return
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not partial.exists() or partial.stat().st_size < remote.size:
            _download(remote, partial)
        if (reason := _difference(partial, remote)) is not None:
            partial.unlink()
            raise DataError(f"{reason}; what came was deleted")
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(_reason(error)) from None


def _download(remote: RemoteFile, partial: Path) -> None:
    """Append to a partial file what it lacks; from the beginning where the server cannot give a part."""
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "detseg", "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    if urlsplit(remote.url).scheme not in _SCHEMES:
        raise DataError(f"expected an https address, got {remote.url}")
    opener = urllib.request.build_opener(_SafeRedirects)
    with opener.open(urllib.request.Request(remote.url, headers=headers), timeout=_TIMEOUT) as response:
        goes_on = response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {done}-")
        done = done if goes_on else 0
        with partial.open("ab" if goes_on else "wb") as file:
            _copy(response, file, remote, done)


def _copy(response: Any, file: IO[bytes], remote: RemoteFile, done: int) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(remote.name, total=remote.size, completed=done)
        while done <= remote.size and (chunk := response.read(min(_CHUNK, remote.size + 1 - done))):
            file.write(chunk)
            done += len(chunk)
            progress.update(bar, completed=done)
    if done < remote.size:
        raise DataError(f"the connection ended after {done} of {remote.size} bytes; call again to go on from there")


def _difference(path: Path, remote: RemoteFile) -> str | None:
    """Why a file is not the one wanted; None where it is."""
    size = path.stat().st_size
    if size != remote.size:
        more = "at least " if size > remote.size else ""
        return f"the file has {more}{size} bytes, expected {remote.size}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == remote.sha256 else f"the file's SHA-256 is {found}, expected {remote.sha256}"


def _reason(error: Exception) -> str:
    """What went wrong, without urllib's brackets around what lies under it."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else None
    return one_line(inner if isinstance(inner, Exception) else error)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Follows to other https addresses only."""
        if urlsplit(newurl).scheme not in _SCHEMES:
            raise DataError(f"the server sends on to {newurl!r}, which is no https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
