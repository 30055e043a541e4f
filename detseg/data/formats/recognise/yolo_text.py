"""YOLO text: what describes the set, where its label files lie, and which folders and lists are its splits."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from detseg.data.formats.recognise.layout import (
    NUMBER,
    SPLITS,
    Layout,
    is_image,
    kinds_of,
    listed_splits,
    named_splits,
    not_taken,
    num_lines,
    other_as_train,
)
from detseg.data.formats.yolo import LABEL_FOLDERS, YoloFiles, read_yolo_files
from detseg.data.formats.yolo_writer import label_folder
from detseg.data.images.find import is_made, split_of, split_words
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed

_BOX = re.compile(rf"\d+(?:\s+{NUMBER}){{4,}}")


def _is_box(line: str, classes: Sequence[str]) -> bool:
    """Whether a line is one of a label file; with the name of a class for its number, too, of which the reader says
    that it is wrong."""
    name = next((name for name in classes if line.startswith(f"{name} ")), None)
    return _BOX.fullmatch(line if name is None else f"0{line[len(name) :]}") is not None


def yolo_text(tree: Tree) -> Layout | None:
    """YOLO text."""
    if not tree.num_images():
        return None
    layout, wrong = YoloFiles(tree.root), None
    try:
        layout = read_yolo_files(tree.root)
    except DataError as error:
        wrong = error
    classes = tuple((layout.names or {}).values())
    if not _has_label_files(tree, layout, classes, wrong is not None):
        return None
    if wrong is not None:
        raise wrong
    folders = [f for f in tree.files if f.rpartition("/")[2] not in ("labels", "images") and not is_made(f)]
    named = {
        split: (folder.removeprefix("images/"), n) for split, (folder, n) in named_splits(tree, folders).items() if n
    }
    settings, counts, notes, absent = dict[str, Any](), dict[str, int | None](), list[str](), list[str]()
    for key, places in layout.splits.items():
        split = split_of(key)
        if split is None or split in counts:
            continue
        numbers = [_num_listed(tree, place) for place in places]
        number = sum(n or 0 for n in numbers) or named.get(split, ("", 0))[1] or None
        if number or split == "train":
            settings[f"{split}_split"] = key
            counts[split] = number
        else:
            absent.append(f"{key} ({listed(places)})")
    if "train" not in counts and settings:
        split = "val" if "val" in counts else "test"
        settings["train_split"], counts["train"] = settings.pop(f"{split}_split"), counts.pop(split)
        notes.append(f"{layout.file.name} names no train: {settings['train_split']} is taken to train on")
    if "train" not in counts:
        lists, more = listed_splits(tree, lambda line: _num_listed(tree, line) is not None or is_image(tree, line))
        notes += more
        splits = named | lists
        if splits and "train" not in splits:
            notes += _rest_to_train_on(tree, splits)
        settings, counts = {f"{split}_split": name for split, (name, _) in splits.items()}, dict[str, int | None]()
        counts |= {split: number for split, (_, number) in splits.items()}
    if "train" not in counts:
        settings, counts = {"train_split": "."}, {"train": tree.num_images()}
    else:
        notes += _left_out(tree, layout, settings, counts)
    if not classes:
        notes.append("no file names the classes: write data.yaml with names: [...], or set data.classes")
    if absent:
        notes.append(f"left out, since there are no images of it: {listed(absent)} of {layout.file.name}")
    outlines = any(len(line.split()) > 6 for line in _first_lines(tree).values() if _is_box(line, classes))
    counts = {split: counts[split] for split in SPLITS if split in counts}
    return Layout("yolo", "YOLO text", settings, kinds_of(True, outlines), counts, classes, tuple(notes))


def _rest_to_train_on(tree: Tree, splits: dict[str, tuple[str, int]]) -> list[str]:
    """Add to splits, none of which is called train, the folders of the other images; else a note."""
    known = tuple(part for folder, _ in splits.values() for part in (f"{folder}/", f"images/{folder}/"))
    own = {path.rpartition("/")[0] for path in tree.paths(IMAGE_SUFFIXES)}
    rest = sorted(folder for folder in own if not f"{folder}/".startswith(known))
    if not rest or any(folder.endswith(".txt") for folder, _ in splits.values()):
        return [other_as_train(splits)]
    if "" in rest:
        return [f"nothing is called train: all images are taken to train on, those of {listed(list(splits))}, too"]
    splits["train"] = "+".join(rest), sum(tree.num_images(folder) for folder in rest)
    return []


def _has_label_files(tree: Tree, layout: YoloFiles, classes: Sequence[str], wrong: bool) -> bool:
    """Whether some text files hold boxes: anywhere if a file describes the set, else in folders ``labels``; or are all
    empty, where no image of a set has an object."""
    lines = _first_lines(tree)
    boxes = [path for path, line in lines.items() if _is_box(line, classes)]
    described = wrong or layout.names is not None or bool(layout.splits)
    near = any(_is_near(path) or _is_beside(tree, path) for path in boxes)
    labels = [line for path, line in lines.items() if "labels" in path.split("/")[:-1]]
    all_empty = bool(layout.splits and labels) and not any(labels)
    return all_empty or bool(boxes and (described or near))


def _is_near(path: str) -> bool:
    """Whether a file lies in a folder labels of the root or of a split."""
    found = re.match(r"([^/]*/)?labels/[^/]*(/[^/]*)?$", path)
    return found is not None and (found[1] is None or split_of(found[1]) is not None)


def _is_beside(tree: Tree, path: str) -> bool:
    """Whether a file lies in the folder of a split, beside an image of its name."""
    folder, _, name = path.rpartition("/")
    top, stem = folder.partition("/")[0], os.path.splitext(name)[0]
    return split_of(top) is not None and folder in tree.folders_of_name.get(stem, ())


def _left_out(tree: Tree, layout: YoloFiles, settings: dict[str, Any], counts: dict[str, int | None]) -> list[str]:
    """Take validation and test splits without a label file out of settings and counts; notes of these, and of the
    folders of images that no split names."""
    texts, notes, taken = dict[str, list[str]](), list[str](), list[str]()
    for path in tree.paths({".txt"}):
        texts.setdefault(os.path.splitext(path)[0].rpartition("/")[2], []).append(path.rpartition("/")[0])
    for split in list(counts):
        key = settings[f"{split}_split"]
        places = [found for place in layout.splits.get(key, [key]) if (found := _folder_of(tree, place)) is not None]
        taken += places
        images = [path for place in places for path in tree.paths(IMAGE_SUFFIXES, place)]
        if images and split != "train" and not any(_has_label_file(path, split, texts) for path in images):
            notes.append(f"{split}: left out, as none of its {counted(len(images), 'image')} has a label file")
            del counts[split], settings[f"{split}_split"]
    is_whole = len(taken) >= len(counts)  # else some splits are lists of files
    return notes + (not_taken(tree, taken) if is_whole else [])


def _has_label_file(image: str, split: str, texts: Mapping[str, Sequence[str]]) -> bool:
    """Whether an image of a split has a label file. ``texts``: the folders of text files, by their names."""
    folder, _, name = image.rpartition("/")
    usual = [folder, *(label_folder(folder, other) for other in LABEL_FOLDERS), f"labels/{folder}", f"{folder}/labels"]
    there = texts.get(os.path.splitext(name)[0], ())
    return any(place in usual or split_words(place) <= {split} for place in there)


def _folder_of(tree: Tree, place: str) -> str | None:
    """The folder that an entry of data.yaml, or the name of a split, means."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    ends = ["/".join(parts[first:]) for first in range(len(parts))]
    found = (path for end in ends for path in (end, f"images/{end}", f"{end}/images") if tree.num_images(path))
    return next(found, None)


def _first_lines(tree: Tree) -> dict[str, str]:
    """The first lines of some text files."""
    paths = list(tree.paths({".txt"}))
    some = paths[:: max(len(paths) // 200, 1)]
    return {path: tree.begin(path, 4096).strip().partition("\n")[0].strip() for path in some}


def _num_listed(tree: Tree, place: str) -> int | None:
    """The images at a place that may be written from another folder: its end counts."""
    parts = [part for part in place.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts or parts == [tree.root.name]:
        return tree.num_images()
    for first in range(len(parts)):
        path = "/".join(parts[first:])
        if path in tree.files:
            return tree.num_images(path)
        folder, _, name = path.rpartition("/")
        if name in tree.files.get(folder, ()):
            return num_lines(tree, path) if name.endswith(".txt") else 1
    return None
