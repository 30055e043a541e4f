"""Reads the Pascal VOC layout (Everingham et al. 2010): ``Annotations/``, ``ImageSets/Main/``, ``JPEGImages/``.

The lists in ``ImageSets/Main`` say which images a split has; an image is the file in ``JPEGImages`` that has the listed
name before its suffix, whatever the annotation's ``<filename>`` says.

Letters for dimensions: N objects of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.data.annotations import AnnotationsBuilder
from detseg.data.class_names import class_table, did_you_mean, listed
from detseg.data.dataset import DetectionDataset
from detseg.data.images import read_image_hw
from detseg.data.report import DataReport, Oddity, report_contents
from detseg.data.voc_lists import check_present, files_by_stem, listed_stems, stems_of, voc_lists
from detseg.data.voc_xml import VocAnnotation, read_voc_xml
from detseg.errors import ClassTableError, DataError, shown
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
            report.add(Oddity.WRONG_FILENAME, xml.name)
        entries.append(_Entry(f"{relative}/{name}", xml, annotation))
    return entries


def _once(entries: list[_Entry], report: DataReport) -> list[_Entry]:
    """The entries without those that an earlier list of a joined split has named, too."""
    first = {entry.image: entry for entry in reversed(entries)}
    for entry in entries:
        if first[entry.image] is not entry:
            report.add(Oddity.LISTED_TWICE, entry.image)
    return [entry for entry in entries if first[entry.image] is entry]


def _infer_classes(root: Path, split: str, entries: list[_Entry]) -> ClassTable:
    names = sorted({name for entry in entries for name in entry.annotation.names})
    if not names:
        raise DataError(f"{root}: no image of the split '{split}' has an object; name the classes in data.classes")
    return ClassTable(tuple(names))


def _hw(root: Path, entry: _Entry, report: DataReport) -> tuple[int, int]:
    if entry.annotation.hw is not None:
        return entry.annotation.hw
    report.add(Oddity.SIZE_NOT_STATED, entry.xml.name)
    return read_image_hw(root / entry.image)


def _note_corners(entry: _Entry, report: DataReport) -> None:
    zero_based = int((entry.annotation.boxes[:, :2] == -1).any(axis=1).sum())
    if zero_based:
        report.add(Oddity.ZERO_BASED, entry.xml.name, zero_based)


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
