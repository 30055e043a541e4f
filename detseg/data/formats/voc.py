"""Reads the Pascal VOC layout (Everingham et al. 2010) for detection and for semantic segmentation.

The lists in ``ImageSets/Main`` (``ImageSets/Segmentation``) name the images of a split, without suffix. The files of
an image are those with this name in ``JPEGImages`` and ``Annotations`` (``SegmentationClass``). Annotations are XML
with 1-based inclusive corners.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Container, Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np

from detseg.data.annotations.classes import Classes, check_class_name, mask_class_table
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.files import parse_xml
from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.annotations.model import LARGEST, pack_images
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import MaskFiles, SegmentationDataset, inspect_masks
from detseg.data.formats.voc_writer import VocAnnotation
from detseg.data.images.masks import MaskEncoding
from detseg.data.images.read import IMAGE_SUFFIXES, read_image_hw
from detseg.errors import DataError, check_type, path_of
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import BoolArray, ClassTable

Task = Literal["Main", "Segmentation"]  # the folder in ImageSets with the lists

# What an image has beside it, its folder, its usual suffix, and all suffixes that are read.
_LABELS: dict[Task, tuple[str, str, str, Set[str]]] = {
    "Main": ("annotation", "Annotations", ".xml", {".xml"}),
    "Segmentation": ("mask", "SegmentationClass", ".png", IMAGE_SUFFIXES),
}


def read_voc(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: Classes = None,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read one split of a data set in VOC layout for detection; image ids are 1 to I in the order of the lists.

    Args:
        root: the folder with ``ImageSets``, ``Annotations`` and ``JPEGImages`` (or ``images``); or ``VOCdevkit``, which
            holds such folders (``VOC2007``, ``VOC2012``); or the folder that holds ``VOCdevkit``.
        split: lists in ``ImageSets/Main`` without suffix, each maybe with its year: ``2007:trainval+2012:trainval``.
        years: where a list without a year is read, e.g. ``("2007", "2012")``; empty: in ``root`` itself.
        classes: the table of the training split (``train.classes``), which must have all classes of the annotations; or
            a selection of names in label order, in which ``{"truck": ["lorry", "van"]}`` merges: objects of other
            classes are left out and counted; None: the sorted names of this split's annotations, which is right for
            the training split only.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a folder, list, annotation or image is missing or wrong, or an annotation has an unknown class.
    """
    root, report = path_of("root", root), report or DataReport()
    collector = AnnotationCollector(root)
    for images, xml in _listed_files(root, split, years, "Main", report):
        annotation = read_voc_xml(xml)
        # <filename> decides between a.jpg and a.png, and nothing else.
        image = _only([path for path in images if path.name == annotation.filename] or images)
        if annotation.filename not in ("", image.name):
            report.add(DataIssue.WRONG_FILENAME, xml.name)
        if annotation.hw is None:
            report.add(DataIssue.SIZE_NOT_STATED, xml.name)
        if num_zeros := int((annotation.boxes[:, :2] == -1).any(axis=1).sum()):
            report.add(DataIssue.ZERO_BASED, xml.name, num_zeros)
        collector.add_image(image.relative_to(root).as_posix(), annotation.hw or read_image_hw(image), xml)
        columns = zip(
            annotation.names, annotation.boxes.tolist(), annotation.difficult, annotation.truncated, strict=True
        )
        for name, box, difficult, truncated in columns:
            collector.add_object(name, box, difficult=bool(difficult), truncated=bool(truncated))
    packed, table = collector.pack(classes, report, masks=False, strict=True)
    return DetectionDataset(packed, root, table, report, " ".join(["voc", *years, split]))


def read_voc_masks(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: ClassTable | Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    skip_bad: bool = False,
) -> SegmentationDataset:
    """Read one split of a data set in VOC layout for semantic segmentation: lists in ``ImageSets/Segmentation``, masks
    in ``SegmentationClass``.

    Arguments as in `read_voc` and `read_mask_folder`; ``classes`` None: the lines of ``classes.txt`` in ``root``. A
    DataError if a folder, list, image or mask is missing or wrong, or the classes are not named.
    """
    root, report = path_of("root", root), DataReport()
    files = _listed_files(root, split, years, "Segmentation", report)
    images = pack_images([_only(candidates).relative_to(root).as_posix() for candidates, _ in files])
    masks = pack_images([mask.relative_to(root).as_posix() for _, mask in files])
    mask_values = None if values is None else tuple(values)
    encoding = MaskEncoding(mask_class_table(root, classes, mask_values), mask_values, ignore_index)
    source, name = MaskFiles(masks, root, encoding), " ".join(["voc", *years, split])
    dataset = SegmentationDataset(images, source, root, encoding.classes, report, name)
    inspect_masks(dataset, encoding, training=not isinstance(classes, ClassTable), skip_bad=skip_bad)
    return dataset


def _listed_files(
    root: Path, split: str, years: Sequence[str], task: Task, report: DataReport
) -> list[tuple[list[Path], Path]]:
    """The image files, and the annotation or mask, with each name in the lists; repeated names are reported."""
    check_type("split", split, str, "the name of a list, such as 'train'")
    kind, labels_name, usual_suffix, suffixes = _LABELS[task]
    found: dict[tuple[Path, str], tuple[list[Path], Path]] = {}
    for folder, list_file in _find_lists(root, split, years, task):
        images_folder, labels_folder = folder / "JPEGImages", folder / labels_name
        if not images_folder.is_dir() and (folder / "images").is_dir():
            images_folder = folder / "images"
        images, labels = _files_by_stem(images_folder, IMAGE_SUFFIXES), _files_by_stem(labels_folder, suffixes)
        stems = _read_list(list_file, images.keys() | labels.keys())
        for place, what, missing in (
            (images_folder, "image", [stem for stem in stems if stem not in images]),
            (labels_folder, kind, [stem + usual_suffix for stem in stems if stem not in labels]),
        ):
            if names := list(dict.fromkeys(missing)):
                text = f"{len(names)} {what}(s) of the list missing: {listed(names)}"
                raise DataError(f"{place}: {text}; add the files or take the names off the list")
        for stem in stems:
            if (folder, stem) in found:
                report.add(DataIssue.LISTED_TWICE, stem)
            found[folder, stem] = images[stem], _only(labels[stem])
    if not found:
        raise DataError(f"{root}: the split '{split}' lists no images; write one name a line into its list")
    return list(found.values())


def _find_lists(root: Path, split: str, years: Sequence[str], task: Task) -> list[tuple[Path, Path]]:
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to the folder of the VOC data")
    lists = []
    for part in split.split("+"):
        year, colon, name = part.strip().rpartition(":")
        if not name or (colon and not year) or "/" in name or "\\" in name:
            what = f"expected a list like 'train' or '2007:train+2012:train', got '{part}'"
            raise DataError(f"{root}: split '{split}': {what}")
        for folder_year in [year] if colon else years or [""]:
            folder = find_year_folder(root, folder_year, task) if folder_year else _only_folder(root, task)
            if folder is None:
                raise DataError(f"{root}: expected VOC{folder_year}/ImageSets/{task} in it or in its VOCdevkit folder")
            lists.append((folder, folder / "ImageSets" / task / f"{name}.txt"))
    return lists


def find_year_folder(root: Path, year: str, task: Task = "Main") -> Path | None:
    """The folder of a year (``VOC2007`` for "2007") in or below ``root``, or None."""
    folder = f"VOC{year}"
    candidates = [root / folder, root / "VOCdevkit" / folder] + ([root] if root.name == folder else [])
    return next((path for path in candidates if os.path.isdir(path / "ImageSets" / task)), None)


def _only_folder(root: Path, task: Task) -> Path:
    if (root / "ImageSets" / task).is_dir():
        return root
    fix = f"set data.root to the folder that holds {_LABELS[task][1]}, ImageSets and JPEGImages"
    lists = [*root.glob(f"VOC*/ImageSets/{task}"), *root.glob(f"*/VOC*/ImageSets/{task}")]
    if years := sorted({path.parts[-3][3:] for path in lists}):
        fix = f"it holds the years {', '.join(years)}: set data.years, or write the split as '{years[0]}:train'"
    raise DataError(f"{root}: there is no ImageSets/{task} in it; {fix}")


def _read_list(path: Path, present: Container[str]) -> list[str]:
    """The names in a list; a name with a file (``present``) is whole, even if it looks like two columns: ``cell 1``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        there = sorted(item.stem for item in path.parent.glob("*.txt"))
        near = did_you_mean(path.stem, there)
        raise DataError(f"{path}: there is no such list{near}; the lists there: {listed(there) or 'none'}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the list: {error}") from None
    stems = []
    for number, line in enumerate(lines, start=1):
        stem, words = line.strip(), line.split()
        if not stem or stem.startswith("#"):
            continue
        if stem not in present and len(words) == 2 and words[1] in ("-1", "0", "1"):  # cat_train.txt: 2008_000008 -1
            stem = words[0]
        if "/" in stem or "\\" in stem or Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            what = "the name of an image without folder and suffix"
            raise DataError(f"{path}:{number}: expected {what}, got {shown(stem)}")
        stems.append(stem)
    return stems


def _only(files: Sequence[Path]) -> Path:
    if len(files) > 1:
        names = listed([path.name for path in files])
        raise DataError(f"{files[0].parent}: several files with one name: {names}; keep one of them")
    return files[0]


def _files_by_stem(folder: Path, suffixes: Set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes:
            found.setdefault(stem, []).append(folder / name)
    return found


def read_voc_xml(path: Path) -> VocAnnotation:
    """Read an annotation file; a DataError if it is missing, wrong, or has a document type: no entity expands."""
    root = parse_xml(path, "add it or take the image off the list")
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation> as the outermost element, got {shown(root.tag)}")
    height, width = (
        int(_number(path, f"{tag} of <size>", _text(root, f"size/{tag}") or "0")) for tag in ("height", "width")
    )
    objects = root.findall("object")  # direct children only: the <part>s of an object have boxes too
    named = [_name_and_corners(path, item) for item in objects]
    return VocAnnotation(
        filename=_text(root, "filename"),
        hw=(height, width) if height > 0 and width > 0 else None,
        names=tuple(name for name, _ in named),
        boxes=np.array([corners for _, corners in named]).reshape(-1, 4) - np.array([1.0, 1.0, 0.0, 0.0]),
        difficult=_flags(path, objects, "difficult"),
        truncated=_flags(path, objects, "truncated"),
    )


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _name_and_corners(path: Path, item: ET.Element) -> tuple[str, list[float]]:
    if not (name := _text(item, "name")):
        raise DataError(f"{path}: an <object> has no <name>; add its class or remove the object")
    check_class_name(str(path), name)
    if (box := item.find("bndbox")) is None:
        raise DataError(f"{path}: the object {shown(name)} has no <bndbox>; add it or remove the object")
    corners = ("xmin", "ymin", "xmax", "ymax")
    return name, [_number(path, f"{tag} of the object {shown(name)}", _text(box, tag)) for tag in corners]


def _flags(path: Path, objects: Sequence[ET.Element], tag: str) -> BoolArray:
    texts = [_text(item, tag) for item in objects]
    unset = ("", "unspecified")
    return np.array([t.lower() not in unset and _number(path, f"<{tag}>", t) != 0 for t in texts], dtype=np.bool_)


def _number(path: Path, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < LARGEST:  # NaN is not less
        raise DataError(f"{path}: {what}: expected a number, got {shown(text)}")
    return value
