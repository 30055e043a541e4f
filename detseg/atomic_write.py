"""Files that are written completely or not at all, and errors of writing that are one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from detseg.errors import ConfigError, DataError


@contextmanager
def atomic_write(path: Path, mode: str = "wb", *, previous: Path | None = None, **options: Any) -> Iterator[IO[Any]]:
    """A file beside ``path`` to write into, which is synced and renamed to ``path`` at the end.

    If writing fails or is interrupted, the file that was there before stays, and nothing is left beside it.

    Args:
        path: the file; an existing one is replaced, a missing folder is made.
        mode: ``wb`` or ``w``.
        previous: the new name of the file that was there before, so that the newest two are kept.
        options: of ``open``, such as ``encoding``.

    Raises:
        OSError: the disk refused (full, read-only, ...).
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # of a full disk: with the name, tools can say it in one line
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """The new names reach the disk, too."""
    with suppress(PermissionError):  # Windows does not open folders, and they need no sync there
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """A block that writes a file: makes its folder first, and turns what the system refuses into one line. DataError:
    the file could not be written (no space, no right to write, a file in the place of a folder, ...)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        is_taken = isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError)
        taken = "a file is where a folder must be, or a folder where a file; choose another place"
        hint = taken if is_taken else "is there space, and the right to write?"
        raise DataError(f"{path}: could not be written ({reason}); {hint}") from error


def check_writable(folder: Path, setting: str) -> None:
    """Raise a ConfigError, before hours of work, if a folder, which need not be there, cannot be written into.

    Args:
        folder: the folder.
        setting: that chose it.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):  # permissions do not tell: /proc, disks that are read-only
            pass
    except OSError:
        what = f"{there} is no folder that you may write into"
        raise ConfigError(f"{setting}: {folder}: {what}; choose another one") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, and its folder where there is none. DataError: it could not be written."""
    with write_errors(path):
        path.write_text(text, encoding="utf-8")
