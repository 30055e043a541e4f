"""Fetches Pascal VOC from its authors' server: archives of known SHA-256, unpacked aside and moved when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, Any
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from detseg.data.formats.voc import find_year_folder
from detseg.errors import DataError
from detseg.messages import one_line, printable

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


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack an uncompressed tar archive.

    Args:
        archive: the file.
        folder: where to; made if it is not there.

    Raises:
        DataError: it is no such archive, is damaged, holds what is not to be unpacked, or Python is too old for it.
        OSError: a file could not be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(f"{archive}: archives are unpacked by Python 3.11.4 or newer; update it, or unpack it yourself")
    try:
        with tarfile.open(archive, "r:") as tar:
            members = tar.getmembers()
            for member in members:
                _check(archive, member)
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, UnicodeError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive}: not a tar archive that can be unpacked ({one_line(error)})") from None


def _check(archive: Path, member: tarfile.TarInfo) -> None:
    """Refuse what is neither a plain file nor a folder, and names that lead elsewhere."""
    name = PureWindowsPath(member.name)  # knows drives and both slashes
    if name.drive or name.root or ".." in name.parts or not name.parts or "\0" in member.name:
        raise DataError(f"{archive}: the entry {printable(member.name)} leads out of the folder; nothing was unpacked")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise DataError(
            f"{archive}: the entry {printable(member.name)} is a link, a device or a sparse file, expected files and "
            "folders only; nothing was unpacked"
        )


_SERVER = "https://thor.robots.ox.ac.uk/pascal/VOC"

# Sizes and SHA-256: tensorflow/datasets, tensorflow_datasets/url_checksums/voc.txt.  The same SHA-256 stand in
# pytorch/vision, torchvision/prototype/datasets/_builtin/voc.py; the addresses are those of torchvision's VOCDetection.
VOC_ARCHIVES: dict[str, dict[str, RemoteFile]] = {
    "2007": {
        "trainval": RemoteFile(
            f"{_SERVER}/voc2007/VOCtrainval_06-Nov-2007.tar",
            460_032_000,
            "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
        ),
        "test": RemoteFile(
            f"{_SERVER}/voc2007/VOCtest_06-Nov-2007.tar",
            451_020_800,
            "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
        ),
    },
    "2012": {
        "trainval": RemoteFile(
            f"{_SERVER}/voc2012/VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
        ),
    },
}
"""Year → list → the archive that holds it; VOC 2012's test annotations were never published."""


def download_voc(root: Path | str, year: str) -> Path:
    """Fetch a year of Pascal VOC, unless it is there.

    The archives lie beside ``VOCdevkit`` and stay there; one that was put there by hand is taken instead of a download.

    Args:
        root: the folder that holds ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: "2007" (trainval and test) or "2012" (trainval).

    Returns:
        The folder of the year, with ``Annotations``, ``ImageSets`` and ``JPEGImages``.

    Raises:
        DataError: another year, or the download failed.
    """
    if year not in VOC_ARCHIVES:
        raise DataError(f"VOC {year} cannot be downloaded; expected one of the years {', '.join(VOC_ARCHIVES)}")
    root = Path(root)
    parent = root.parent if root.name == "VOCdevkit" else root
    expected = parent / "VOCdevkit" / f"VOC{year}"
    for list_name in VOC_ARCHIVES[year]:
        if not _is_there(root, year, list_name):
            _fetch(root, parent, year, list_name)
    return find_year_folder(root, year) or expected


def _is_there(root: Path, year: str, list_name: str) -> bool:
    folder = find_year_folder(root, year)
    return folder is not None and (folder / "ImageSets" / "Main" / f"{list_name}.txt").is_file()


def _fetch(root: Path, parent: Path, year: str, list_name: str) -> None:
    remote = VOC_ARCHIVES[year][list_name]
    archive = parent / remote.name
    expected = parent / "VOCdevkit" / f"VOC{year}"
    unpacked = parent / f".{remote.name}.unpacked"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(parent / f".{remote.name}.lock"):
            if _is_there(root, year, list_name):  # by another process of the run, while this one waited
                return
            fetch(remote, archive)
            shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
            try:
                unpack_tar(archive, unpacked)
                source = unpacked / "VOCdevkit" / f"VOC{year}"
                if not (source / "ImageSets" / "Main" / f"{list_name}.txt").is_file():
                    raise DataError(f"{archive}: holds no VOCdevkit/VOC{year} with the list {list_name}")
                _merge(source, expected)
            finally:
                shutil.rmtree(unpacked, ignore_errors=True)
    except (OSError, DataError) as error:
        raise DataError(
            f"cannot download VOC {year} {list_name} from {remote.url} ({one_line(error)}); fetch it elsewhere and put "
            f"the archive to {archive}, or its Annotations, ImageSets and JPEGImages into {expected}"
        ) from None


def _merge(source: Path, target: Path) -> None:
    """Move the files of a folder into another one that may hold some already, the lists last: they say that all is
    there."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.relative_to(source).parts[0] == "ImageSets"):
        wanted = target / path.relative_to(source)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, wanted)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process: each process of a run asks for the data."""
    try:
        import fcntl
    except ImportError:  # Windows; runs of several processes are not for it
        yield
        return
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
