"""What a kind of results (detections, label maps) has to say for a run over files."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from detseg.atomic_write import atomic_write, write_errors
from detseg.data.images.sources import Place, ZipMember

Entry: TypeAlias = dict[str, Any]
"""What the journal keeps of the result of one image: plain values, ready for JSON."""


@dataclass(frozen=True)
class ImageFile:
    """An image of a run.

    Attributes:
        number: its id in files of results, from 1, in the order of the run.
        path: where it is read.
        name: its path relative to the folder, or ZIP file, that it was found in, by which it is known in all that is
            written.
    """

    number: int
    path: Place
    name: Path

    @property
    def checksum(self) -> int | None:
        """CRC-32 of the file's bytes; None where it cannot be read, or would have to be downloaded."""
        if isinstance(self.path, ZipMember):
            return self.path.archive.getinfo(self.path.name).CRC
        return file_checksum(self.path) if isinstance(self.path, Path) else None


def file_checksum(path: Path) -> int | None:
    """CRC-32 of a file's bytes; None where it cannot be read."""
    checksum = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:
        return None
    return checksum


class ExistingFiles:
    """What becomes of files that people may have corrected, where there is one already.

    Args:
        stay: whether they stay, but for those that are as this run has written them; else they are replaced.

    Attributes:
        left: those that stayed, and differ from what would have been written; each once.
    """

    def __init__(self, stay: bool) -> None:
        self._stay = stay
        self._made: dict[Path, int] = {}
        self.left: dict[Path, None] = {}

    def has(self, path: Path, checksum: int) -> bool:
        """Whether a file that this run has written, with a CRC-32, is there and may stay."""
        self._made[path] = checksum
        return path.exists() if self._stay else file_checksum(path) == checksum

    def compare(self, path: Path, checksum: int) -> None:
        """Note a file that stayed though what would have been written has another CRC-32."""
        if self._stay and file_checksum(path) not in (None, checksum):
            self.left[path] = None

    @contextmanager
    def write(self, path: Path) -> Iterator[Path]:
        """A file beside ``path`` to write to, which takes its place at the end. DataError: it could not be written."""
        partial = path.with_name(f".partial.{path.name}")  # keeps the suffix
        try:
            with write_errors(path):
                partial.touch()
            yield partial
            with write_errors(path):
                if not self._stay or not path.exists() or file_checksum(path) == self._made.get(path, -1):
                    os.replace(partial, path)
                elif path.read_bytes() != partial.read_bytes():
                    self.left[path] = None
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


REPLACED = ExistingFiles(stay=False)


class Output(ABC):
    """The results of one kind.

    ``entry`` is called for each image when it is predicted, in any process; ``write`` once, with the entries of all
    images, so that the files do not depend on which process predicted what, nor when.
    """

    @abstractmethod
    def files(self, image: Path) -> list[Path]:
        """The files for one image, by its name. DataError: a format has no place for its name."""

    @abstractmethod
    def is_made(self, image: ImageFile, entry: Entry) -> bool:
        """Whether what was written with the result is there and may stay. Any of the errors of wrong values: the entry
        was changed by hand."""

    @abstractmethod
    def must_not_exist(self, images: Sequence[Path]) -> list[Path]:
        """Files that are replaced only on request, since a person may have made them."""

    @abstractmethod
    def entry(self, image: ImageFile, found: Any) -> Entry:
        """What the journal keeps; what it has no room for (label maps) is written now. DataError: it cannot be."""

    @abstractmethod
    def write(self, entries: Iterable[tuple[ImageFile, Entry]], also: Sequence[str] = ()) -> str:
        """Write all other files; returns what to tell the user, who has ``also`` got something else. DataError: a file
        could not be written."""


def remove_files(files: Iterable[Path]) -> None:
    """Remove those that are there. DataError: one cannot be."""
    for file in files:
        if file.exists():
            with write_errors(file):
                file.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all; names of files that are no UTF-8 stay as the system has them. DataError:
    it could not be written."""
    with write_errors(path), atomic_write(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
