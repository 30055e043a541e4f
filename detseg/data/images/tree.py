"""The files of a folder, listed once, for what looks at their names in several ways."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from detseg.data.images.find import walk_folders
from detseg.data.images.read import IMAGE_SUFFIXES


class Tree:
    """The files of a folder, listed once. Paths are relative to it, with forward slashes; see `walk_folders`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, list[str]] = {}
        for inside, _, files in walk_folders(root):
            relative = Path(inside).relative_to(root).as_posix()
            self.files["" if relative == "." else relative] = sorted(files)

    def paths(self, suffixes: Iterable[str], folder: str = "", depth: int = 99) -> Iterator[str]:
        """Files with one of the suffixes, at most ``depth`` folders below a folder."""
        start, wanted = len(folder) + 1 if folder else 0, set(suffixes)
        for place, names in self.files.items():
            if place == folder or (not folder and depth) or place.startswith(folder + "/"):
                rest = place[start:]
                if rest.count("/") + bool(rest) <= depth:
                    yield from (f"{place}/{n}".lstrip("/") for n in names if os.path.splitext(n)[1].lower() in wanted)

    def num_images(self, folder: str = "") -> int:
        """Images in and below a folder."""
        return sum(1 for _ in self.paths(IMAGE_SUFFIXES, folder))

    def begin(self, path: str, number: int = 1 << 16) -> str:
        """The beginning of a file as text, "" where it cannot be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(number).decode("utf-8-sig", errors="replace")
        except OSError:
            return ""

    @cached_property
    def folders_of_name(self) -> dict[str, list[str]]:
        """The folders in which images of a name lie; also of a name without its suffix."""
        found: dict[str, list[str]] = {}
        for path in self.paths(IMAGE_SUFFIXES):
            folder, _, name = path.rpartition("/")
            for key in (name, os.path.splitext(name)[0]):
                found.setdefault(key, []).append(folder)
        return found
