"""Reads the Pascal VOC layout (Everingham et al. 2010) for detection and for semantic segmentation, and its XML files
in any other layout.

The lists in ``ImageSets/Main`` (``ImageSets/Segmentation``) name the images of a split, without suffix. The files of
an image are those with this name in ``JPEGImages`` and ``Annotations`` (``SegmentationClass``). Annotations are XML
with 1-based inclusive corners. Where there is no ``ImageSets``, as in exports of labelImg, Roboflow and Label Studio, a
split is a folder or a text file, and an image has the name of its annotation, or that which <filename> states.
"""

from __future__ import annotations

import os
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Container, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from detseg.data.annotations.classes import Classes, are_of_another_set, check_class_name
from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.files import parse_number, parse_xml, read_list
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import pack_images
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset, inspect_masks, mask_files
from detseg.data.formats.voc_writer import VocAnnotation
from detseg.data.images.find import (
    HEIC_SUFFIXES,
    Files,
    data_folder,
    find_images,
    image_sizes,
    inner_path,
    report_heic,
    split_names,
    stated_size,
)
from detseg.data.images.masks import Rgb
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.errors import DataError, MissingSplitError, check_type
from detseg.messages import counted, did_you_mean, listed, shown

Task = Literal["Main", "Segmentation"]  # the folder in ImageSets with the lists

_READ = ("name", "bndbox", "difficult", "truncated")  # of an <object>
_NO_VALUE = frozenset({"0", "Unknown", "Unspecified"})

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
    """Read one split of a data set in VOC layout for detection; image ids are 1 to I in the order of the lists, or of
    the paths of the annotations.

    Args:
        root: the folder with ``ImageSets``, ``Annotations`` and ``JPEGImages`` (or ``images``); or ``VOCdevkit``, which
            holds such folders (``VOC2007``, ``VOC2012``), or the folder that holds ``VOCdevkit``; or, without
            ``ImageSets``, any folder of XML files and images.
        split: lists in ``ImageSets/Main`` without suffix, each maybe with its year: ``2007:trainval+2012:trainval``.
            Without ``ImageSets``: folders below ``root``, of which all XML files are read (``.``: the root itself), or
            text files that list images, XML files or stems. ``val`` is also found as ``valid`` or ``validation``.
        years: where a list without a year is read, e.g. ``("2007", "2012")``; empty: in ``root`` itself.
        classes: the table of the training split (``train.classes``), which must have all classes of the annotations; or
            a selection of names in label order, in which ``{"truck": ["lorry", "van"]}`` merges: objects of other
            classes are left out and counted; None: the sorted names of this split's annotations, which is right for
            the training split only.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a folder, list, annotation or image is missing or wrong, or an annotation has an unknown class.
    """
    root, report = data_folder(root), report or DataReport()
    check_type("split", split, str, "the name of a list or folder, such as 'train'")
    loose = _loose_files(root, split, report) if not years and _has_no_lists(root, split) else None
    files = _listed_files(root, split, years, "Main", report) if loose is None else loose.files
    collector = AnnotationCollector(root)
    found = _with_images(root, files, loose, report)
    paths = [image.relative_to(root).as_posix() for image, _, _ in found]
    sizes = image_sizes(root, paths, report, [annotation.hw for _, _, annotation in found])
    for path, hw, (image, xml, annotation) in zip(paths, sizes, found, strict=True):
        if hw is None:
            continue
        if annotation.filename.replace("\\", "/").rpartition("/")[2] not in (
            "",
            image.name,
        ):  # sub/a.jpg, as CVAT writes
            report.add(DataIssue.WRONG_FILENAME, xml.name)
        if num_zeros := int((annotation.boxes[:, :2] == -1).any(axis=1).sum()):
            report.add(DataIssue.ZERO_BASED, xml.name, num_zeros)
        collector.add_image(path, hw, xml)
        columns = zip(
            annotation.names, annotation.boxes.tolist(), annotation.difficult, annotation.truncated, strict=True
        )
        for name, box, difficult, truncated in columns:
            collector.add_object(name, box, difficult=bool(difficult), truncated=bool(truncated))
    packed, table = collector.pack(classes, report, masks=False, strict=True)
    return DetectionDataset(packed, root, table, report, " ".join(["voc", *years, split]))


def _with_images(
    root: Path, files: Sequence[tuple[list[Path], Path]], loose: _LooseFiles | None, report: DataReport
) -> list[tuple[Path, Path, VocAnnotation]]:
    """The image, file and content of each annotation that can be used."""
    found: dict[Path, tuple[Path, VocAnnotation]] = {}
    missing: list[str] = []
    for candidates, xml in files:
        try:
            annotation = read_voc_xml(xml, report)
        except DataError as error:
            report.wrong(DataIssue.WRONG_FILE, str(xml), str(error))
            continue
        if loose is not None and not candidates:
            candidates = loose.images_named(annotation.filename, xml)
        if not candidates:
            missing.append(annotation.filename or f"that of {xml.name}")
            continue
        # <filename> decides between a.jpg and a.png, and nothing else.
        image = _only([path for path in candidates if path.name == annotation.filename] or candidates, report)
        if image is not None and image in found:
            what = f"{xml}: its image {image.relative_to(root)} is that of {found[image][0].relative_to(root)}, too"
            report.wrong(DataIssue.UNCLEAR_IMAGE, str(xml), f"{what}; keep one annotation of each image")
        elif image is not None:
            found[image] = xml, annotation
    if missing:
        fix = "add the files, remove their annotations, or leave them out with data.on_missing=skip"
        message = f"{root}: {len(missing)} of {len(files)} images missing: {listed(missing)}; {fix}"
        if len(missing) == len(files):
            raise DataError(message)
        report.wrong(DataIssue.MISSING_IMAGE, missing[0], message, len(missing))
    if loose is not None:
        for path in sorted(loose.split_images - found.keys()):
            report.add(DataIssue.UNLABELLED, path.relative_to(root).as_posix())
    names = {path: path.relative_to(root).as_posix() for path in found}
    heic = report_heic(root, list(names.values()), report)
    return [(path, *found[path]) for path, name in names.items() if name not in heic]


def read_voc_masks(
    root: Path | str,
    split: str,
    years: Sequence[str] = (),
    classes: Classes = None,
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    skip_bad: bool = False,
    threshold: int | None = None,
    report: DataReport | None = None,
    *,
    colors: Sequence[Rgb] | None = None,
    ignore_colors: Sequence[Rgb] = (),
) -> SegmentationDataset:
    """Read one split of a data set in VOC layout for semantic segmentation: lists in ``ImageSets/Segmentation``, masks
    in ``SegmentationClass``.

    Arguments as in `read_voc` and `read_mask_folder`; ``classes`` None: those of the file in ``root`` that names them.
    A DataError if a folder, list, image or mask is missing or wrong, or the classes are not named.
    """
    root, report = data_folder(root), report or DataReport()
    check_type("split", split, str, "the name of a list, such as 'train'")
    files = _listed_files(root, split, years, "Segmentation", report)
    pairs = [(image, mask) for found, mask in files if (image := _only(found, report)) is not None]
    images = pack_images([image.relative_to(root).as_posix() for image, _ in pairs])
    masks = pack_images([mask.relative_to(root).as_posix() for _, mask in pairs])
    source, table = mask_files(
        masks, root, root, classes, values, ignore_index, colors, ignore_colors, threshold=threshold
    )
    dataset = SegmentationDataset(images, source, root, table, report, " ".join(["voc", *years, split]))
    inspect_masks(dataset, not are_of_another_set(classes), skip_bad)
    return dataset


def _has_no_lists(root: Path, split: str) -> bool:
    """Whether splits are folders or lists of files: there is no ``ImageSets/Main`` with lists in the root, nor one in
    years of it."""
    own = (root / "ImageSets" / "Main").glob("*.txt")
    return ":" not in split and not any(own) and not _lists_of_years(root, "Main")


def _lists_of_years(root: Path, task: Task) -> list[Path]:
    return [*root.glob(f"VOC*/ImageSets/{task}"), *root.glob(f"*/VOC*/ImageSets/{task}")]


@dataclass(frozen=True)
class _LooseFiles:
    """The annotations of a split without ``ImageSets``."""

    files: list[tuple[list[Path], Path]]  # the images with the stem of each annotation, and the annotation
    images: Files  # all among which the images of annotations are looked for
    split_images: set[Path]  # those in the split's folders

    def images_named(self, filename: str, xml: Path) -> list[Path]:
        """The images that <filename> may mean, of whose path only the last part counts."""
        return self.images.named(filename.replace("\\", "/").rpartition("/")[2], xml)


def _loose_files(root: Path, split: str, report: DataReport) -> _LooseFiles:
    image_suffixes = IMAGE_SUFFIXES | HEIC_SUFFIXES
    all_images = Files(root / path for path in find_images(root, suffixes=image_suffixes))
    all_xmls = Files(root / path for path in find_images(root, suffixes={".xml"}))
    found, split_images = dict[Path, list[Path]](), set[Path]()
    for part in split.split("+"):
        place = _split_place(root, part.strip(), all_xmls.paths)
        if place.is_dir():
            inside = [path for path in all_images.paths if path.is_relative_to(place)]
            pool = Files(inside) if inside else all_images
            split_images.update(inside)
            xmls = [path for path in all_xmls.paths if path.is_relative_to(place)]
            if not xmls:  # images/train, and all XML files in one folder
                own = (_only(files, report) for path in inside if (files := all_xmls.with_stem(path.stem, path)))
                xmls = [xml for xml in own if xml is not None]
            if not xmls:
                raise DataError(f"{place}: there are no XML files in it; correct data.root or the split")
        else:
            pool, xmls = all_images, _listed_annotations(root, place, all_images, all_xmls, report)
        for xml in xmls:
            if xml in found:
                report.add(DataIssue.LISTED_TWICE, xml.relative_to(root).as_posix())
            found[xml] = pool.with_stem(xml.stem, xml)
    return _LooseFiles([(images, xml) for xml, images in found.items()], all_images, split_images)


def _split_place(root: Path, part: str, xmls: Sequence[Path]) -> Path:
    """The folder or list of a split."""
    for name in split_names(part) if part else ():
        if (inside := inner_path(name)) is None:
            raise DataError(f"{root}: split '{part}': expected a folder or list in it")
        places = [root / inside, root / f"{inside}.txt"]
        if place := next((place for place in places if place.exists()), None):
            return place
    fix = "nor are there XML files below it: set data.root to the folder that holds them"
    if xmls:
        folders = sorted({xml.relative_to(root).parts[0] for xml in xmls if xml.parent != root})
        where = f"its XML files lie in {listed(folders)}" if folders else "its XML files lie in it"
        fix = f"{where}: name their folder as split, or . for all of them (data.train_split=. data.val_fraction=0.2)"
    raise MissingSplitError(f"{root}: there is no ImageSets/Main in it, and no folder or list '{part}'; {fix}")


def _listed_annotations(root: Path, path: Path, images: Files, xmls: Files, report: DataReport) -> list[Path]:
    """The annotations of the images, XML files or stems in a text file."""
    known_images, known_xmls = set(images.paths), set(xmls.paths)

    def candidates(name: str) -> list[Path]:
        entry = root / posixpath.normpath(name)
        if entry in known_xmls:
            return [entry]
        is_image = entry in known_images or ("/" not in name and entry.suffix.lower() in IMAGE_SUFFIXES)
        of_image = xmls.with_stem(entry.stem, entry) if is_image else []
        own = of_image or xmls.with_stem(entry.name, entry)
        first = name.split()[0]
        return own if own or first == name else candidates(first)  # image and XML file, or a name and numbers

    found, missing = list[Path](), list[str]()
    for number, name in read_list(path, lambda name: bool(candidates(name))):
        if inner_path(name) is None:
            raise DataError(f"{path}:{number}: expected a path below {root}, got {shown(name)}; write it so")
        if not (own := candidates(name)):
            missing.append(name)
        elif (xml := _only(own, report)) is not None:
            found.append(xml)
    if missing:
        message = f"{path}: {len(missing)} of its files missing, or without an XML file: {listed(missing)}"
        message = f"{message}; add the files, or take the names off the list"
        if not found:
            raise DataError(message)
        report.wrong(DataIssue.WRONG_FILE, missing[0], message, len(missing))
    if not found:
        raise DataError(f"{path}: it lists no images; write one path a line, relative to {root}")
    return found


def _listed_files(
    root: Path, split: str, years: Sequence[str], task: Task, report: DataReport
) -> list[tuple[list[Path], Path]]:
    """The image files, and the annotation or mask, with each name in the lists; repeated names are reported."""
    kind, labels_name, usual_suffix, suffixes = _LABELS[task]
    found: dict[tuple[Path, str], tuple[list[Path], Path]] = {}
    for folder, list_file in _find_lists(root, split, years, task):
        images_folder, labels_folder = folder / "JPEGImages", folder / labels_name
        if not images_folder.is_dir() and (folder / "images").is_dir():
            images_folder = folder / "images"
        images = _files_by_name(images_folder, IMAGE_SUFFIXES | HEIC_SUFFIXES)
        labels = _files_by_name(labels_folder, suffixes)
        stems = _read_list(list_file, images.keys() | labels.keys())
        issue = DataIssue.WRONG_FILE if task == "Main" else DataIssue.NO_MASK
        for place, what, there, suffix, wrong in (
            (images_folder, "image", images, "", DataIssue.MISSING_IMAGE),
            (labels_folder, kind, labels, usual_suffix, issue),
        ):
            if names := list(dict.fromkeys(stem + suffix for stem in stems if stem not in there)):
                text = f"{counted(len(names), what)} of the list missing: {listed(names)}"
                message = f"{place}: {text}; add the files or take the names off the list"
                if len(names) == len(set(stems)):
                    raise DataError(message)
                more = ", or leave them out with data.on_missing=skip" if what == "image" else ""
                report.wrong(wrong, str(place / names[0]), message + more, len(names))
        for stem in stems:
            if (folder, stem) in found:
                report.add(DataIssue.LISTED_TWICE, stem)
            if stem in images and stem in labels and (label := _only(labels[stem], report)) is not None:
                found[folder, stem] = images[stem], label
    if not found:
        raise DataError(f"{root}: the split '{split}' lists no images; write one name a line into its list")
    return list(found.values())


def _find_lists(root: Path, split: str, years: Sequence[str], task: Task) -> list[tuple[Path, Path]]:
    lists = []
    for part in split.split("+"):
        year, colon, name = part.strip().rpartition(":")
        if not name or (colon and not year) or "/" in name or "\\" in name:
            what = f"expected a list like 'train' or '2007:train+2012:train', got '{part}'"
            raise DataError(f"{root}: split '{split}': {what}")
        for folder_year in [year] if colon else years or [""]:
            folder = find_year_folder(root, folder_year, task) if folder_year else _only_folder(root, task, name)
            if folder is None:
                raise DataError(f"{root}: expected VOC{folder_year}/ImageSets/{task} in it or in its VOCdevkit folder")
            files = [folder / "ImageSets" / task / f"{known}.txt" for known in split_names(name)]
            there = sorted(item.stem for item in files[0].parent.glob("*.txt"))
            if not (existing := [file for file in files if file.is_file()]):
                what = f"there is no such list{did_you_mean(name, there)}; the lists there: {listed(there) or 'none'}"
                raise MissingSplitError(f"{files[0]}: {what}")
            lists.append((folder, existing[0]))
    return lists


def find_year_folder(root: Path, year: str, task: Task = "Main") -> Path | None:
    """The folder of a year (``VOC2007`` for "2007") in or below ``root``, or None."""
    folder = f"VOC{year}"
    candidates = [root / folder, root / "VOCdevkit" / folder] + ([root] if root.name == folder else [])
    return next((path for path in candidates if os.path.isdir(path / "ImageSets" / task)), None)


def _only_folder(root: Path, task: Task, name: str) -> Path:
    if (root / "ImageSets" / task).is_dir():
        return root
    fix = f"set data.root to the folder that holds {_LABELS[task][1]}, ImageSets and JPEGImages"
    of_years = _lists_of_years(root, task)
    if years := sorted({path.parts[-3][3:] for path in of_years}):
        fix = f"it holds the years {', '.join(years)}: set data.years, or write the split as '{years[0]}:{name}'"
        if not any((place / f"{known}.txt").is_file() for place in of_years for known in split_names(name)):
            what = f"no list '{name}' in ImageSets/{task} of the years that it holds, {', '.join(years)}"
            raise MissingSplitError(f"{root}: there is {what}; correct the split, or leave it out")
    raise DataError(f"{root}: there is no ImageSets/{task} in it; {fix}")


def _read_list(path: Path, present: Container[str]) -> list[str]:
    """The names in a list, without a suffix of images; a name with a file (``present``) is whole, even if it looks like
    two columns, ``cell 1``, or like a comment, ``#12``."""
    stems = []
    for number, stem in read_list(path, present.__contains__):
        words = stem.split()
        if stem not in present and len(words) == 2 and words[1] in ("-1", "0", "1"):  # cat_train.txt: 2008_000008 -1
            stem = words[0]
        plain, suffix = os.path.splitext(stem)
        if stem not in present and suffix.lower() in IMAGE_SUFFIXES:  # a.jpg, JPEGImages/a.jpg
            below = plain.removeprefix("JPEGImages/")
            stem = plain if plain in present else below if below in present else stem
        if stem not in present and (inner_path(stem) is None or "\\" in stem or stem.endswith("/")):
            what = "the name of an image, or its path in the folder of images"
            raise DataError(f"{path}:{number}: expected {what}, got {shown(stem)}; write it so")
        stems.append(stem)
    return stems


def _only(files: Sequence[Path], report: DataReport) -> Path | None:
    if len(files) > 1:
        folders = {path.parent for path in files}
        names = [path.name for path in files] if len(folders) == 1 else [str(path) for path in files]
        message = f"{files[0].parent}: several files with one name: {listed(names)}; keep one of them"
        report.wrong(DataIssue.UNCLEAR_IMAGE, str(files[0]), message)
        return None
    return files[0]


def _files_by_name(folder: Path, suffixes: Set[str]) -> dict[str, list[Path]]:
    """The files in and below a folder by their paths without suffix."""
    found: dict[str, list[Path]] = {}
    for path in find_images(folder, suffixes=suffixes) if folder.is_dir() else []:
        found.setdefault(path.with_suffix("").as_posix(), []).append(folder / path)
    return found


def read_voc_xml(path: Path, report: DataReport | None = None) -> VocAnnotation:
    """Read an annotation file; a DataError if it is missing, wrong, or has a document type: no entity expands.
    ``report`` may accept wrong objects, which are left out."""
    root, report = parse_xml(path, "add it or take the image off the list"), report or DataReport()
    if root.tag != "annotation":
        raise DataError(f"{path}: expected <annotation> as the outermost element, got {shown(root.tag)}")
    objects = list[tuple[str, list[float], bool, bool]]()
    for item in root.findall("object"):  # direct children only: the <part>s of an object have boxes too
        try:
            name, corners = _name_and_corners(path, item)
            objects.append((name, corners, _flag(path, item, "difficult"), _flag(path, item, "truncated")))
        except DataError as error:
            report.wrong(DataIssue.WRONG_OBJECT, str(path), str(error))
        report.unread("object", (part.tag for part in item if part.tag not in _READ and _says_more(part)))
    report.unread("annotation", (part.tag for part in root if part.tag in ("source", "owner") and _says_more(part)))
    return VocAnnotation(
        filename=_text(root, "filename"),
        hw=stated_size(f"{path}: <size>", _text(root, "size/height"), _text(root, "size/width")),
        names=tuple(item[0] for item in objects),
        boxes=np.array([item[1] for item in objects]).reshape(-1, 4) - np.array([1.0, 1.0, 0.0, 0.0]),
        difficult=np.array([item[2] for item in objects], dtype=np.bool_),
        truncated=np.array([item[3] for item in objects], dtype=np.bool_),
    )


def _says_more(part: ET.Element) -> bool:
    return not _NO_VALUE.issuperset("".join(part.itertext()).split())


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _name_and_corners(path: Path, item: ET.Element) -> tuple[str, list[float]]:
    if not (name := _text(item, "name")):
        raise DataError(f"{path}: an <object> has no <name>; add its class or remove the object")
    check_class_name(str(path), name)
    if (box := item.find("bndbox")) is None:
        raise DataError(f"{path}: the object {shown(name)} has no <bndbox>; add it or remove the object")
    corners = ("xmin", "ymin", "xmax", "ymax")
    for element, tag in ((item, "name"), (item, "bndbox"), *((box, tag) for tag in corners)):
        if len(element.findall(tag)) > 1:
            raise DataError(f"{path}: the object {shown(name)} has several <{tag}>; write an <object> for each")
    return name, [_number(path, f"{tag} of the object {shown(name)}", _text(box, tag)) for tag in corners]


def _flag(path: Path, item: ET.Element, tag: str) -> bool:
    text = _text(item, tag)
    return text.lower() not in ("", "unspecified") and _number(path, f"<{tag}>", text) != 0


def _number(path: Path, what: str, text: str) -> float:
    try:
        return parse_number(text)
    except ValueError as error:
        raise DataError(f"{path}: {what}: {error}") from None
