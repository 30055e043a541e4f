"""How much a checkpoint may grow to when it is read: about what its file is large, whatever it says.

torch writes the records of its zip archives as they are, and reads compressed ones as well.  Plain data may hold the
same list in itself many times over, and a tensor may show one number as a million: small in the file and in memory,
until somebody walks through it or copies it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

_MOST_PIECES = 1_000_000
"""Ours have some ten thousand tensors, numbers and names."""
_MOST_GROWTH = 16
"""Tensors that share memory are counted each."""


def growing_archive(path: Path) -> str | None:
    """Why a zip archive would take more memory than its file is large, before torch reads it.

    Returns:
        The reason; None where it would not, or the file is no zip archive.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):  # the last of kinds of zip it cannot read
        return None  # torch reads it next, and says that it is damaged
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "it holds compressed records"
    total, size = sum(entry.file_size for entry in entries), path.stat().st_size
    return f"its records say {total} bytes, and the file has {size}" if total > size else None


def is_bounded(content: Any, path: Path) -> bool:
    """Whether what was read of a file can be walked through and copied in time and memory that fit the file.

    Args:
        content: tensors and plain data.
        path: the file.
    """
    most_bytes = _MOST_GROWTH * path.stat().st_size
    pieces, size, left = 1, 0, [content]
    while left:
        match left.pop():
            case Tensor() as tensor:
                size += tensor.numel() * tensor.element_size()
            case Mapping() as mapping:
                pieces += 2 * len(mapping)
                left += [*mapping.keys(), *mapping.values()]
            case list() | tuple() | set() | frozenset() as items:
                pieces += len(items)
                left += items
        if pieces > _MOST_PIECES or size > most_bytes:
            return False
    return True
