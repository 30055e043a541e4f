"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file beside ``path`` to write into, which is synced and takes its name once that is done.

    Where the writing fails, or is interrupted, what was there before stays and nothing is left beside it.

    Args:
        path: the file; an existing one is replaced, a missing folder is made.
        mode: ``wb`` or ``w``.
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
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # of a full disk: with the name, tools can say it in one line
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
