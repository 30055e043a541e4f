"""The files of a folder, listed once, for what looks at their names in several ways."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from detseg.data.images.find import walk_folders
from detseg.data.images.read import IMAGE_SUFFIXES

PART_FILE = re.compile(r"splits_(.+_)?(train|val|test)\.(txt|xml)")
"""The names of lists and XML files that ``detseg split`` writes beside those of a set."""
_IN_FOLDER = re.compile(r"(split|data|(data_)?fold\d+|((fold\d+_)?(train|val)|test)(_\d+)?)\.(yaml|txt|json)")


def has_parts(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names is one that ``detseg split`` has written."""
    return not {"split.yaml", "fold1.yaml"}.isdisjoint(names)


def own_xml_files(root: Path) -> list[Path]:
    """The XML files in a folder, but for those that ``detseg split`` has written."""
    return sorted(path for path in root.glob("*.xml") if not PART_FILE.fullmatch(path.name))


class Tree:
    """The files of a folder, listed once. Paths are relative to it, with forward slashes; see `walk_folders`. What
    ``detseg split`` has written is left out, and named by ``parts``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, list[str]] = {}
        self.parts: list[str] = []
        for inside, _, files in walk_folders(root):
            relative = Path(inside).relative_to(root).as_posix()
            relative = "" if relative == "." else relative
            of_split = _IN_FOLDER if relative and has_parts(files) else PART_FILE
            parts = sorted(name for name in files if of_split.fullmatch(name))
            if of_split is _IN_FOLDER:
                self.parts.insert(0, relative)
            else:
                self.parts += [f"{relative}/{name}".lstrip("/") for name in parts]
            own = sorted(name for name in files if name not in parts)
            if own or not parts or not relative:
                self.files[relative] = own

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
