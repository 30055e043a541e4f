"""Writes files so that what goes wrong is one line that names the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from detseg.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder where there is none.

    Raises:
        DataError: it could not be written.
    """
    write_file(path, lambda: path.write_text(text, encoding="utf-8"))


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is whole at any time; what is no UTF-8 is escaped.

    Raises:
        DataError: it could not be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    write_file(path, lambda: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))
    write_file(path, lambda: os.replace(partial, path))


def write_file(path: Path, write: Callable[[], object]) -> None:
    """Make the folder of a file and call what writes it.

    Raises:
        DataError: it could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: could not be written ({reason}); is there space, and the right to write?") from error
