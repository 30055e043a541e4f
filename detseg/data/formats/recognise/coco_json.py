"""COCO JSON files: their splits and folders of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from detseg.data.formats.recognise.layout import SPLITS, Layout, kinds_of, split_of
from detseg.data.formats.recognise.masks import MASKS
from detseg.data.images.tree import Tree
from detseg.messages import listed


class _Image(msgspec.Struct, gc=False):
    file_name: str


class _Category(msgspec.Struct, gc=False):
    name: str


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[msgspec.Raw]
    categories: list[_Category]


@dataclass(frozen=True)
class _CocoFile:
    path: str
    folder: str | None  # of its images; None: they are not there
    num_images: int
    classes: tuple[str, ...]
    boxes: bool
    outlines: bool


def coco_json(tree: Tree) -> Layout | None:
    """COCO JSON; None: there is no file of boxes or outlines."""
    near = [
        path
        for path in tree.paths({".json"}, depth=1)
        if not path.startswith("splits/")  # of `detseg split`
        and ('"annotations"' in tree.begin(path) or '"images"' in tree.begin(path))
    ]
    found = [file for path in near if (file := _coco_file(tree, path)) is not None]
    if not found:
        return None
    by_split: dict[str | None, list[_CocoFile]] = {}
    for file in found:
        stem, folder = Path(file.path).stem, file.path.rpartition("/")[0].rpartition("/")[2]
        by_split.setdefault(split_of(stem) or split_of(folder), []).append(file)
    for files in by_split.values():  # instances_train.json before person_keypoints_train.json
        files.sort(key=lambda f: (f.folder is None, "instances" not in f.path, -f.num_images, f.path))
    if "train" not in by_split:
        others_first = sorted(by_split, key=lambda split: (split is not None, split != "val"))
        by_split["train"] = by_split.pop(others_first[0])
    splits = {split: by_split[split][0] for split in SPLITS if split in by_split}
    settings = dict[str, Any]()
    for split, file in splits.items():
        settings |= {f"{split}_images": file.folder or ".", f"{split}_annotations": file.path}
    others = [file.path for files in by_split.values() for file in files if file not in splits.values()]
    notes = [f"other files, not taken: {listed(sorted(others))}"] if others else []
    notes += [f"the images of {file.path} are not there" for file in splits.values() if file.folder is None]
    train = splits["train"]
    has = kinds_of(train.boxes, train.outlines)
    counts: dict[str, int | None] = {split: file.num_images for split, file in splits.items()}
    return Layout("coco", "COCO JSON", settings, has, counts, train.classes, tuple(notes))


def _coco_file(tree: Tree, path: str) -> _CocoFile | None:
    try:
        content = msgspec.json.decode((tree.root / path).read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_Instances)
        entries = [msgspec.json.decode(entry) for entry in content.annotations[:100]]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    boxes = any(isinstance(entry, dict) and entry.get("bbox") for entry in entries)
    outlines = any(isinstance(entry, dict) and entry.get("segmentation") for entry in entries)
    if not content.categories or (entries and not boxes and not outlines):
        return None
    names = [image.file_name.replace("\\", "/") for image in content.images]
    folder = _image_folder(tree, path, names[:: max(len(names) // 20, 1)])
    classes = tuple(category.name for category in content.categories)
    return _CocoFile(path, folder, len(names), classes, boxes or not entries, outlines)


def _image_folder(tree: Tree, path: str, names: Sequence[str]) -> str | None:
    """The folder that most of the names are relative to, of several the one that is named like the split or the nearest
    to the annotation file."""
    hits: Counter[str] = Counter()
    for name in names:
        inside, _, base = name.rpartition("/")
        for folder in tree.folders_of_name.get(base, ()):
            if not inside or f"/{folder}".endswith(f"/{inside}"):
                hits[folder.removesuffix(inside).rstrip("/")] += 1
    split, own = split_of(Path(path).stem), path.rpartition("/")[0]

    def rank(folder: str) -> tuple[object, ...]:
        last = folder.rpartition("/")[2]
        return -hits[folder], last in MASKS, split is None or split_of(folder) != split, folder != own, folder

    ranked = sorted(hits, key=rank)
    return ranked[0] if ranked else None
