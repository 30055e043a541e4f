"""Downloads Pascal VOC from its authors' server: checks size and SHA-256, unpacks into a folder beside, then moves."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from urllib import request

from rich.progress import wrap_file

from detseg.data.formats.voc import find_year_folder
from detseg.errors import DataError
from detseg.messages import one_line, shown


class Archive(NamedTuple):
    """A tar archive on a server: its address, its exact size in bytes, and its SHA-256 in hexadecimal digits."""

    url: str
    size: int
    sha256: str


Archives = Mapping[str, Mapping[str, Archive]]  # year → list → the archive that holds it


def _archive(name: str, size: int, sha256: str) -> dict[str, Archive]:
    url = f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{name[-4:]}/VOC{name}.tar"
    return {name.partition("_")[0]: Archive(url, size, sha256)}


# Addresses: torchvision's VOCDetection. Sizes and SHA-256: tensorflow_datasets/url_checksums/voc.txt; the same SHA-256
# stand in torchvision/prototype/datasets/_builtin/voc.py. VOC 2012's test annotations are not public.
_TRAINVAL_2007 = "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508"
_TEST_2007 = "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892"
_TRAINVAL_2012 = "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"
VOC_ARCHIVES: Archives = {
    "2007": _archive("trainval_06-Nov-2007", 460_032_000, _TRAINVAL_2007)
    | _archive("test_06-Nov-2007", 451_020_800, _TEST_2007),
    "2012": _archive("trainval_11-May-2012", 1_999_639_040, _TRAINVAL_2012),
}


def https_opener() -> request.OpenerDirector:
    """An opener that supports no scheme but https, so that redirects to other schemes fail as well."""
    opener = request.OpenerDirector()
    handlers = (request.ProxyHandler(), request.HTTPSHandler(), request.HTTPRedirectHandler(), request.UnknownHandler())
    for handler in (*handlers, request.HTTPErrorProcessor(), request.HTTPDefaultErrorHandler()):
        opener.add_handler(handler)
    return opener


def download_voc(
    root: Path, year: str, archives: Archives = VOC_ARCHIVES, opener: request.OpenerDirector | None = None
) -> None:
    """Download a year of Pascal VOC, "2007" or "2012", if it is not there; a DataError if that fails. ``root`` is
    ``VOCdevkit`` or the folder that holds it, where archives are kept, or used. ``archives`` and ``opener`` say where
    to download from, and how; other ones in tests."""
    if year not in archives:
        raise DataError(f"VOC {year} cannot be downloaded; expected one of the years {', '.join(archives)}")
    parent = root.parent if root.name == "VOCdevkit" else root
    folder = parent / "VOCdevkit" / f"VOC{year}"
    for list_name, archive in archives[year].items():
        file = parent / archive.url.rpartition("/")[2]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _lock(parent / f".{file.name}.lock"):
                there = find_year_folder(root, year)
                if there is None or not (there / "ImageSets" / "Main" / f"{list_name}.txt").is_file():
                    fetch(archive, file, opener or https_opener())
                    _unpack_into(folder, file)
        except (OSError, HTTPException, DataError) as error:
            raise DataError(
                f"cannot download VOC {year} {list_name} from {archive.url} ({one_line(error)}); download it elsewhere "
                f"and save the archive as {file}, or its Annotations, ImageSets and JPEGImages in {folder}"
            ) from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock, which ends with the process: all processes of a training ask for the data."""
    with path.open("wb") as file:
        with suppress(ImportError):  # Windows, where trainings have one process
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(archive: Archive, path: Path, opener: request.OpenerDirector) -> None:
    """Download an archive to ``path`` if there is no such file, and check size and SHA-256 in either case. A DataError
    if the file is not the archive, an OSError or HTTPException if the download failed."""
    if path.exists():
        if problem := _difference(path, archive):
            raise DataError(f"{path}: {problem}; delete the file to download it again")
        return
    partial = path.with_name(f"{path.name}.partial")
    wanted = request.Request(archive.url, headers={"User-Agent": "detseg", "Accept-Encoding": "identity"})
    try:
        with (
            opener.open(wanted, timeout=60.0) as response,
            wrap_file(response, archive.size, description=path.name, transient=True) as reader,
            partial.open("wb") as file,
        ):
            missing = archive.size + 1  # one byte too many shows that the file is too long
            while chunk := reader.read(min(1 << 20, missing)):
                file.write(chunk)
                missing -= len(chunk)
        if problem := _difference(partial, archive):
            raise DataError(f"{problem}; the download was deleted")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _difference(path: Path, archive: Archive) -> str | None:
    size = path.stat().st_size
    if size != archive.size:
        return f"expected {archive.size} bytes, got {'more' if size > archive.size else size}"
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return None if sha256 == archive.sha256 else f"expected the SHA-256 {archive.sha256}, got {sha256}"


def _unpack_into(folder: Path, archive: Path) -> None:
    unpacked = archive.with_name(f".{archive.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    try:
        unpack_tar(archive, unpacked)
        source = unpacked / "VOCdevkit" / folder.name
        files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
        # A list means that its images are there, so lists come last.
        for path in sorted(files, key=lambda path: path.parts[0] == "ImageSets"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / path, folder / path)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack an uncompressed tar archive of files and folders; with anything else in it, a DataError and nothing."""
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar.getmembers():
                name = PureWindowsPath(member.name)  # knows drives and both slashes
                plain = (member.isreg() or member.isdir()) and not member.issparse()
                if not plain or name.anchor or ".." in name.parts:
                    raise tarfile.TarError(f"{shown(member.name)} is not a file or folder within the archive")
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, UnicodeError, ValueError, EOFError) as error:
        raise DataError(f"{archive}: not a tar archive that can be unpacked ({one_line(error)})") from None
