"""Writes the Pascal VOC layout (Everingham et al. 2010): single annotation files, whole data sets, and sets with masks
that are drawn image by image.

What it writes reads back the same. It loads none of the training libraries: predictions are exported with it.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.data.annotations.model import StatedObject
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.copies import Losses
from detseg.data.images.find import copy_names, new_folder, place_image
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.errors import DataError
from detseg.messages import listed, shown
from detseg.structures import BoolArray, FloatArray, IntArray, UInt8Array

_MAX_INDEX = 254  # of a palette image for classes and objects; 255 means void
_MAPS = ("SegmentationClass", "SegmentationObject")
_ROUNDING = 1e-9  # pixels; differences of corners are not exact
_LISTS = ("ImageSets/Main", "ImageSets/Segmentation")
# XML 1.0, section 2.2, without the control characters that readers drop or turn into spaces.
_XML_TEXT = re.compile(r"[\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


@dataclass(frozen=True, eq=False)
class VocAnnotation:
    """The content of an annotation file with N objects."""

    filename: str  # of the image; empty when not stated
    hw: tuple[int, int] | None  # height and width in pixels; None when not stated, or stated as 0
    names: tuple[str, ...]
    boxes: FloatArray  # (N, 4) float64 xyxy, 0-based and half-open: (xmin - 1, ymin - 1, xmax, ymax)
    difficult: BoolArray  # (N,)
    truncated: BoolArray  # (N,)


def write_voc_xml(
    path: Path,
    annotation: VocAnnotation,
    folder: str = "",
    segmented: bool = False,
    scores: Sequence[float] | None = None,
) -> None:
    """Write an annotation file, with corners to a thousandth of a pixel; an existing one is replaced.

    Boxes thinner than a pixel, which inclusive corners cannot state, become one pixel wide (high) about their centre.
    ``folder`` is that of the image, "" to state none; ``segmented``: whether it has masks; ``scores``: of N detections
    in [0, 1], as ``<score>``, which VOC's readers ignore. A ValueError if there is no size, not one score for each
    object, or a name with characters that XML cannot hold.
    """
    if annotation.hw is None:
        raise ValueError("an annotation is written with the size of its image; got none")
    height, width = annotation.hw
    if scores is not None and len(scores) != len(annotation.names):
        raise ValueError(f"expected a score for each of {len(annotation.names)} objects, got {len(scores)}")
    root = ET.Element("annotation")
    _add(root, **({"folder": folder} if folder else {}), filename=annotation.filename)
    _add(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=int(segmented))
    for i, (name, (x1, y1, x2, y2)) in enumerate(zip(annotation.names, annotation.boxes.tolist(), strict=True)):
        item = ET.SubElement(root, "object")
        flags = {"truncated": int(annotation.truncated[i]), "difficult": int(annotation.difficult[i])}
        _add(item, name=name, pose="Unspecified", **flags)
        (xmin, xmax), (ymin, ymax) = _inclusive(x1, x2, width), _inclusive(y1, y2, height)
        _add(ET.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
        if scores is not None:
            _add(item, score=f"{scores[i]:.6f}")
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8")


def _inclusive(start: float, end: float, side: int) -> tuple[float, float]:
    """0-based half-open → 1-based inclusive along an axis of ``side`` pixels."""
    if end - start >= 1:
        return start + 1, end
    middle = min(max((start + 1 + end) / 2, 1.0), float(side))  # the pixel about the centre, inside the image
    return middle, middle


def check_xml_text(what: str, text: str) -> None:
    """Raise a ValueError that begins with ``what`` if XML cannot hold a text."""
    if not _XML_TEXT.fullmatch(text):
        raise ValueError(f"{what}: XML has no place for some of the characters of {shown(text)}")


def _add(parent: ET.Element, **values: str | float) -> None:
    for tag, value in values.items():
        text = value if isinstance(value, str) else f"{round(value, 3)}".removesuffix(".0")
        check_xml_text(tag, text)
        ET.SubElement(parent, tag).text = text


def write_voc_set(splits: Mapping[str, DetectionDataset], target: Path, link: bool = False) -> list[str]:
    """Write splits of boxes, with a list in ``ImageSets/Main`` for each; see `WRITERS`."""
    new_folder(target)
    for folder in ("JPEGImages", "Annotations", _LISTS[0]):
        (target / folder).mkdir(parents=True)
    paths = {s: copy_names([d.packed.path(k) for k in range(len(d))], s, by_stem=False) for s, d in splits.items()}
    names, losses = _plain_names(paths), Losses("VOC")
    for split, dataset in splits.items():
        _check_names(dataset.classes.names)
        losses.add_ids("image", dataset.packed.image_ids.tolist())
        for index, name in enumerate(names[split]):
            objects = dataset.packed.stated(index)
            for item in objects:
                _add_losses(losses, item)
            _add_losses_of_name(losses, paths[split][index], name)
            annotation = VocAnnotation(
                filename=name,
                hw=dataset.hw(index),
                names=tuple(dataset.classes.names[item.label] for item in objects),
                boxes=np.array([item.box for item in objects]).reshape(-1, 4),
                difficult=np.array([item.difficult or item.crowd for item in objects], dtype=np.bool_),
                truncated=np.array([item.truncated for item in objects], dtype=np.bool_),
            )
            write_voc_xml(target / "Annotations" / f"{Path(name).stem}.xml", annotation, folder="JPEGImages")
            place_image(dataset.path(index), target / "JPEGImages" / name, link)
        stems = [Path(name).stem for name in names[split]]
        (target / _LISTS[0] / f"{split}.txt").write_text("\n".join([*stems, ""]), encoding="utf-8")
    order = _lost_order(next(iter(splits.values())), losses)
    return losses.lines() + order


def _add_losses(losses: Losses, item: StatedObject) -> None:
    x1, y1, x2, y2 = item.box
    area = max(x2 - x1, 0) * max(y2 - y1, 0)
    if item.segmentation is not None:
        losses.add("masks of {}: the boxes are written, and their areas count; VOC's XML has no masks of objects")
    elif abs(item.area - area) > 1e-3 * max(area, 1):
        losses.add("areas of {}: those of the boxes count; VOC states none")
    if item.crowd:
        losses.add("crowd regions of {}: written as difficult objects; VOC has none")
    if min(x2 - x1, y2 - y1) < 1 - _ROUNDING:
        what = "thinner than a pixel or inverted, written one pixel wide or high; VOC's corners are inclusive"
        losses.add(f"boxes of {{}}: {what}")
    if any(abs(value - round(value, 3)) > _ROUNDING for value in item.box):
        losses.add("corners of {}: rounded to a thousandth of a pixel")


def _add_losses_of_name(losses: Losses, path: str, name: str) -> None:
    """Count what the name of an image's copy has lost of its path."""
    folder, _, own = path.rpartition("/")
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        losses.add("suffixes of {}: readers of VOC find images by them, and know none of these", "image")
    if folder:
        losses.add("folders of {}: VOC has one for all images", "image")
    if name != own:
        losses.add("names of {}: changed, since all lie in one folder and are listed without suffix", "image")


def _lost_order(first: DetectionDataset, losses: Losses) -> list[str]:
    """What is lost of the classes, by the first split, which names them when they are read: a line on their order."""
    names = [name.strip() for name in first.classes.names]
    for name in first.classes.names:
        if name != name.strip():
            losses.add("spaces around the names of {}: readers of VOC take them off", "class")
    losses.add_ids("class", first.classes.source_ids)
    if names != sorted({names[label] for label in first.packed.labels.tolist()}):
        what = "the order of the classes, and classes without objects in the first split"
        return [f"{what}: VOC lists no classes; read it with data.classes: {names}"]
    return []


def _check_names(names: Sequence[str]) -> None:
    """Raise a DataError where XML cannot hold a name, or a reader, which takes spaces off, would confuse two."""
    for name in names:
        if not _XML_TEXT.fullmatch(name) or not name.strip():
            raise DataError(f"the class name {shown(name)}: XML has no place for it; rename it by data.classes")
    if len({name.strip() for name in names}) < len(names):
        raise DataError(
            f"the class names {listed(names)}: VOC cannot tell them apart, since spaces around do not count"
        )


def _plain_names(paths: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """A name for each image of some splits, for one folder: its own where that is free, then with its folders; names
    that lists cannot hold are changed."""
    taken, names = set[str](), dict[str, list[str]]()
    for split, own in paths.items():
        names[split] = []
        for path in own:
            stem, suffix = os.path.splitext(path.rpartition("/")[2])
            candidates = [stem, os.path.splitext(path)[0].replace("/", "_"), f"{split}_{stem}"]
            number = 2
            while (plain := plain_stem(candidates[0])).casefold() in taken:
                del candidates[0]
                if not candidates:
                    candidates, number = [f"{stem}_{number}"], number + 1
            taken.add(plain.casefold())
            names[split].append(plain + suffix)
    return names


def plain_stem(stem: str) -> str:
    """The name of a file without suffix, changed where lists, XML, or readers that go by suffixes would misread it."""
    plain = "".join(c if c.isprintable() and _XML_TEXT.fullmatch(c) else "_" for c in stem).strip() or "_"
    if plain.startswith(".") or "\\" in plain or os.path.splitext(plain)[1].lower() in IMAGE_SUFFIXES:
        plain = plain.replace(".", "_").replace("\\", "_")
    return plain


class VocWriter:
    """Writes images one by one to a folder, ``root``, which is created: the layout with masks, complete after
    ``finish``.

    ``SegmentationClass/`` (label + 1) and ``SegmentationObject/`` (number of the object in the annotation, from 1) are
    palette images, 0 for background. ``classes``: names in label order, at most 254, which is what these can hold.
    """

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        if len(classes) > _MAX_INDEX:
            raise ValueError(f"a palette image holds at most {_MAX_INDEX} classes, got {len(classes)}")
        self.root, self.classes = root, tuple(classes)
        self._stems: dict[str, list[str]] = {}
        for folder in ("JPEGImages", "Annotations", *_MAPS, *_LISTS):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def add(
        self,
        split: str,
        stem: str,
        image: UInt8Array,
        boxes: FloatArray,
        labels: IntArray,
        masks: BoolArray,
        truncated: BoolArray,
    ) -> None:
        """Write one image, (H, W, 3) RGB, named ``stem`` without suffix, with its annotation and its two maps.

        Its objects are (N, 4) boxes, xyxy pixels, (N,) positions in the class names, (N, H, W) masks, of which the
        later one is drawn where two overlap, and (N,) VOC's flag. A ValueError if the arrays differ in N, or N exceeds
        254.
        """
        if len(labels) > _MAX_INDEX:
            raise ValueError(f"{stem}: a palette image holds at most {_MAX_INDEX} objects, got {len(labels)}")
        names = tuple(self.classes[label] for label in labels)
        annotation = VocAnnotation(f"{stem}.jpg", image.shape[:2], names, boxes, np.zeros_like(truncated), truncated)
        write_voc_xml(self.root / "Annotations" / f"{stem}.xml", annotation, folder="JPEGImages", segmented=True)
        maps = np.zeros((2, *image.shape[:2]), dtype=np.uint8)
        for number, (label, mask) in enumerate(zip(labels, masks, strict=True), start=1):
            maps[:, mask] = [[label + 1], [number]]
        for folder, indices in zip(_MAPS, maps, strict=True):
            palette_image = Image.fromarray(indices, mode="P")
            palette_image.putpalette(voc_palette())
            palette_image.save(self.root / folder / f"{stem}.png")
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / "JPEGImages" / f"{stem}.jpg", quality=95, subsampling=0)
        self._stems.setdefault(split, []).append(stem)

    def finish(self) -> None:
        """Write the lists of the splits."""
        for split, stems in self._stems.items():
            for folder in _LISTS:
                (self.root / folder / f"{split}.txt").write_text("\n".join([*stems, ""]), encoding="utf-8")


def voc_palette() -> list[int]:
    """The 256 colours of palette images (VOC development kit, ``VOClabelcolormap``) as 768 numbers R, G, B, R, …"""
    # Bit 3k + c of an index is bit 7 - k of channel c.
    return [sum((i >> (3 * k + c) & 1) << (7 - k) for k in range(3)) for i in range(256) for c in range(3)]
