"""Finds the image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.errors import DataError
from detseg.messages import one_line


def find_images(
    folder: Path, skip: Callable[[os.DirEntry[str]], bool] = lambda entry: False
) -> tuple[list[Path], list[Path]]:
    """Find the image files in a folder and its sub-folders, without opening them.

    Links to folders are followed, but each folder is read once: at its own place if that lies below ``folder``, else
    through the first link in sorted order. A link to ``folder`` or to a folder above it is not followed.

    Args:
        folder: an existing folder.
        skip: says which files and folders are left out.

    Returns:
        Sorted paths relative to ``folder``: the files with one of ``IMAGE_SUFFIXES``; and the links that were not
        followed.

    Raises:
        DataError: a folder cannot be read.
    """
    seen = {str(parent) for parent in Path(os.path.realpath(folder)).parents}
    images: list[Path] = []
    repeated: list[Path] = []
    folders, links = [Path()], list[Path]()
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder / inside)
        if real in seen:
            repeated.append(inside)
            continue
        seen.add(real)
        try:
            for entry in os.scandir(folder / inside):
                if skip(entry):
                    continue
                is_link = entry.is_symlink()
                if os.path.isdir(entry.path) if is_link else entry.is_dir():  # for a link to itself is_dir raises
                    (links if is_link else folders).append(inside / entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    images.append(inside / entry.name)
        except OSError as error:
            raise DataError(f"{folder / inside}: cannot read the folder: {one_line(error)}") from None
        links.sort()
    return sorted(images), sorted(repeated)
