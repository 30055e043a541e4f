"""Reads and writes folders of images and of masks, where a mask has the name of its image.

What is not common to both names, a prefix or a suffix, is taken off each. Sub-folders keep their names:
``images/a/1.jpg`` belongs to ``masks/a/1.png``. Names that begin with a dot are left out.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.data.annotations.classes import (
    Classes,
    ClassSelection,
    add_background,
    are_of_another_set,
    choose_labels,
    split_background,
)
from detseg.data.annotations.files import read_list
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.mask_names import CLASSES_FILE, META_FILE, mask_class_table, names_of_masks
from detseg.data.annotations.model import PackedAnnotations, PackedImages, pack_images, running_total
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.segmentation import MaskLayers, MaskSource, SegmentationDataset, inspect_masks, mask_files
from detseg.data.formats.voc_writer import plain_stem, voc_palette
from detseg.data.images.find import find_images, find_listed, inner_path, new_folder, place_image
from detseg.data.images.masks import Rgb
from detseg.data.images.read import read_image_hw
from detseg.errors import DataError, MissingSplitError, path_of
from detseg.messages import listed, shown
from detseg.structures import ClassTable

# Label Studio's PNG: numbers of task, annotation and annotator, the control's name, the class, a counter.
LABEL_STUDIO = re.compile(r"task-(\d+)-annotation-\d+-by-\d+-[^-]+-(.+)-\d+")
_COUNTED = re.compile(r"(.+)[-_ ]\d+")
_MAX_TRIED = 40  # masks that are compared with an image to guess what their names have in common


@dataclass(frozen=True)
class Affixes:
    """What the names of images and masks have before and after that which is common to both."""

    image_prefix: str = ""
    image_suffix: str = ""
    mask_prefix: str = ""
    mask_suffix: str = ""

    def settings(self) -> str:
        """The settings that say so, on a line."""
        return " ".join(f"data.{key}={shown(value)[1:-1]}" for key, value in vars(self).items() if value)


def read_mask_folder(
    images: Path | str,
    masks: Path | str,
    classes: Classes,
    suffix: str = "",
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    colors: Sequence[Rgb] | None = None,
    ignore_colors: Sequence[Rgb] = (),
    skip_bad: bool = False,
    *,
    names: Affixes | None = None,
    threshold: int | None = None,
    per_class: bool = False,
    root: Path | str | None = None,
    report: DataReport | None = None,
) -> SegmentationDataset:
    """Read pairs of images and masks; image ids are 1 to I in the order of the paths.

    Args:
        images, masks: the folders; they may be one folder if names tell masks from images. ``images`` may be a text
            file that lists images, one a line, relative to ``root``.
        classes: in label order, a background included; None: those of the file in ``root`` that names them, see
            `names_of_masks`. A selection chooses and merges those of that file, see `mask_classes`. A table is that of
            another set, which is trained on: masks of one class are reported then, not an error.
        suffix: what a mask has after the name of its image: ``_mask`` for ``a.jpg`` and ``a_mask.png``.
        values, ignore_index, colors, ignore_colors, threshold: see ``MaskEncoding``.
        skip_bad: see ``inspect_masks``.
        names: all that the names of images and masks have besides what is common to both, in place of ``suffix``.
        per_class: whether there is a mask of each class: ``NAME/a.png``, ``a_NAME.png``, or Label Studio's
            ``task-1-annotation-1-by-1-tag-NAME-0.png`` for an image ``1.jpg`` or ``task-1.jpg``. ``values`` and colours
            have no effect; None as classes: the sorted names that are found, behind ``background``.
        root: the folder of ``classes.txt``, and of what a list names; None: that of the list, and no ``classes.txt``.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a folder or file is missing or wrong, an image has no single mask, or masks do not fit the classes.
    """
    images, masks, report = path_of("images", images), path_of("masks", masks), report or DataReport()
    folder, names = path_of("root", root) if root is not None else None, names or Affixes(mask_suffix=suffix)
    found = _list_files(images, masks, folder or images.parent, names, report)
    source: MaskSource
    if per_class:
        image_names, source, table = _read_layers(found, masks, classes, folder, threshold, report)
    else:
        pairs = _pairs(found, images, masks, names, report)
        image_names, files = [image for image, _ in pairs], pack_images([mask for _, mask in pairs])
        source, table = mask_files(
            files, masks, folder, classes, values, ignore_index, colors, ignore_colors, threshold=threshold
        )
    dataset = SegmentationDataset(pack_images(image_names), source, found.root, table, report, f"folder {images}")
    inspect_masks(dataset, not are_of_another_set(classes), skip_bad)
    return dataset


@dataclass(frozen=True)
class _Found:
    """The files of a split, by what the names of images and masks have in common, with folders: relative paths."""

    root: Path  # of the images
    images: dict[str, list[str]]
    masks: dict[str, list[str]]
    all_images: list[str]  # also those whose names have other prefixes and suffixes
    all_masks: list[str]
    is_list: bool


def _list_files(images: Path, masks: Path, root: Path, names: Affixes, report: DataReport) -> _Found:
    for place, key in ((images, "images"), (masks, "masks")):
        if not place.is_dir() and not (key == "images" and place.is_file()):
            raise MissingSplitError(
                f"{place}: there is no such folder; set data.root and the {key} folder of the split"
            )
    together = images.resolve() == masks.resolve()
    of_images, of_masks = (names.image_prefix, names.image_suffix), (names.mask_prefix, names.mask_suffix)
    if together and of_images == of_masks:
        raise DataError(f"{images}: images and masks lie in one folder; set data.mask_suffix, or move the masks out")
    all_images = _read_list(images, root) if images.is_file() else _files(images, masks)
    all_masks = all_images if together else _files(masks, images)
    image_files, mask_files = _by_core(all_images, *of_images), _by_core(all_masks, *of_masks)
    if together:  # the kind whose names say more takes its files first
        first, other = (mask_files, image_files) if any(of_masks) else (image_files, mask_files)
        taken = {name for files in first.values() for name in files}
        for core in list(other):
            other[core] = [name for name in other[core] if name not in taken]
            if not other[core]:
                del other[core]
    if not image_files:
        what = "there are no images in it" if not all_images else f"none of its {len(all_images)} images fits"
        fix = "set data.root and the images folder of the split"
        if all_images:
            fix = f"data.image_prefix and data.image_suffix say what their names begin and end with: {all_images[0]}"
        raise DataError(f"{images}: {what}; {fix}")
    is_list = images.is_file()
    looked_at = [*all_images, *(() if together or is_list else all_masks)]  # of those of a list some masks alone count
    used = [*image_files.values(), *(() if is_list else mask_files.values())]
    if others := len(looked_at) - sum(map(len, used)):
        report.add(DataIssue.OTHER_NAMES, str(masks), others)
    place = root if images.is_file() else images
    return _Found(place, image_files, mask_files, all_images, all_masks, images.is_file())


def _read_list(path: Path, root: Path) -> list[str]:
    found = list[str]()
    for number, line in read_list(path, lambda name: (root / name).is_file()):
        if (name := inner_path(line)) is None:
            raise DataError(f"{path}:{number}: expected a path below {root}, got {shown(line)}")
        found.append(name)
    found = find_listed(root, found)
    if missing := [name for name in found if not (root / name).is_file()]:
        raise DataError(
            f"{path}: {len(missing)} of {len(found)} images missing: {listed(missing)}; paths begin in {root}"
        )
    if not found:
        raise DataError(f"{path}: it lists no images; write one path a line, relative to {root}")
    return list(dict.fromkeys(found))


def _files(folder: Path, other: Path) -> list[str]:
    """The image files in a folder, but not in ``other``: relative paths."""
    left_out = os.path.realpath(other)
    return [file.as_posix() for file in find_images(folder, lambda path: os.path.realpath(path) == left_out)]


def _by_core(names: Sequence[str], prefix: str, suffix: str) -> dict[str, list[str]]:
    """The files whose names have prefix and suffix, by what is left, with its folder, in its order."""
    found: dict[str, list[str]] = {}
    for stem, name in sorted((os.path.splitext(name)[0], name) for name in names):
        folder, slash, base = stem.rpartition("/")
        if base.startswith(prefix) and base.endswith(suffix) and len(base) > len(prefix) + len(suffix):
            core = base[len(prefix) : len(base) - len(suffix)]
            found.setdefault(f"{folder}{slash}{core}", []).append(name)
    return found


def _pairs(found: _Found, images: Path, masks: Path, names: Affixes, report: DataReport) -> list[tuple[str, str]]:
    """Paths of each image and its mask, relative to their folders, in the order of the images' paths."""
    keys = {core: _mask_key(core, found) for core in found.images}
    missing = [core for core, key in keys.items() if key is None]
    if missing:
        names_missing = listed([found.images[core][0] for core in missing])
        folder, slash, base = missing[0].rpartition("/")
        expected = f"{folder}{slash}{names.mask_prefix}{base}{names.mask_suffix}"
        message = (
            f"{masks}: {len(missing)} of {len(keys)} images have no mask: {names_missing}; expected {expected}"
            f".png, .tif, .tiff or .bmp (data.mask_suffix is what comes before the file type); {_guess(found)}"
        )
        if len(missing) == len(keys):
            raise DataError(message)
        for core in missing:
            report.wrong(DataIssue.NO_MASK, found.images[core][0], message)
    twice = [key for key, count in Counter(filter(None, keys.values())).items() if count > 1]
    if twice:
        raise DataError(f"{masks}: {found.masks[twice[0]][0]} fits several images; list them with paths that differ")
    for core in sorted(found.masks.keys() - set(keys.values())) if not found.is_list else ():
        report.add(DataIssue.NO_IMAGE, found.masks[core][0])
    pairs = [(found.images[core], found.masks[key]) for core, key in keys.items() if key is not None]
    return [(_single(own, images), _single(files, masks)) for own, files in pairs]


def _mask_key(core: str, found: _Found) -> str | None:
    """The name of an image's mask. Listed images have longer paths than masks: the longest end of it counts."""
    return next((end for end in _ends(core, found) if end in found.masks), None)


def _ends(core: str, found: _Found) -> list[str]:
    parts = core.split("/")
    return ["/".join(parts[k:]) for k in range(len(parts) if found.is_list else 1)]


def _guess(found: _Found) -> str:
    """What to set, by the names that are there: affixes with which the most images have a mask."""
    images = {core: name for name in found.all_images for core in [os.path.splitext(name)[0]]}
    masks = {core: name for name in found.all_masks for core in [os.path.splitext(name)[0]] if core not in images}
    if any(LABEL_STUDIO.fullmatch(posixpath.basename(stem)) for stem in masks) or _class_folders(images, masks):
        per_class = "these are masks of one class each: data.mask_per_class=true reads them, detseg convert merges them"
        return f"{per_class}; Label Studio names them by task, so the images must be 1.jpg or task-1.jpg, ..."
    best, best_count, others = None, 0, list[Affixes]()
    for affixes in dict.fromkeys(_candidates(list(images), list(masks))):
        own = _by_core(list(images.values()), affixes.image_prefix, affixes.image_suffix)
        count = len(own.keys() & _by_core(list(masks.values()), affixes.mask_prefix, affixes.mask_suffix).keys())
        if count > best_count:
            best, best_count, others = affixes, count, []
        elif count == best_count and best is not None:
            others.append(affixes)
    if best is None or best_count < len(images) / 2:
        return "add them"
    guess = f"{best_count} of {len(images)} images would have one with {best.settings()}"
    if others:
        guess += f" (or {others[0].settings()}); if there is a mask for each class, data.mask_per_class=true reads them"
    return guess


def _class_folders(images: Mapping[str, str], masks: Mapping[str, str]) -> bool:
    inside = [stem.partition("/")[2] in images for stem in masks if "/" in stem and stem not in images]
    return bool(inside) and sum(inside) * 2 > len(inside)


def _candidates(images: Sequence[str], masks: Sequence[str]) -> Iterator[Affixes]:
    """Affixes that would make pairs of some images and masks: what is left around the longest text common to both."""
    for image in sorted(images)[:: max(len(images) // 3, 1)][:3]:
        folder, _, base = image.rpartition("/")
        near = [mask.rpartition("/")[2] for mask in masks if mask.rpartition("/")[0] == folder]
        near.sort(key=lambda mask: -SequenceMatcher(None, base, mask).ratio())
        for mask in near[:_MAX_TRIED]:
            place = SequenceMatcher(None, base, mask, autojunk=False).find_longest_match()
            first, last = 0, place.size  # what separates words belongs to the affixes
            core = base[place.a :][: place.size]
            while (
                last > first + 1
                and core[last - 1] in "_-. "
                and (place.a + last < len(base) or place.b + last < len(mask))
            ):
                last -= 1
            while first < last - 1 and core[first] in "_-. " and (place.a + first > 0 or place.b + first > 0):
                first += 1
            if last > first:
                yield Affixes(
                    base[: place.a + first], base[place.a + last :], mask[: place.b + first], mask[place.b + last :]
                )


def _read_layers(
    found: _Found, masks: Path, classes: Classes, folder: Path | None, threshold: int | None, report: DataReport
) -> tuple[list[str], MaskLayers, ClassTable]:
    """The images, their masks of one class each, and the classes."""
    if classes is None and folder is not None and (there := names_of_masks(folder)) is not None:
        classes = there.names
    background, wanted = split_background(classes)
    known = set[str]() if wanted is None else set(_names_of(wanted))
    layers: dict[str, list[tuple[str, str]]] = {core: [] for core in found.images}
    ends = [(end, core) for core in found.images for end in _ends(core, found)]
    counts = Counter(end for end, _ in ends)
    cores = {end: core for end, core in ends if end == core or counts[end] == 1}
    for core, files in found.masks.items():
        if (place := _layer_of(core, cores, known)) is None:
            if not found.is_list:
                report.add(DataIssue.NO_IMAGE, files[0])
        else:
            layers[place[0]] += [(place[1], file) for file in files]
    names = sorted({name for own in layers.values() for name, _ in own})
    if not names:
        example = listed([files[0] for files in found.masks.values()][:3]) or "there are none"
        what = "no mask of one class has the name of an image"
        fix = "expected NAME/a.png or a_NAME.png for a.jpg, or task-1-... for 1.jpg"
        raise DataError(f"{masks}: {what} ({example}); {fix}")
    numbers = np.array([sum(name == one for own in layers.values() for one, _ in own) for name in names])
    table, label_of = choose_labels(names, numbers, wanted, str(masks), report, declared=False, strict=False)
    labels = dict(zip(names, label_of.tolist(), strict=True))
    kept = [[(labels[name] + 1, file) for name, file in own if labels[name] >= 0] for own in layers.values()]
    image_names = [_single(found.images[core], found.root) for core in layers]
    if empty := [name for name, own in zip(image_names, kept, strict=True) if not own]:
        report.note(f"images without a mask of any class, read as background: {len(empty)} ({listed(empty)})")
    sizes = [(0, 0) if own else read_image_hw(found.root / name) for name, own in zip(image_names, kept, strict=True)]
    source = MaskLayers(
        pack_images([file for own in kept for _, file in own]),
        running_total([len(own) for own in kept]),
        np.array([label for own in kept for label, _ in own], dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        masks,
        threshold,
    )
    return image_names, source, add_background(table, background, str(masks), classes)


def _names_of(classes: Classes) -> Sequence[str]:
    if isinstance(classes, ClassSelection):
        return list(classes.label_of)
    return classes.names if isinstance(classes, ClassTable) else []


def _layer_of(core: str, images: Mapping[str, str], known: set[str]) -> tuple[str, str] | None:
    """The image of a mask of one class, and that class; ``images`` by the names that masks may give them."""
    folder, slash, base = core.rpartition("/")
    if match := LABEL_STUDIO.fullmatch(base):
        names = [f"{folder}{slash}{match[1]}", f"{folder}{slash}task-{match[1]}", match[1], f"task-{match[1]}"]
        return next(((images[name], match[2]) for name in names if name in images), None)
    first, _, rest = core.partition("/")
    if rest in images:
        return images[rest], first
    for place in reversed([k for k, letter in enumerate(core) if letter in "_-. "]):
        image, name = core[:place], core[place + 1 :]
        if image in images and name:
            counted = _COUNTED.fullmatch(name)
            return images[image], counted[1] if counted and name not in known and counted[1] in known else name
    return None


def _single(names: Sequence[str], folder: Path) -> str:
    if len(names) > 1:
        raise DataError(f"{folder}: several files with one name: {listed(names)}; keep one of them")
    return names[0]


def write_mask_folder(splits: Mapping[str, SegmentationDataset], target: Path, link: bool = False) -> list[str]:
    """Write splits of label maps below a new folder: ``SPLIT/images``, copied or linked, ``SPLIT/masks``, indexed PNG
    with the labels as values and 255 where pixels are ignored, and ``classes.txt``, or ``dataset_meta.json`` for
    names that it cannot hold.

    Returns a line for each kind of thing that the layout cannot hold. A DataError: there is something in the folder, an
    image cannot be copied, or a map cannot be read (`without_wrong_maps` leaves these out).
    """
    new_folder(target)
    renamed, lines = 0, list[str]()
    for split, dataset in splits.items():
        taken = set[str]()
        for index in range(len(dataset)):
            path, semantic = dataset.packed.path(index), dataset.semantic(index)
            stem, suffix = os.path.splitext(path)
            stem = plain = "/".join(plain_stem(part) for part in stem.split("/"))
            number = 2
            while plain.casefold() in taken:  # a.jpg and a.png
                plain, number = f"{stem}_{number}", number + 1
            taken.add(plain.casefold())
            renamed += plain + suffix != path
            place_image(dataset.path(index), target / split / "images" / f"{plain}{suffix}", link)
            indexed = Image.fromarray(semantic, mode="P")
            indexed.putpalette(voc_palette())
            mask = target / split / "masks" / f"{plain}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            indexed.save(mask)
    tables = list(dict.fromkeys(dataset.classes for dataset in splits.values()))
    for table in tables[:1]:
        lines += _write_classes(target, table)
    lines += _lost_objects([dataset.packed for dataset in splits.values()])
    if renamed:
        lines.append(f"names of {renamed} images: changed, since masks are found by names without suffix")
    return lines


def _lost_objects(sets: Sequence[PackedImages]) -> list[str]:
    drawn = [packed for packed in sets if isinstance(packed, PackedAnnotations)]
    numbers = {
        "objects: {}; masks hold the class of each pixel, neither single objects and their boxes nor what is covered": [
            len(packed.labels) for packed in drawn
        ],
        "crowd regions: {}; their pixels are ignored": [packed.crowd.sum() for packed in drawn],
        "difficult flags: {}; their pixels are of their class": [packed.difficult.sum() for packed in drawn],
        "truncated flags: {}": [packed.truncated.sum() for packed in drawn],
    }
    return [line.format(sum(own)) for line, own in numbers.items() if sum(own)]


def _write_classes(target: Path, table: ClassTable) -> list[str]:
    lines = list[str]()
    (target / CLASSES_FILE).write_text("\n".join([*table.names, ""]), encoding="utf-8")
    try:
        right = mask_class_table(target, None).names == table.names
    except DataError:
        right = False
    if not right:  # a name begins with #, or all with numbers
        (target / CLASSES_FILE).unlink()
        meta = {"label_map": dict(enumerate(table.names))}
        (target / META_FILE).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")
    if table.source_ids != tuple(range(len(table))):
        lines.append(f"values of the classes, {list(table.source_ids)}: written as 0 to {len(table) - 1}")
    return lines
