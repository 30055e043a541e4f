"""Folders of images and of masks: which mask belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detseg.data.formats.mask_folder import LABEL_STUDIO, Affixes
from detseg.data.formats.recognise.layout import SPLITS, Layout, is_image, listed_splits, split_of
from detseg.data.formats.recognise.mask_names import MaskNames, mask_names
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit", "imagesTr")
_OF_TOOLS = ("gtFine", "labelsTr")  # Cityscapes, nnU-Net
MASKS = ("masks", "mask", "SegmentationClass", "labels", "annotations", "gt", "gts", "segmentations", *_OF_TOOLS)
_BESIDE = ("_mask", "-mask", "_masks", "_gt", "_seg", "_label", "_labels", "_L")  # of masks in the folder of the images


@dataclass(frozen=True)
class _Pair:
    images: str
    masks: str
    num: int
    example: str  # a mask
    affixes: Affixes
    per_class: tuple[str, ...] = ()  # the classes, where there is a mask of each


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
    lists, notes = listed_splits(tree, lambda line: is_image(tree, line))
    if len(found) == 1 and "train" in lists:
        masks = settings["train_masks"]
        settings, counts = dict[str, Any](), dict[str, int | None]()
        for split, (name, number) in lists.items():
            settings |= {f"{split}_images": name, f"{split}_masks": masks}
            counts[split] = number
    settings |= {key: text for key, text in vars(found["train"].affixes).items() if text}
    what, train = "folders of images and masks", found["train"]
    if train.per_class:
        what, own = "folders of images and a mask for each class", MaskNames(("background", *train.per_class))
        settings["mask_per_class"] = True
    else:
        own = mask_names(tree, train.images, train.example)
    notes += own.notes
    return Layout("mask_folder", what, settings | own.settings, frozenset({"maps"}), counts, own.names, tuple(notes))


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
    if any(LABEL_STUDIO.match(name) for name in tree.files[""]):
        found.append("")
    return [*(folder for folder in found if folder in tree.files), images]


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
    if images == masks:
        return _pair_in_one(tree, images, stems)
    if not masks:  # Label Studio's
        other = {stem for stem in other if LABEL_STUDIO.fullmatch(stem)}
    if names := _classes_of(stems, other):
        return _Pair(images, masks, len(stems), "", Affixes(), names)
    first = min(stems)
    starts = {"", _common(sorted(stems))} if len(stems) > 1 else {""}
    ends = {"", _common([stem[::-1] for stem in sorted(stems)])[::-1]} if len(stems) > 1 else {""}
    options = [(start, end) for start in sorted(starts, key=len) for end in sorted(ends, key=len)]
    for start, end in options:
        core = first[len(start) : len(first) - len(end)]
        whole = [mask for mask in sorted(other, key=_rank) if core and core in mask]
        for before, _, after in (mask.partition(core) for mask in whole):
            flat = "/" not in before + after and ("/" not in core or not (start or before))
            if flat and all(f"{before}{stem[len(start) : len(stem) - len(end)]}{after}" in other for stem in stems):
                example = next(
                    path for path in tree.paths(IMAGE_SUFFIXES, masks) if os.path.splitext(path)[0].endswith(after)
                )
                return _Pair(images, masks, len(stems), example, _trimmed(start, end, before, after))
    return None


def _rank(mask: str) -> tuple[object, ...]:
    """Of several masks of an image those with the values to train on come first, those of colours and objects last."""
    return "TrainIds" not in mask, any(word in mask.lower() for word in ("color", "instance")), mask


def _pair_in_one(tree: Tree, folder: str, stems: set[str]) -> _Pair | None:
    """Images and masks of one folder."""
    for suffix in _BESIDE:
        masks = {stem for stem in stems if stem.endswith(suffix)}
        images = stems - masks
        if images and all(image + suffix in masks for image in images):
            example = next(p for p in tree.paths(IMAGE_SUFFIXES, folder) if os.path.splitext(p)[0].endswith(suffix))
            return _Pair(folder, folder, len(images), example, Affixes(mask_suffix=suffix))
    return None


def _classes_of(images: set[str], masks: set[str]) -> tuple[str, ...]:
    """The classes of masks of one class each: ``CLASS/a``, ``a_CLASS`` of several classes, or Label Studio's; empty:
    they are not."""
    if studio := [match for mask in masks if (match := LABEL_STUDIO.fullmatch(mask.rpartition("/")[2]))]:
        fits = {match[1] for match in studio if {match[1], f"task-{match[1]}"} & images}
        return tuple(sorted({match[2] for match in studio})) if fits else ()
    folders = {mask.partition("/")[0] for mask in masks if mask.partition("/")[2] in images}
    if folders and not masks & images:
        return tuple(sorted(folders))
    marks = dict.fromkeys(images, 0)
    names = set[str]()
    for mask in masks:
        image, _, name = mask.rpartition("_")
        if image in marks:
            marks[image] += 1
            names.add(name)
    several = sum(number > 1 for number in marks.values())
    kinds = {"color", "colors", "colour", "labelIds", "labelTrainIds", "instanceIds", "instance"}
    numbers = any(name.isdecimal() for name in names)
    return tuple(sorted(names)) if several * 2 > len(images) and not names & kinds and not numbers else ()


def _trimmed(start: str, end: str, before: str, after: str) -> Affixes:
    """What comes before and after the common part, without what images and masks have in common there."""
    common = len(_common([start[::-1], before[::-1]]))
    shared = len(_common([end, after]))
    return Affixes(start[: len(start) - common], end[shared:], before[: len(before) - common], after[shared:])


def _common(texts: Sequence[str]) -> str:
    """What texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
