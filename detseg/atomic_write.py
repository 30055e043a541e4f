"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


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
