"""Finds the images that sources stand for: files, folders, patterns, ZIP files, and addresses, if they are allowed.

Members of ZIP files and addresses are read into memory when it is their turn; nothing is unpacked onto the disk.
"""

from __future__ import annotations

import logging
import re
import time
import zlib
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Sequence, Set
from dataclasses import dataclass
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeAlias
from urllib import request
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from zipfile import BadZipFile, ZipFile, is_zipfile

from detseg.data.images.find import find_images
from detseg.data.images.read import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, ImageBytes, why_unread
from detseg.errors import ConfigError, DataError
from detseg.messages import counted, listed, one_line, printable, without_secrets

logger = logging.getLogger("detseg")

MAX_MEMBER_BYTES = 2**30
"""Of an image in a ZIP file, unpacked."""
MAX_DOWNLOAD_BYTES = 2**28
_TIMEOUT, _LONGEST = 20.0, 120.0  # seconds without a byte, and of a whole download
_CHUNK = 2**16
_SUFFIXES = IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_SAFE = "%/:=&?~+!$,;'@()*[]"  # stands for itself in a path or query, or is quoted already
_MAGIC = re.compile(r"[*?\[]")


class StoredImage(ABC):
    """An image that is no file of its own; as text it is what messages call it."""

    @abstractmethod
    def load(self, max_pixels: int) -> ImageBytes:
        """Its content; no more than ``max_pixels`` of it are decoded. DataError: it cannot be read."""


@dataclass(frozen=True)
class ZipMember(StoredImage):
    """An image in a ZIP file, which is open for reading."""

    archive: ZipFile
    name: str

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.name}"

    def load(self, max_pixels: int) -> ImageBytes:
        """See the base class. Its checksum is compared."""
        size = self.archive.getinfo(self.name).file_size
        if size > MAX_MEMBER_BYTES:
            what = f"would be {size} bytes unpacked, more than the {MAX_MEMBER_BYTES} that are read"
            raise DataError(f"{self}: {what}; if it is no decompression bomb, unpack the ZIP file")
        try:
            data = self.archive.read(self.name)  # never more than its size says
        except RuntimeError as error:  # encrypted, or a compression that Python does not know
            raise DataError(f"{self}: {one_line(error)}; unpack the ZIP file yourself") from error
        except (BadZipFile, OSError, EOFError, LZMAError, zlib.error) as error:
            raise DataError(f"{self}: the ZIP file is damaged here ({one_line(error)})") from error
        return ImageBytes(data, str(self), max_pixels, PurePosixPath(self.name).suffix)


@dataclass(frozen=True)
class ImageAddress(StoredImage):
    """An image on a web server, https or http; redirects lead to these alone."""

    url: str

    def __str__(self) -> str:
        return without_secrets(self.url)

    def load(self, max_pixels: int) -> ImageBytes:
        """See the base class."""
        opener = request.OpenerDirector()
        for handler in (
            *(request.ProxyHandler(), request.HTTPHandler(), request.HTTPSHandler(), request.HTTPRedirectHandler()),
            *(request.UnknownHandler(), request.HTTPErrorProcessor(), request.HTTPDefaultErrorHandler()),
        ):
            opener.add_handler(handler)
        data, end = bytearray(), time.monotonic() + _LONGEST
        try:
            with opener.open(_request(self.url), timeout=_TIMEOUT) as response:
                while chunk := response.read1(_CHUNK):
                    data += chunk
                    if len(data) > MAX_DOWNLOAD_BYTES:
                        raise ValueError(f"more than {MAX_DOWNLOAD_BYTES} bytes")
                    if time.monotonic() > end:
                        raise TimeoutError(f"not done after {_LONGEST:g} seconds")
        except (OSError, HTTPException, ValueError) as error:  # an error of urllib is an OSError
            raise DataError(f"{self}: could not be downloaded ({one_line(error)})") from error
        return ImageBytes(bytes(data), str(self), max_pixels, PurePosixPath(urlsplit(self.url).path).suffix)


Place: TypeAlias = Path | StoredImage
"""Where an image is read."""


def find_sources(
    sources: Sequence[Path | str], passed_over: list[Path] | None = None, allow_network: bool = False
) -> list[tuple[Place, Path]]:
    """The images that sources stand for, each with its name: the path relative to the folder, the fixed part of the
    pattern, or the ZIP file that it was found in.

    Sub-folders and links are followed as ``find_images`` does it. Files of folders, patterns and ZIP files whose names
    are those of images that cannot be read here are passed over with a warning, and added to ``passed_over``.

    Args:
        sources: files, folders, patterns (``photos/*/*.jpg``, ``**`` for folders of any depth; they match ZIP files,
            too), ZIP files, addresses.
        passed_over: gets what was passed over.
        allow_network: whether images may be downloaded from addresses.

    Raises:
        ConfigError: an address, and the network is not allowed.
        DataError: a source does not exist, cannot be read, or holds no images; a ZIP file has unsafe names.
    """
    found: list[tuple[Place, Path]] = []
    passed_over = [] if passed_over is None else passed_over
    for source in sources:
        path = Path(source)
        if _ADDRESS.match(str(source)):
            check_network(str(source), allow_network)
            found.append((ImageAddress(str(source)), _name_of(str(source))))
        elif path.is_file() and path.suffix.lower() == ".zip":
            found += _in_zip(path, passed_over)
        elif path.is_file():
            found.append((path, Path(path.name)))
        elif path.is_dir():
            images = find_images(path, suffixes=_SUFFIXES)
            found += _readable(path, [(path / name, name) for name in images], passed_over)
        elif is_pattern(source):
            found += _matches(path, passed_over)
        else:
            raise DataError(f"{path}: no such file or folder")
    if passed_over:
        logger.warning(_describe(passed_over))
    return found


def check_network(address: str, is_allowed: bool) -> None:
    """Raise a ConfigError for an address where the network is not allowed."""
    if not is_allowed:
        what = "is on the network, which is not used unless you allow it: --allow-network"
        raise ConfigError(f"{printable(without_secrets(address))}: {what}, or allow_network=True in Python")


def is_pattern(source: Path | str) -> bool:
    """Whether a source is a pattern; a file or folder that is called like one is none."""
    return _num_fixed(Path(source)) is not None


def _num_fixed(pattern: Path) -> int | None:
    """The number of parts before the first one with wildcards, unless a file or folder has that name; None: no such."""
    parts = pattern.parts
    magic = (i for i, part in enumerate(parts) if _MAGIC.search(part))
    return next((i for i in magic if not Path(*parts[: i + 1]).exists()), None)


def match_pattern(pattern: Path | str, suffixes: Set[str]) -> list[tuple[Path, Path]]:
    """The files that a pattern matches, whatever they are, and those with one of the ``suffixes`` below folders that it
    matches, hidden ones left out; each with its name, the path relative to the fixed part of the pattern. Sorted."""
    parts, fixed = Path(pattern).parts, _num_fixed(Path(pattern))
    folder, rest = Path(*parts[:fixed]), str(Path(*parts[fixed:]))
    found = dict[Path, Path]()  # ** matches each folder below, too
    for path in folder.glob(rest):
        for one in [path / below for below in find_images(path, suffixes=suffixes)] if path.is_dir() else [path]:
            name = one.relative_to(folder)
            if all(part[0] != "." for part in name.parts):
                found[name] = one
    return [(found[name], name) for name in sorted(found)]


def _matches(pattern: Path, passed_over: list[Path]) -> list[tuple[Place, Path]]:
    """The images that a pattern matches; those of ZIP files are named as if these were folders."""
    matched = match_pattern(pattern, _SUFFIXES)
    archives = [(path, name) for path, name in matched if name.suffix.lower() == ".zip" and path.is_file()]
    images: list[tuple[Place, Path]] = [(path, name) for path, name in matched if name.suffix.lower() in _SUFFIXES]
    found = _readable(pattern, images, passed_over) if images or not archives else []
    for path, name in archives:
        found += [(place, name.with_suffix("") / inside) for place, inside in _in_zip(path, passed_over)]
    return found


def _in_zip(path: Path, passed_over: list[Path]) -> list[tuple[Place, Path]]:
    if not is_zipfile(path):
        raise DataError(f"{path}: is no ZIP file, or it is cut short")
    try:
        archive = ZipFile(path)
    except (BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as a ZIP file ({one_line(error)})") from error
    in_front = min((info.header_offset for info in archive.infolist()), default=0)
    if in_front:
        what = (
            f"its list of files leaves out the first {in_front} bytes: it is cut short after a ZIP file that is in it"
        )
        raise DataError(f"{path}: {what}, or something was put in front; pack it again")
    inside: list[tuple[Place, Path]] = []
    for name in sorted({info.filename for info in archive.infolist() if not info.is_dir()}):
        place = PurePosixPath(name.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or PureWindowsPath(name).drive:
            raise DataError(f"{path}: the name {printable(repr(name))} leads out of the ZIP file; pack it again")
        is_hidden = any(part[0] == "." or part == "__MACOSX" for part in place.parts)
        if not is_hidden and place.suffix.lower() in _SUFFIXES | {".zip"}:  # those within are passed over
            inside.append((ZipMember(archive, name), Path(place)))
    return _readable(path, inside, passed_over)


def _readable(source: Path, images: Sequence[tuple[Place, Path]], passed_over: list[Path]) -> list[tuple[Place, Path]]:
    """Those of a source that are read here, of which there must be one; the others are added to ``passed_over``."""
    inside = [
        (place, name) for place, name in images if name.suffix.lower() in IMAGE_SUFFIXES and why_unread(name) is None
    ]
    known = {name for _, name in inside}
    left = [Path(str(place)) for place, name in images if name not in known]
    if not inside:
        others = f"; {_describe(left)}" if left else ""
        raise DataError(f"{source}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){others}")
    passed_over += left
    return inside


def _describe(files: Sequence[Path]) -> str:
    """One line on image files that are not read: number, names, and what would read them, if anything here does."""
    reasons = dict.fromkeys(reason for path in files if (reason := why_unread(path)) is not None)
    needs = "".join(f"; some {reason}" for reason in reasons)
    names = listed([str(path) for path in files])
    return f"passed over, since they cannot be read: {counted(len(files), 'file')} ({names}){needs}"


def _request(url: str) -> request.Request:
    """What asks for an address, of which spaces and the like are quoted, and name and password sent (RFC 7617)."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    path, query = (quote(part, safe=_SAFE) for part in (parts.path, parts.query))
    wanted = request.Request(urlunsplit((parts.scheme, host, path, query, "")), headers={"User-Agent": "detseg"})
    if user:
        name, _, password = user.partition(":")
        login = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode("ascii")
        wanted.add_unredirected_header("Authorization", f"Basic {login}")  # another host does not get it
    return wanted


def _name_of(url: str) -> Path:
    """The last part of an address as the name of a file, with the suffix of an image."""
    name = re.sub(r"[^\w.-]+", "_", PurePosixPath(unquote(urlsplit(url).path)).name).lstrip(".") or "image"
    path = Path(name[-100:])
    return path if path.suffix.lower() in IMAGE_SUFFIXES else Path(f"{path}.jpg")
