"""What a layout is, and how names say which split they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detseg.data.images.find import is_called_images, split_of, split_words
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.messages import counted, listed, shown

Need = Literal["boxes", "outlines", "maps"]
"""What a model learns from: boxes, boxes and outlines of objects, or the class of each pixel."""

SPLITS = ("train", "val", "test")
NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"  # in a text file, as a regular expression
WHOLE = {"train_split": "."}  # of layouts whose annotation files may lie in any folder


@dataclass(frozen=True)
class Layout:
    """One way to read a folder.

    Attributes:
        name: of the layout, for ``data.name``.
        what: the same in words.
        settings: other settings of the ``data`` section, but ``root``.
        has: what a model can learn from it.
        counts: images of each split that there is; None where they are not counted.
        classes: the names, where files list them.
        notes: what is unusual, a line each.
    """

    name: str
    what: str
    settings: dict[str, Any]
    has: frozenset[Need]
    counts: dict[str, int | None]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def kinds_of(boxes: bool, outlines: bool) -> frozenset[Need]:
    """What a model learns from boxes or outlines."""
    found: list[Need] = ["boxes"] if boxes else []
    if outlines:
        found += ["outlines", "maps"]
    return frozenset(found)


def named_splits(tree: Tree, folders: Sequence[str]) -> dict[str, tuple[str, int]]:
    """The splits among folders that are named as such: split → folder and its images."""
    found: dict[str, tuple[str, int]] = {}
    # train before trainval, images/train before others
    order = sorted(folders, key=lambda f: (len(split_words(f.rpartition("/")[2])), not is_called_images(f)))
    for folder in order:
        split = split_of(folder.rpartition("/")[2])
        if split is not None and split not in found:
            found[split] = folder, tree.num_images(folder)
    return {split: found[split] for split in SPLITS if split in found}


def listed_splits(tree: Tree, fits: Callable[[str], bool]) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """The splits that text files in the root, or in a folder of it, list (``train.txt``, ``val.txt``): split → file and
    its lines; and a note of such files whose first line is nothing that a reader finds, as ``fits`` says."""
    found, notes = dict[str, tuple[str, int]](), list[str]()
    for name in [
        f"{folder}/{file}".lstrip("/") for folder in tree.files if "/" not in folder for file in tree.files[folder]
    ]:
        stem, suffix = os.path.splitext(name.rpartition("/")[2])
        split, lines = split_of(stem), text_lines(tree, name) if suffix == ".txt" else ()
        if split is None or split in found or not lines or re.fullmatch(rf"\d+(\s+{NUMBER}){{4,}}", lines[0]):
            continue  # a label file of YOLO may be called so
        if fits(lines[0]):
            found[split] = name, num_lines(tree, name)
        else:
            what = f"its first line, {shown(lines[0])}, is no path of an image below {tree.root}; write such paths"
            notes.append(f"{name} is not taken as the list of a split: {what}")
    return {split: found[split] for split in SPLITS if split in found}, notes


def not_taken(tree: Tree, taken: Iterable[str]) -> list[str]:
    """A note of the folders whose images lie in none of those that are taken, and in none below them."""
    known, counts = [f"{folder}/".removeprefix("./") for folder in taken], dict[str, int]()
    for path in tree.paths(IMAGE_SUFFIXES):
        folder = path.rpartition("/")[0]
        if not any(f"{folder}/".startswith(start) for start in known):
            counts[folder] = counts.get(folder, 0) + 1
    found = [f"{folder or '.'} ({counted(number, 'image')})" for folder, number in counts.items()]
    return [f"folders with images that belong to no split: {listed(found)}"] if found else []


def other_as_train(splits: dict[str, tuple[str, int]]) -> str:
    """Make the validation split, else the test split, the one to train on; the note that says so."""
    split = "val" if "val" in splits else "test"
    splits["train"] = splits.pop(split)
    return f"nothing is called train: {splits['train'][0]} is taken to train on"


def is_image(tree: Tree, line: str, stems: Container[str] = ()) -> bool:
    """Whether a line of a list is the path of an image in the tree or its name, or begins with one in a column; or is a
    name that annotations have."""
    for text in dict.fromkeys((line, line.split()[0])):
        folder, _, name = text.removeprefix("./").rpartition("/")
        if name in tree.files.get(folder, ()) or (not folder and name in tree.folders_of_name):
            return True
        if text in stems or os.path.splitext(text)[0] in stems:
            return True
    return False


def num_lines(tree: Tree, path: str, known: Container[str] = ()) -> int:
    """Lines of a list that are neither empty nor comments, which names in ``known`` may look like."""
    lines = (line.strip() for line in tree.begin(path, 1 << 26).splitlines())
    return sum(1 for line in lines if line and (line[0] != "#" or line in known))


def text_lines(tree: Tree, path: str) -> tuple[str, ...]:
    """The lines at the beginning of a file that are not empty."""
    return tuple(line.strip() for line in tree.begin(path).splitlines() if line.strip())
