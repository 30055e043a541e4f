"""Folders of images and of masks: which mask belongs to which image."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from detseg.data.formats.mask_folder import LABEL_STUDIO, Affixes
from detseg.data.formats.recognise.layout import SPLITS, Layout, is_image, listed_splits, not_taken
from detseg.data.formats.recognise.mask_reading import MaskReading, mask_reading
from detseg.data.images.find import IMAGE_FOLDERS, MASK_FOLDERS, split_of, without_split
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.tree import Tree
from detseg.errors import DataError
from detseg.messages import counted, listed

_TEMPLATES = 10  # images whose names are looked for in those of the masks
_WORDS = re.compile("([-_. ])")  # between the words of a folder's name
_BESIDE = ("_mask", "-mask", "_masks", "_gt", "_seg", "_label", "_labels", "_L")  # of masks in the folder of the images


@dataclass(frozen=True)
class _Pair:
    images: str
    masks: str
    num: int
    affixes: Affixes
    stems: tuple[str, ...] = ()  # of the masks, without folder and suffix
    lost: tuple[str, ...] = ()  # those of images that have none
    per_class: tuple[str, ...] = ()  # the classes, where there is a mask of each


def mask_folders(tree: Tree) -> Layout | None:
    """Folders of images and masks; None: no names fit together."""
    found: dict[str | None, _Pair] = {}
    images_in = {path.rpartition("/")[0] for path in tree.paths(IMAGE_SUFFIXES)}
    images_in |= {folder for folder in tree.files if set(folder.lower().split("/")) & IMAGE_FOLDERS}
    for images in [folder for folder in tree.files if folder in images_in and _is_near(folder)]:
        for masks in _mask_candidates(tree, images):
            split = split_of(images.replace("/", " "))
            pair = _pair(tree, images, masks)
            if pair is not None and (split not in found or len(pair.lost) < len(found[split].lost)):
                found[split] = pair
    notes = list[str]()
    for images in sorted(images_in):
        _add_incomplete(tree, images, found, notes)
    if "train" not in found and None in found:
        found = _rest_to_train_on(found, notes)
    if "train" not in found:
        return None
    settings, counts = dict[str, Any](), dict[str, int | None]()
    for split in SPLITS:
        if split in found:
            settings |= {f"{split}_images": found[split].images or ".", f"{split}_masks": found[split].masks or "."}
            counts[split] = found[split].num
            if lost := found[split].lost:
                notes.append(f"{split}: {len(lost)} of {found[split].num} images have no mask: {listed(lost)}")
    lists, more = listed_splits(tree, lambda line: is_image(tree, line))
    notes += more
    if len(found) == 1 and "train" in lists:
        masks = settings["train_masks"]
        settings, counts = dict[str, Any](), dict[str, int | None]()
        for split, (name, number) in lists.items():
            settings |= {f"{split}_images": name, f"{split}_masks": masks}
            counts[split] = number
    settings |= {key: text for key, text in vars(found["train"].affixes).items() if text}
    what, train = "folders of images and masks", found["train"]
    if train.per_class:
        what, own = "folders of images and a mask for each class", MaskReading(("background", *train.per_class))
        settings["mask_per_class"] = True
    else:
        own = mask_reading(tree, [path for pair in found.values() for path in _mask_paths(tree, pair)])
    notes += own.notes
    notes += not_taken(tree, [folder for pair in found.values() for folder in (pair.images, pair.masks)])
    return Layout("mask_folder", what, settings | own.settings, frozenset({"maps"}), counts, own.names, tuple(notes))


def _rest_to_train_on(found: dict[str | None, _Pair], notes: list[str]) -> dict[str | None, _Pair]:
    """The pairs of splits, none of which is called train: that of no split is, without those inside it. If these are
    all of it, that to validate on is taken, and a note says so."""
    rest, others = found[None], {split: pair for split, pair in found.items() if split is not None}
    start = f"{rest.images}/".lstrip("/")
    inside = [split for split, pair in others.items() if f"{pair.images}/".startswith(start)]
    if inside and sum(others[split].num for split in inside) == rest.num:
        split = "val" if "val" in others else "test"
        rest = others.pop(split)
        notes.append(f"nothing is called train: {rest.images} is taken to train on")
        inside = []
    kept: dict[str | None, _Pair] = {"train": rest}
    return kept | {split: pair for split, pair in others.items() if split not in inside}


def _mask_paths(tree: Tree, pair: _Pair) -> list[str]:
    paths = {os.path.splitext(path)[0]: path for path in tree.paths(IMAGE_SUFFIXES, pair.masks)}
    return [paths[f"{pair.masks}/{mask}".lstrip("/")] for mask in pair.stems]


def _add_incomplete(tree: Tree, images: str, found: dict[str | None, _Pair], notes: list[str]) -> None:
    """Add the pair of a split that lies where another split does, so that its masks belong there, too, though most of
    them are missing; a note, or for train a DataError, if there is no folder of masks."""
    split = split_of(images.replace("/", " "))
    if split is None or split in found or not tree.num_images(images):
        return
    for other, pair in found.items():
        if other is None or without_split(images) != without_split(pair.images):
            continue
        alike = [folder for folder in tree.files if without_split(folder) == without_split(pair.masks)]
        own = [folder for folder in alike if split_of(folder.replace("/", " ")) == split]
        stems = sorted(os.path.splitext(path)[0][len(images) + 1 :] for path in tree.paths(IMAGE_SUFFIXES, images))
        if own and images != own[0]:
            there = {os.path.splitext(path)[0][len(own[0]) + 1 :] for path in tree.paths(IMAGE_SUFFIXES, own[0])}
            affixes = pair.affixes
            start, end = affixes.image_prefix, affixes.image_suffix
            cores = {stem: stem.removeprefix(start).removesuffix(end) for stem in stems}
            lost = tuple(s for s, c in cores.items() if f"{affixes.mask_prefix}{c}{affixes.mask_suffix}" not in there)
            found[split] = _Pair(images, own[0], len(stems), affixes, (), lost, pair.per_class)
            return
        what = f"{images}: there are {counted(len(stems), 'image')} and no masks"
        if split == "train":
            raise DataError(f"{tree.root}/{what}; {pair.images} has some in {pair.masks}: add those of {images}")
        notes.append(f"{split}: left out; {what}")
        return


def _is_near(folder: str) -> bool:
    """Whether a folder lies in the root, or is that of a split of one that does."""
    return "/" not in folder or (folder.count("/") == 1 and split_of(folder.replace("/", " ")) is not None)


def _mask_candidates(tree: Tree, images: str) -> list[str]:
    """The folders that masks of the images of a folder may lie in."""
    folder_of = {folder.lower(): folder for folder in tree.files}
    parts = images.lower().split("/") if images else []
    found = []
    for place, part in enumerate(parts):
        words = _WORDS.split(part)  # images, images_train, img_dir
        for k in [k for k, word in enumerate(words) if word in IMAGE_FOLDERS]:
            others = ("".join([*words[:k], name, *words[k + 1 :]]) for name in MASK_FOLDERS)
            found += ["/".join([*parts[:place], other, *parts[place + 1 :]]) for other in others]
    if images:
        found += [f"{images.lower()}{mark}" for mark in ("_masks", "_mask", "_labels", "_gt", "annot", "_annot")]
        found += [f"{images.lower()}/{name}" for name in MASK_FOLDERS]
    if any(LABEL_STUDIO.match(name) for name in tree.files[""]):
        found.append("")
    return [*(folder_of[folder] for folder in found if folder in folder_of), images]


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
        return _pair_in_one(images, stems)
    if not masks:  # Label Studio's
        other = {stem for stem in other if LABEL_STUDIO.fullmatch(stem)}
    if names := _classes_of(stems, other):
        if len(names) == 1 and f"{masks}/{names[0]}".lstrip("/") in tree.files:  # one folder is no choice of classes
            return _pair(tree, images, f"{masks}/{names[0]}".lstrip("/"))
        return _Pair(images, masks, len(stems), Affixes(), per_class=names)
    starts = {"", _common(sorted(stems))} if len(stems) > 1 else {""}
    ends = {"", _common([stem[::-1] for stem in sorted(stems)])[::-1]} if len(stems) > 1 else {""}
    best: _Pair | None = None
    for option in _affixes(sorted(stems), sorted(other, key=_rank), starts, ends):
        start, end, before, after = option
        of_image = {stem: f"{before}{stem[len(start) : len(stem) - len(end)]}{after}" for stem in sorted(stems)}
        lost = tuple(stem for stem, mask in of_image.items() if mask not in other)
        if len(lost) < (len(stems) if best is None else 2 * len(best.lost)) / 2:
            there = tuple(mask for mask in of_image.values() if mask in other)
            best = _Pair(images, masks, len(stems), _trimmed(start, end, before, after), there, lost)
        if best is not None and not best.lost:
            break
    return None if best is None or _are_of_objects(best, other) else best


def _are_of_objects(pair: _Pair, masks: set[str]) -> bool:
    """Whether most images have several masks that differ in the number at the end, of which a suffix takes one."""
    if not re.search(r"[-_]\d+$", pair.affixes.mask_suffix):
        return False
    start_of = {mask: re.sub(r"\d+$", "", mask) for mask in masks}
    number = Counter(start_of.values())
    return 2 * sum(number[start_of[mask]] > 1 for mask in pair.stems) > len(pair.stems)


def _affixes(
    stems: Sequence[str], masks: Sequence[str], starts: set[str], ends: set[str]
) -> Iterator[tuple[str, str, str, str]]:
    """What images, and then masks, may have before and after the common part of their names: by some images, so that
    the masks of a few may be missing."""
    tried, known = set[tuple[str, str, str, str]](), set(masks)
    some = stems[:: max(len(stems) // _TEMPLATES, 1)]
    for start, end in [(start, end) for start in sorted(starts, key=len) for end in sorted(ends, key=len)]:
        cores = [stem[len(start) : len(stem) - len(end)] for stem in some]
        for core in cores[:_TEMPLATES]:
            for before, _, after in (mask.partition(core) for mask in masks if core and core in mask):
                one = start, end, before, after
                flat = "/" not in before + after and ("/" not in core or not (start or before))
                if flat and one not in tried and sum(f"{before}{c}{after}" in known for c in cores) * 2 > len(cores):
                    yield one
                tried.add(one)


def _rank(mask: str) -> tuple[object, ...]:
    """Of several masks of an image those with the values to train on come first, those of colours and objects last."""
    return "TrainIds" not in mask, any(word in mask.lower() for word in ("color", "instance")), mask


def _pair_in_one(folder: str, stems: set[str]) -> _Pair | None:
    """Images and masks of one folder: ``1.jpg`` and ``1_mask.png``, or ``1_sat.jpg`` and ``1_mask.png``."""
    for suffix in _BESIDE:
        masks = {stem for stem in stems if stem.endswith(suffix)}
        cores = {mask.removesuffix(suffix) for mask in masks}
        others = sorted(stems - masks)
        ends = Counter(end for image in others for core, end in ((image, ""), _halves(image)) if core in cores)
        end = ends.most_common(1)[0][0] if ends else ""
        images = [image for image in others if image.endswith(end)]
        pairs = {image: image.removesuffix(end) + suffix for image in images}
        there = tuple(mask for mask in pairs.values() if mask in masks)
        if 2 * len(there) > len(images):
            lost = tuple(image for image, mask in pairs.items() if mask not in masks)
            return _Pair(folder, folder, len(images), Affixes(image_suffix=end, mask_suffix=suffix), there, lost)
    return None


def _halves(name: str) -> tuple[str, str]:
    """A name up to its last ``_``, and the rest: ``1``, ``_sat``."""
    start, mark, rest = name.rpartition("_")
    return start, f"{mark}{rest}"


def _classes_of(images: set[str], masks: set[str]) -> tuple[str, ...]:
    """The classes of masks of one class each: ``CLASS/a``, ``a_CLASS`` of several classes, or Label Studio's; empty:
    they are not."""
    if studio := [match for mask in masks if (match := LABEL_STUDIO.fullmatch(mask.rpartition("/")[2]))]:
        fits = {match[1] for match in studio if {match[1], f"task-{match[1]}"} & images}
        return tuple(sorted({match[2] for match in studio})) if fits else ()
    folders = {mask.partition("/")[0] for mask in masks if mask.partition("/")[2] in images}
    if folders and not masks & images and not all(split_of(folder) for folder in folders):
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
