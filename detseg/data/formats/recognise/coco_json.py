"""COCO JSON files: their splits and folders of images."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from detseg.data.annotations.classes import placeholders
from detseg.data.annotations.files import parse_json
from detseg.data.formats.coco import read_coco
from detseg.data.formats.recognise.layout import SPLITS, Layout, kinds_of
from detseg.data.images.find import WORDS, is_called_images, is_made, split_of, split_words, without_split
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import listed

_Id = int | float | str | None


class _Image(msgspec.Struct, gc=False):
    file_name: str


class _Category(msgspec.Struct):
    name: str
    id: _Id = None
    supercategory: Any = None


class _Object(msgspec.Struct, gc=False):
    category_id: _Id = None


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[msgspec.Raw]
    categories: list[_Category]


@dataclass(frozen=True)
class _CocoFile:
    path: str
    folder: str | None  # of its images; None: they are not there
    images: frozenset[str]  # with their folder
    classes: tuple[str, ...]
    boxes: bool
    outlines: bool
    also: tuple[str, ...] = ()  # other folders that hold images of these names and are no less near
    other_name: str = ""  # of an image that is there under another name than the stated one


def coco_json(tree: Tree) -> Layout | None:
    """COCO JSON; None: there is no file of boxes or outlines."""
    tops = {folder.partition("/")[0] for folders in tree.folders_of_name.values() for folder in folders}
    found = [
        file
        for path in tree.paths({".json"}, depth=2)
        if (path.count("/") < 2 or path.partition("/")[0] not in tops or split_of(path.partition("/")[0]))
        and (file := _coco_file(tree, path)) is not None
    ]
    if not found:
        for path in tree.paths({".json"}, depth=2):
            begin = tree.begin(path)
            if '"images"' in begin and '"file_name"' in begin and '"bbox"' in begin and '"categories"' not in begin:
                read_coco(tree.root, tree.root / path)  # says what is missing
        return None
    _refuse_wrong(tree, [file.path for file in found])
    notes = list[str]()
    splits = _splits(found, notes)
    notes += _splits_inside(tree, splits["train"][0])
    settings, taken = dict[str, Any](), [file for files in splits.values() for file in files]
    for split, files in splits.items():
        folders, paths = [file.folder or "." for file in files], [file.path for file in files]
        settings |= {f"{split}_images": folders if len(files) > 1 else folders[0]}
        settings |= {f"{split}_annotations": paths if len(files) > 1 else paths[0]}
    if odd := [file for file in taken if file.other_name]:
        settings["file_names"] = "relaxed"
        what = "not all images are at the names that the annotations give them; data.file_names=relaxed looks further"
        notes.append(f"{what} ({odd[0].other_name} in {odd[0].path})")
    if others := sorted(file.path for file in found if file not in taken):
        known = frozenset[str]().union(*(file.images for file in taken))
        more = any(file.images.isdisjoint(known) for file in found)
        join = "; lists as data.train_annotations and data.train_images join those that have other images"
        notes.append(f"other files, not taken: {listed(others)}{join if more else ''}")
    notes += [f"the images of {file.path} are not there" for file in taken if file.folder is None]
    for split, files in splits.items():
        for file in files:
            if file.also:
                what = f"{listed([f or '.' for f in file.also])} holds images of all these names, too"
                notes.append(
                    f"the images of {file.path} are taken from {file.folder}; {what}: choose by data.{split}_images"
                )
    train, all_train = splits["train"][0], splits["train"]
    has = kinds_of(any(file.boxes for file in all_train), any(file.outlines for file in all_train))
    counts: dict[str, int | None] = {split: sum(len(file.images) for file in files) for split, files in splits.items()}
    return Layout("coco", "COCO JSON", settings, has, counts, train.classes, tuple(notes))


def _splits(found: Sequence[_CocoFile], notes: list[str]) -> dict[str, list[_CocoFile]]:
    """The files of each split, several only of train: batches. ``notes`` gets what may not be meant."""
    by_split: dict[str | None, list[_CocoFile]] = {}
    for file in sorted(found, key=_rank):
        by_split.setdefault(_split_of_file(file.path), []).append(file)
    if "train" not in by_split:
        others_first = sorted(by_split, key=lambda split: (split is not None, split != "val"))
        by_split["train"] = by_split.pop(others_first[0])
        if others_first[0] is not None:
            notes.append(f"no file is called train: {by_split['train'][0].path} is taken to train on")
    train = by_split["train"][0]
    for files in by_split.values():  # of several folds the same one
        files.sort(key=lambda file: without_split(file.path, numbers=False) != without_split(train.path, numbers=False))
    splits = {split: by_split[split][:1] for split in SPLITS if split in by_split}
    for file in by_split["train"][1:]:  # batches, which are no splits
        if split_of(file.path) is None and all(_are_parts(file, other) for other in splits["train"]):
            splits["train"].append(file)
    return splits


def _splits_inside(tree: Tree, file: _CocoFile) -> list[str]:
    """A note where the images of one file lie in folders of several splits."""
    folders = {path.rpartition("/")[0] for path in file.images}
    if file.other_name:  # they are not where it says
        folders |= {folder for folder in tree.files if f"{folder}/".startswith(f"{file.folder}/".lstrip("/"))}
    inside = sorted({split for folder in folders for split in split_words(folder) if tree.num_images(folder)})
    what = f"{file.path} names images in folders of {listed(inside)}, all of which are taken"
    return [f"{what} as one split: write a file for each"] if len(inside) > 1 else []


def _rank(file: _CocoFile) -> tuple[object, ...]:
    """Of several files of a split the first is taken: train.json before train_copy.json."""
    stem = Path(file.path).stem.lower()
    is_plain, words = stem in WORDS, len(split_words(stem))  # before train_copy and trainval
    return file.folder is None, "instances" not in file.path, not is_plain, words, -len(file.images), file.path


def _refuse_wrong(tree: Tree, found: Sequence[str]) -> None:
    """A DataError if a file beside those that are found is called like a split that none of them has, and is no JSON,
    or seems to be of the same kind: another split would be taken for it."""
    there = {split_of(Path(path).stem) for path in found}
    for path in tree.paths({".json"}, depth=2):
        split = split_of(Path(path).stem)
        if split is None or split in there or path.rpartition("/")[0] not in {f.rpartition("/")[0] for f in found}:
            continue
        alike = any(without_split(path) == without_split(other) for other in found)
        try:
            parse_json(tree.root / path)
        except DataError:
            alike = True
        if alike:
            read_coco(tree.root, tree.root / path)  # says what is wrong, and where


def _are_parts(one: _CocoFile, other: _CocoFile) -> bool:
    """Whether two files have other images of the same classes."""
    return set(one.classes) == set(other.classes) and one.folder is not None and not one.images & other.images


def _coco_file(tree: Tree, path: str) -> _CocoFile | None:
    """What is in a file; None: it is no file of boxes or outlines. A DataError if it seems to be one and is no JSON."""
    begin = tree.begin(path)
    if '"annotations"' not in begin and '"images"' not in begin:
        return None
    try:
        content = msgspec.json.decode((tree.root / path).read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_Instances)
        entries = [msgspec.json.decode(entry) for entry in content.annotations[:100]]
        no_classes = _no_classes(content)
    except msgspec.ValidationError:  # JSON of another kind
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if '"images"' in begin and '"file_name"' in begin:
            read_coco(tree.root, tree.root / path)  # says what is wrong, and where
        return None
    boxes = any(isinstance(entry, dict) and entry.get("bbox") for entry in entries)
    outlines = any(isinstance(entry, dict) and entry.get("segmentation") for entry in entries)
    if not content.categories or (entries and not boxes and not outlines):
        return None
    stated = [image.file_name for image in content.images]
    names = [name.replace("\\", "/") for name in stated]
    step = max(len(names) // 20, 1)
    folders, other_name = _image_folders(tree, path, names[::step]), ""
    folder, also = next(iter(folders), None), folders[1:]
    if folder is not None and names != stated:
        other_name = next(name for name in stated if "\\" in name)
    if (relaxed := _relaxed_folder(tree, folder, names[::step])) is not None:
        (folder, other_name), also = relaxed, []
    classes = tuple(category.name for category in content.categories if category.id not in no_classes)
    images = frozenset(f"{folder}/{name}" for name in names)
    return _CocoFile(path, folder, images, classes, boxes or not entries, outlines, tuple(also), other_name)


def _relaxed_folder(tree: Tree, folder: str | None, names: Sequence[str]) -> tuple[str, str] | None:
    """The folder below which there are more images of the names than in the given one when their folders, case and
    Unicode form do not count, and a name that is not in it; None: there are not."""
    lost = [name for name in names if folder is None or not (tree.root / folder / name).is_file()]
    folded = _folded(tree) if lost else {}
    places = {name: folded.get(_fold(name), []) for name in names}
    found = [name for name in lost if len(places[name]) == 1]
    if not found:
        return None
    folders = [places[name][0] for name in names if len(places[name]) == 1]
    if len(folders) <= len(names) - len(lost):
        return None
    common = os.path.commonpath([f"/{folder}" for folder in folders])[1:]
    return common, found[0]


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name.rpartition("/")[2]).casefold()


def _folded(tree: Tree) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, folders in tree.folders_of_name.items():
        found.setdefault(_fold(name), []).extend(folders)
    return found


def _no_classes(content: _Instances) -> set[Any]:
    parents = [(category.id, category.name, category.supercategory) for category in content.categories]
    if not placeholders(parents, ()):
        return set()
    used = {msgspec.json.decode(entry, type=_Object).category_id for entry in content.annotations}
    return placeholders(parents, used)


def _image_folders(tree: Tree, path: str, names: Sequence[str]) -> list[str]:
    """The folder that the names are relative to, and others that would do as well; empty: there is none. If there is
    none with a file of the names, one with files of other suffixes.

    Names may be the same in several folders (numbers that begin at 0 in each split), so that of the folders with half
    of the names those count first that are not called as if they were made of images, and that lie beside or below the
    annotation file; then those whose path has the most words of its path, or images, and those with the most images.
    A folder in another one with more of the names is none.
    """
    hits: Counter[str] = Counter()
    if not any(name.rpartition("/")[2] in tree.folders_of_name for name in names):
        names = [os.path.splitext(name)[0] for name in names]
    for name in names:
        inside, _, base = name.rpartition("/")
        for folder in tree.folders_of_name.get(base, ()):
            if not inside or f"/{folder}".endswith(f"/{inside}"):
                hits[folder.removesuffix(inside).rstrip("/")] += 1
    own, words = path.rpartition("/")[0], _words(path)

    def is_near(folder: str) -> bool:
        return f"{folder}/".startswith(f"{own}/")

    def rank(folder: str) -> tuple[object, ...]:
        like, splits = len(_words(folder) & words) + is_called_images(folder), split_words(folder)
        is_other = (bool(splits) and splits.isdisjoint(split_words(path) or splits)) or is_made(folder)
        return hits[folder] * 2 < len(names), is_other, not is_near(folder), -like, -hits[folder]

    def lies_in_better(folder: str) -> bool:
        others = (other for other in hits if other != folder and f"{folder}/".startswith(f"{other}/".lstrip("/")))
        return any(hits[other] > hits[folder] and is_near(other) >= is_near(folder) for other in others)

    candidates = [folder for folder in hits if not lies_in_better(folder)]
    usual = {"images", "data"}
    ranked = sorted(candidates, key=lambda f: (*rank(f), f.rpartition("/")[2] not in usual, f.count("/"), f))
    if not ranked:
        return []
    first = ranked[0]
    of_split = split_words(path) | split_words(first)
    as_good = [f for f in ranked[1:] if hits[f] == hits[first] and is_near(f) == is_near(first) and not is_made(f)]
    return [first, *(folder for folder in as_good if split_words(folder) <= of_split)]


def _words(path: str) -> set[str]:
    """Words and numbers of a path; those that mean a split are one."""
    return {WORDS.get(word, word) for word in re.findall(r"[a-z]+|\d+", path.lower())}


def _split_of_file(path: str) -> str | None:
    """By its name, else by the nearest of its folders that names one."""
    found = (split_of(part) for part in [Path(path).stem, *reversed(path.split("/")[:-1])])
    return next((split for split in found if split is not None), None)
