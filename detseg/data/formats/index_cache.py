"""Keeps the index of a large annotation file, so that it is made once and all processes share its memory.

An index is found by the bytes of the annotation file, not by its name or date, so it cannot be out of date.  It holds
nothing that depends on the images: whether they are there is looked up each time.

It lies in the user's folder for caches, or where the variable DETSEG_CACHE says; ``DETSEG_CACHE=off``: nowhere.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.model import PackedAnnotations
from detseg.data.annotations.regions import PackedRegions
from detseg.data.formats.array_file import PARTIAL, Arrays, read_arrays, write_arrays
from detseg.data.formats.file_digest import digest_of
from detseg.errors import DataError
from detseg.structures import ClassTable

VARIABLE = "DETSEG_CACHE"

FORMAT = 1
"""To be counted up when the same annotation file gives other arrays or another report."""

SMALLEST = 4 << 20
"""Bytes of an annotation file from which on an index is kept; smaller ones are read in a tenth of a second."""

LARGEST = 4 << 30
"""Bytes of all indices together; those that were not used for longest go first."""

_ABANDONED = 86_400
"""Seconds after which a file that somebody began to write is removed."""

_said = False
"""Whether this process has said that nothing can be kept."""


def cache_folder() -> Path | None:
    """Where indices lie; None: they are switched off."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "detseg"


class MappedAnnotations(PackedAnnotations):
    """Annotations whose arrays are a mapped file: what a process that is not forked is sent is the file's name."""

    file: Path

    def __reduce__(self) -> tuple[Any, ...]:
        if self.file.exists():
            return _opened, (self.file,)
        return _packed, ({field.name: getattr(self, field.name) for field in fields(self)},)


@dataclass(frozen=True)
class Index:
    """What is kept of a data set.

    Attributes:
        packed: the annotations.
        classes: the table of the labels.
        report: what is odd about them.
    """

    packed: PackedAnnotations
    classes: ClassTable
    report: DataReport


class IndexCache:
    """The place of one data set's index.

    Args:
        file: the annotation file.
        arguments: what else the index depends on.
    """

    def __init__(self, file: Path, *arguments: object) -> None:
        self._file = file
        self._arguments = arguments
        try:
            self._size = file.stat().st_size
            self._folder = cache_folder() if self._size >= SMALLEST else None
        except (OSError, RuntimeError):  # no such file; no home
            self._folder = None

    def find(self) -> Index | None:
        """The index, if there is one."""
        try:
            if self._folder is None or not any(self._folder.glob(f"{self._size}-*")):
                return None
            path = self._path(digest_of(self._file))
            if not path.exists():
                return None
        except OSError:
            return None
        try:
            found = _read(path)
            os.utime(path)
        except (OSError, ValueError):
            with suppress(OSError):
                path.unlink()
            return None
        return found

    def keep(self, index: Index, digest: str) -> Index:
        """Keep an index.

        Args:
            index: what was made.
            digest: of the bytes that it was made of.

        Returns:
            it, mapped; or as it is where it cannot be kept, which the report says once for all data sets.
        """
        global _said
        if self._folder is None:
            return index
        path = self._path(digest)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            arrays, content = _plain(index)
            write_arrays(path, arrays, {**content, "name": path.name})
            _tidy(self._folder, path)
            return _read(path, verify=False)
        except (OSError, ValueError) as error:
            if not _said:
                index.report.note(
                    f"{self._folder}: the index cannot be kept ({error}), so each start reads the annotation file; "
                    f"set {VARIABLE} to a folder that can be written, or to off"
                )
            _said = True
            return index

    def _path(self, digest: str) -> Path:
        assert self._folder is not None
        key = hashlib.sha256(repr((FORMAT, digest, self._arguments)).encode()).hexdigest()
        return self._folder / f"{self._size}-{key[:32]}.safetensors"


def _plain(index: Index) -> tuple[Arrays, dict[str, Any]]:
    arrays = {
        field.name: getattr(index.packed, field.name) for field in fields(PackedAnnotations) if field.name != "regions"
    }
    arrays["path_bytes"] = np.frombuffer(index.packed.path_bytes, dtype=np.uint8)
    if index.packed.regions is not None:
        arrays |= {
            f"regions.{field.name}": getattr(index.packed.regions, field.name) for field in fields(PackedRegions)
        }
    return arrays, {
        "names": list(index.classes.names),
        "source_ids": list(index.classes.source_ids),
        "report": index.report.to_dict(),
    }


def _read(path: Path, verify: bool = True) -> Index:
    arrays, content = read_arrays(path, verify)
    if content.get("name") != path.name:  # somebody has moved it: it is the index of another file
        raise ValueError("it has another name")
    try:
        packed = _mapped(path, arrays)
        classes = ClassTable(tuple(content["names"]), tuple(content["source_ids"]))
        return Index(packed, classes, DataReport.from_dict(content["report"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it holds something else") from error


def _mapped(path: Path, arrays: Arrays) -> MappedAnnotations:
    prefix = "regions."
    regions = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    columns: dict[str, Any] = {name: array for name, array in arrays.items() if not name.startswith(prefix)}
    columns["path_bytes"] = columns["path_bytes"].tobytes()
    packed = MappedAnnotations(**columns, regions=PackedRegions(**regions) if regions else None)
    object.__setattr__(packed, "file", path)
    return packed


def _opened(path: Path) -> PackedAnnotations:
    """In another process."""
    try:
        return _mapped(path, read_arrays(path, verify=False)[0])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the index has gone while it was used ({error}); start again") from None


def _packed(columns: dict[str, Any]) -> PackedAnnotations:
    return PackedAnnotations(**columns)


def _tidy(folder: Path, newest: Path) -> None:
    """Remove the indices that were not used for longest until the rest is small enough, and what nobody finished."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process tidies up, too; on Windows, a mapped file stays
            state = path.stat()
            if path.name.endswith(PARTIAL) and state.st_mtime < time.time() - _ABANDONED:
                path.unlink()
            elif path.suffix == ".safetensors" and path != newest:
                found.append((state.st_mtime, state.st_size, path))
    room = LARGEST - newest.stat().st_size
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0:
            with suppress(OSError):
                path.unlink()
