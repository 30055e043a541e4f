"""Folders of images and of masks: which mask belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detseg.data.formats.recognise.layout import SPLITS, Layout, split_of, text_lines
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = ("masks", "mask", "SegmentationClass", "labels", "annotations", "gt", "gts", "segmentations")


@dataclass(frozen=True)
class _Pair:
    images: str
    masks: str
    num: int
    affixes: tuple[str, str, str, str]  # before and after the common part of the image's name, of the mask's name


def mask_folders(tree: Tree) -> Layout | None:
    """Folders of images and masks; None: no names fit together."""
    found: dict[str | None, _Pair] = {}
    images_in = {path.rpartition("/")[0] for path in tree.paths(IMAGE_SUFFIXES)}
    images_in |= {folder for folder in tree.files if set(folder.split("/")) & set(_IMAGES)}
    for images in [folder for folder in tree.files if folder in images_in and _is_near(folder)]:
        for masks in _mask_candidates(tree, images):
            split = split_of(images.replace("/", " "))
            pair = _pair(tree, images, masks)
            if pair is not None and split not in found:
                found[split] = pair
    if "train" not in found and None in found:
        found = {"train": found[None]}
    if "train" not in found:
        return None
    settings, counts = dict[str, Any](), dict[str, int | None]()
    for split in SPLITS:
        if split in found:
            settings |= {f"{split}_images": found[split].images or ".", f"{split}_masks": found[split].masks or "."}
            counts[split] = found[split].num
    keys = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")
    settings |= {key: text for key, text in zip(keys, found["train"].affixes, strict=True) if text}
    classes, notes = mask_names(tree, "")
    return Layout(
        "mask_folder", "folders of images and masks", settings, frozenset({"maps"}), counts, classes, tuple(notes)
    )


def _is_near(folder: str) -> bool:
    """Whether a folder lies in the root, or is that of a split of one that does."""
    return "/" not in folder or (folder.count("/") == 1 and split_of(folder.replace("/", " ")) is not None)


def _mask_candidates(tree: Tree, images: str) -> list[str]:
    """The folders that masks of the images of a folder may lie in."""
    parts = images.split("/") if images else []
    found = []
    for place, part in enumerate(parts):
        if part in _IMAGES:
            found += ["/".join([*parts[:place], name, *parts[place + 1 :]]) for name in MASKS]
    if images:
        found += [f"{images}{mark}" for mark in ("_masks", "_mask", "_labels", "_gt", "annot", "_annot")]
        found += [f"{images}/{name}" for name in MASKS]
    return [folder for folder in found if folder in tree.files]


def _pair(tree: Tree, images: str, masks: str) -> _Pair | None:
    """How the images of a folder and their masks belong together; None if they do not."""
    stems, other = (
        {os.path.splitext(path)[0][len(folder) + 1 if folder else 0 :] for path in tree.paths(IMAGE_SUFFIXES, folder)}
        for folder in (images, masks)
    )
    if images and masks.startswith(f"{images}/"):
        stems = {stem for stem in stems if not f"{images}/{stem}".startswith(f"{masks}/")}
    if not stems or not other:
        return None
    first = min(stems)
    starts = {"", _common(sorted(stems))} if len(stems) > 1 else {""}
    ends = {"", _common([stem[::-1] for stem in sorted(stems)])[::-1]} if len(stems) > 1 else {""}
    options = [(start, end) for start in sorted(starts, key=len) for end in sorted(ends, key=len)]
    for start, end in options:
        core = first[len(start) : len(first) - len(end)]
        whole = [mask for mask in sorted(other) if core and core in mask]
        for before, _, after in (mask.partition(core) for mask in whole):
            flat = "/" not in before + after and ("/" not in core or not (start or before))
            if flat and all(f"{before}{stem[len(start) : len(stem) - len(end)]}{after}" in other for stem in stems):
                return _Pair(images, masks, len(stems), _trimmed(start, end, before, after))
    return None


def _trimmed(start: str, end: str, before: str, after: str) -> tuple[str, str, str, str]:
    """What comes before and after the common part, without what images and masks have in common there."""
    common = len(_common([start[::-1], before[::-1]]))
    shared = len(_common([end, after]))
    return start[: len(start) - common], end[shared:], before[: len(before) - common], after[shared:]


def _common(texts: Sequence[str]) -> str:
    """What texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def mask_names(tree: Tree, labels: str) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes of masks, and what is to be said of them."""
    if "classes.txt" in tree.files[""]:
        return text_lines(tree, "classes.txt"), []
    return (), [
        "masks do not name their classes: write classes.txt, a name a line in the order of the values, "
        "or set data.classes"
    ]
