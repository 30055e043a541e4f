"""Finds the image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.errors import DataError
from detseg.messages import one_line


def find_images(folder: Path, skip: Callable[[str], bool] = lambda path: False) -> list[Path]:
    """Sorted paths, relative to ``folder``, of the files below it with one of ``IMAGE_SUFFIXES``, which are not opened;
    without files and folders whose path ``skip`` says. A DataError if a folder cannot be read.

    Links to folders are followed, but each folder is read once: at its own place if that lies below ``folder``, else
    through the first link that is met; ``folder`` and those above it through none.
    """

    def cannot_read(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot read the folder: {one_line(error)}") from None

    top, seen = Path(os.path.realpath(folder)), set[Path]()
    images: list[Path] = []
    for inside, folders, files in os.walk(folder, onerror=cannot_read, followlinks=True):
        images += [Path(inside, name) for name in files if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
        followed = []
        for path in sorted(os.path.join(inside, name) for name in folders):
            if skip(path):
                continue
            real = Path(os.path.realpath(path))
            leads_back = os.path.islink(path) and (real.is_relative_to(top) or top.is_relative_to(real))
            if real not in seen and not leads_back:
                seen.add(real)
                followed.append(os.path.basename(path))
        folders[:] = followed  # os.walk reads these next
    return sorted(path.relative_to(folder) for path in images if not skip(str(path)))
