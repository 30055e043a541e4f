"""Reads the Pascal VOC layout (Everingham et al. 2010): ``Annotations/``, ``ImageSets/Main/``, ``JPEGImages/``.

The lists in ``ImageSets/Main`` say which images a split has; an image is the file in ``JPEGImages`` that has the listed
name before its suffix, whatever the annotation's ``<filename>`` says.

Letters for dimensions: N objects of one image.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from detseg.data.annotations.classes import class_table, mask_class_table
from detseg.data.annotations.issues import DataIssue, DataReport, report_contents
from detseg.data.annotations.model import AnnotationsBuilder, pack_images
from detseg.data.checks.mask_inspection import inspect_masks
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.formats.voc_xml import VocAnnotation, read_voc_xml
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.read import IMAGE_SUFFIXES, read_image_hw
from detseg.errors import ClassTableError, DataError
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import ClassTable, ImageAnnotations


@dataclass(frozen=True)
class _Entry:
    """One image of a split: where it lies relative to the root, and what its annotation says."""

    image: str
    xml: Path
    annotation: VocAnnotation


def read_voc(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: ClassTable | Sequence[str] | None = None,
) -> DetectionDataset:
    """Read one split of a data set in VOC layout.

    Image ids are 1 to I in the order of the lists, since names may occur in several years.

    Args:
        root: the folder with ``ImageSets``, ``Annotations`` and ``JPEGImages``; or ``VOCdevkit``, which holds such
            folders (``VOC2007``, ``VOC2012``); or the folder that holds ``VOCdevkit``.
        split: a list in ``ImageSets/Main`` without its suffix.  Several are joined by ``+``, each may name its year:
            ``2007:trainval+2012:trainval``.
        years: the years whose folders a list without a year is read from, e.g. ``("2007", "2012")``; empty: ``root``
            itself is the folder.
        classes: the table of the training split (``train.classes``) or the names in the order of their labels; None:
            the sorted names of this split's annotations, which is right for the training split only.

    Raises:
        DataError: a folder, list, annotation or image is missing or wrong, or an annotation has an unknown class.
    """
    root = Path(root)
    name = f"voc {split}" if not years else f"voc {'+'.join(years)} {split}"
    report = DataReport()
    entries: list[_Entry] = []
    for folder, list_name in voc_lists(root, split, years, "Main"):
        entries += _read_folder(root, folder, list_name, report)
    entries = _once(entries, report)
    if not entries:
        raise DataError(f"{root}: the split '{split}' lists no images; write one name a line into its list")
    table = _infer_classes(root, split, entries) if classes is None else class_table(classes)
    builder = AnnotationsBuilder()
    for image_id, entry in enumerate(entries, start=1):
        hw = _hw(root, entry, report)
        _note_corners(entry, report)
        builder.append(image_id, entry.image, hw, _objects(entry, table))
    packed = builder.build()
    report_contents(packed, table, report)
    return DetectionDataset(packed, root, table, report, name)


def _read_folder(root: Path, folder: Path, list_name: str, report: DataReport) -> list[_Entry]:
    images = files_by_stem(folder / "JPEGImages")
    xmls = stems_of(folder / "Annotations", ".xml")
    stems = listed_stems(folder, "Main", list_name, xmls | images.keys(), report)
    check_present("image", folder / "JPEGImages", [stem for stem in stems if stem not in images])
    check_present("annotation", folder / "Annotations", [f"{stem}.xml" for stem in stems if stem not in xmls])
    relative = (folder / "JPEGImages").relative_to(root).as_posix()
    entries = []
    for stem in stems:
        xml = folder / "Annotations" / f"{stem}.xml"
        annotation = read_voc_xml(xml)
        names = images[stem]
        name = annotation.filename if annotation.filename in names else names[0]
        if len(names) > 1 and name != annotation.filename:
            raise DataError(
                f"{folder / 'JPEGImages'}: which image is {shown(stem)}: {listed(names)}? Remove all but one"
            )
        if annotation.filename and annotation.filename != name:
            report.add(DataIssue.WRONG_FILENAME, xml.name)
        entries.append(_Entry(f"{relative}/{name}", xml, annotation))
    return entries


def _once(entries: list[_Entry], report: DataReport) -> list[_Entry]:
    """The entries without those that an earlier list of a joined split has named, too."""
    first = {entry.image: entry for entry in reversed(entries)}
    for entry in entries:
        if first[entry.image] is not entry:
            report.add(DataIssue.LISTED_TWICE, entry.image)
    return [entry for entry in entries if first[entry.image] is entry]


def _infer_classes(root: Path, split: str, entries: list[_Entry]) -> ClassTable:
    names = sorted({name for entry in entries for name in entry.annotation.names})
    if not names:
        raise DataError(f"{root}: no image of the split '{split}' has an object; name the classes in data.classes")
    return ClassTable(tuple(names))


def _hw(root: Path, entry: _Entry, report: DataReport) -> tuple[int, int]:
    if entry.annotation.hw is not None:
        return entry.annotation.hw
    report.add(DataIssue.SIZE_NOT_STATED, entry.xml.name)
    return read_image_hw(root / entry.image)


def _note_corners(entry: _Entry, report: DataReport) -> None:
    zero_based = int((entry.annotation.boxes[:, :2] == -1).any(axis=1).sum())
    if zero_based:
        report.add(DataIssue.ZERO_BASED, entry.xml.name, zero_based)


def _objects(entry: _Entry, classes: ClassTable) -> ImageAnnotations:
    label_of = {name: label for label, name in enumerate(classes.names)}
    found = entry.annotation
    for name in found.names:
        if name not in label_of:
            raise ClassTableError(
                f"{entry.xml}: unknown class {shown(name)}{did_you_mean(name, classes.names)}; the classes are "
                f"{listed(classes.names)}: correct the annotation or name the class in data.classes"
            )
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).clip(min=0)
    return ImageAnnotations(
        boxes=found.boxes,
        labels=np.array([label_of[name] for name in found.names], dtype=np.int64),
        crowd=np.zeros(len(found.names), dtype=np.bool_),
        difficult=found.difficult,
        truncated=found.truncated,
        area=sides.prod(axis=1),
    )


def read_voc_masks(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: ClassTable | Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    skip_bad: bool = False,
) -> SegmentationDataset:
    """Read one split of a data set in VOC layout for semantic segmentation.

    Image ids are 1 to I in the order of the lists, since names may occur in several years.

    Args:
        root: the folder with ``ImageSets``, ``SegmentationClass`` and ``JPEGImages`` (``images`` where there is no
            folder of that name); or ``VOCdevkit``, which holds such folders; or the folder that holds ``VOCdevkit``.
        split, years: as ``read_voc`` takes them; the lists are those of ``ImageSets/Segmentation``.
        classes: the classes in label order, a background included; None: the lines of ``classes.txt`` in ``root``.
            A table says that another set is trained on, so that in this one a class alone is noted, not refused.
        values: value of each class in the masks, in label order; None: the label itself.
        ignore_index: value that counts nowhere; None: there is none.
        skip_bad: as ``inspect_masks`` takes it.

    Raises:
        DataError: a folder, list, image or mask is missing or wrong, or the classes are not named.
    """
    root = Path(root)
    name = f"voc {split}" if not years else f"voc {'+'.join(years)} {split}"
    folders = voc_lists(root, split, years, "Segmentation")
    mask_values = None if values is None else tuple(values)
    encoding = MaskEncoding(mask_class_table(root, classes, mask_values), mask_values, ignore_index)
    report = DataReport()
    pairs: dict[str, str] = {}
    for folder, list_name in folders:
        for image, mask in _pairs(root, folder, list_name, report):
            if image in pairs:
                report.add(DataIssue.LISTED_TWICE, image)
            pairs[image] = mask
    if not pairs:
        raise DataError(f"{root}: the split '{split}' lists no images; write one name a line into its list")
    masks = PictureMasks(pack_images(list(pairs.values())), root, encoding)
    dataset = SegmentationDataset(pack_images(list(pairs)), masks, root, encoding.classes, report, name)
    inspect_masks(dataset, encoding, training=not isinstance(classes, ClassTable), skip_bad=skip_bad)
    return dataset


def _pairs(root: Path, folder: Path, list_name: str, report: DataReport) -> list[tuple[str, str]]:
    """Paths, relative to the root, of the images of a list and of their masks."""
    images_folder, masks_folder = _images_folder(folder), folder / "SegmentationClass"
    images, masks = files_by_stem(images_folder), files_by_stem(masks_folder)
    stems = listed_stems(folder, "Segmentation", list_name, images.keys() | masks.keys(), report)
    check_present("image", images_folder, [stem for stem in stems if stem not in images])
    check_present("mask", masks_folder, [f"{stem}.png" for stem in stems if stem not in masks])
    return [
        (_only(root, images_folder, stem, images[stem]), _only(root, masks_folder, stem, masks[stem])) for stem in stems
    ]


def _images_folder(folder: Path) -> Path:
    usual, other = folder / "JPEGImages", folder / "images"
    return other if other.is_dir() and not usual.is_dir() else usual


def _only(root: Path, folder: Path, stem: str, names: list[str]) -> str:
    if len(names) > 1:
        raise DataError(f"{folder}: which file is {shown(stem)}: {listed(names)}? Remove all but one")
    return f"{folder.relative_to(root).as_posix()}/{names[0]}"


Task = Literal["Main", "Segmentation"]
"""The folder in ``ImageSets`` that holds the lists."""


def find_year_folder(root: Path, year: str, task: Task = "Main") -> Path | None:
    """The folder of a year (``VOC2007`` for "2007") in or below ``root``, or None."""
    folder = f"VOC{year}"
    candidates = [root / folder, root / "VOCdevkit" / folder] + ([root] if root.name == folder else [])
    return next((path for path in candidates if (path / "ImageSets" / task).is_dir()), None)


def voc_lists(root: Path, split: str, years: Sequence[str], task: Task) -> list[tuple[Path, str]]:
    """The folders that a split is made of, each with the name of its list.

    Args:
        root, split, years: as ``read_voc`` takes them.
        task: whose lists.

    Raises:
        DataError: a folder is missing, or the split is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to the folder of the VOC data")
    lists = []
    for part in split.split("+"):
        year, colon, list_name = part.strip().rpartition(":")
        if not list_name or (colon and not year) or "/" in list_name or "\\" in list_name:
            raise DataError(f"split '{split}': expected a list like 'train' or '2007:train+2012:train', got '{part}'")
        for folder_year in [year] if colon else years:
            folder = find_year_folder(root, folder_year, task)
            if folder is None:
                raise DataError(f"{root}: expected VOC{folder_year}/ImageSets/{task} in it or in its VOCdevkit folder")
            lists.append((folder, list_name))
        if not colon and not years:
            lists.append((_only_folder(root, task), list_name))
    return lists


def _only_folder(root: Path, task: Task) -> Path:
    if (root / "ImageSets" / task).is_dir():
        return root
    years = sorted(
        path.parts[-3][3:] for path in [*root.glob(f"VOC*/ImageSets/{task}"), *root.glob(f"*/VOC*/ImageSets/{task}")]
    )
    annotations = "Annotations" if task == "Main" else "SegmentationClass"
    mend = f"set data.root to the folder that holds {annotations}, ImageSets and JPEGImages"
    if years:
        mend = f"it holds the years {', '.join(years)}: set data.years, or write the split as '{years[0]}:train'"
    raise DataError(f"{root}: there is no ImageSets/{task} in it; {mend}")


def listed_stems(folder: Path, task: Task, list_name: str, present: Container[str], report: DataReport) -> list[str]:
    """The names that a list holds, each once.

    Args:
        folder: the one with ``ImageSets``.
        task: whose list.
        list_name: its name without its suffix.
        present: the names that have an image or an annotation.
        report: where names that are listed twice are noted.

    Raises:
        DataError: the list is missing, unreadable, or holds other things than names.
    """
    path = folder / "ImageSets" / task / f"{list_name}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        there = sorted(item.stem for item in path.parent.glob("*.txt"))
        raise DataError(
            f"{path}: there is no such list{did_you_mean(list_name, there)}; the lists there: {listed(there) or 'none'}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the list: {error}") from None
    stems: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        stem = _listed_name(line, present)
        if not stem:
            continue
        if "/" in stem or "\\" in stem or Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            raise DataError(
                f"{path}:{number}: expected the name of an image without folder and suffix, got {shown(stem)}"
            )
        if stem in stems:
            report.add(DataIssue.LISTED_TWICE, stem)
        stems[stem] = None
    return list(stems)


def _listed_name(line: str, present: Container[str]) -> str:
    """The name on a line; lists of one class (``cat_train.txt``) have -1, 0 or 1 behind it, and so have some names."""
    line = line.strip()
    if line.startswith("#"):
        return ""
    if line in present:
        return line
    words = line.split()
    return words[0] if len(words) == 2 and words[1] in ("-1", "0", "1") else line


def files_by_stem(folder: Path) -> dict[str, list[str]]:
    """From one listing of the folder: the image files of each stem."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(stem, []).append(name)
    return found


def stems_of(folder: Path, suffix: str) -> set[str]:
    """The names, without it, of the files in a folder that have a suffix."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def check_present(kind: str, folder: Path, missing: list[str]) -> None:
    """Refuse a list of which files are missing.

    Raises:
        DataError: some are.
    """
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} {kind}(s) of the list missing: {listed(missing)}; "
            "add the files or take the names off the list"
        )
