"""Detections in the formats of other programs, one class a format; all read what comes from the journal.

Letters for dimensions: N objects of one image.
"""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detseg.atomic_write import write_errors, write_text
from detseg.data.annotations.model import StatedObject
from detseg.data.formats.coco_writer import MASK_RESULTS, RESULTS, CocoFile, result_files
from detseg.data.formats.copies import Losses
from detseg.data.formats.cvat import CvatFile, add_cvat_object
from detseg.data.formats.labelme import check_labelme_names, labelme_shapes, write_labelme_file
from detseg.data.formats.voc_writer import VocAnnotation, check_xml_text, write_voc_xml
from detseg.data.formats.yolo_writer import write_yolo_boxes, write_yolo_polygons
from detseg.errors import DataError
from detseg.ops.regions import mask_polygons
from detseg.predict.outputs.output import ExistingFiles, ImageFile, write_whole
from detseg.predict.results import Detections
from detseg.structures import ClassTable


class DetectionFormat(ABC):
    """Writes detections, image by image; complete after ``finish``.

    Args:
        out: the folder to write to.
        classes: the classes that may occur. DataError: the format has no place for a name.
        existing: what becomes of files of single images that exist.
    """

    per_image: tuple[tuple[str, str], ...] = ()
    """Folders below ``out`` with a file for each image, and its suffix."""
    is_edited = False
    """Whether people correct the files, so that they are replaced only on request."""

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        self.out, self.classes, self.existing = out, classes, existing

    def files(self, image: Path) -> list[Path]:
        """The files for an image, by its name. DataError: the format has no place for it."""
        return [self._file(folder, image, suffix) for folder, suffix in self.per_image]

    @abstractmethod
    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Add the detections of an image of height and width ``hw`` pixels."""

    @abstractmethod
    def finish(self) -> list[str]:
        """Write what is of all images; returns the names of what was written, for people."""

    def _file(self, folder: str, image: Path, suffix: str) -> Path:
        return (self.out / folder / image).with_suffix(suffix)


class Coco(DetectionFormat):
    """Results and categories as JSON (Lin et al. 2014); nothing is lost."""

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        super().__init__(out, classes, existing)
        self._entries: list[dict[str, Any]] = []
        self._file_of_images = CocoFile(classes)
        self._with_masks = False

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Keep the entries."""
        self._entries += found.to_coco(image.number)
        self._file_of_images.add(image.number, image.name.as_posix(), hw)
        self._with_masks |= found.masks is not None

    def finish(self) -> list[str]:
        """Write the files of results and that of images."""
        images = {key: self._file_of_images.content[key] for key in ("images", "categories")}
        contents = result_files(self._entries, self._with_masks) | {"images.json": images}
        for file, content in contents.items():
            write_whole(self.out / file, json.dumps(content))
        without_boxes = [f"{MASK_RESULTS} (without boxes, to score as segm)"] if self._with_masks else []
        return [RESULTS, *without_boxes, "images.json"]


class Voc(DetectionFormat):
    """Pascal VOC's XML (Everingham et al. 2010), with scores; no masks."""

    per_image = (("annotations", ".xml"),)
    is_edited = True

    def files(self, image: Path) -> list[Path]:
        """Names are checked: a file's may hold anything."""
        (file,) = super().files(image)
        _check_name(image, file)
        return [file]

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Write the file of an image."""
        (path,) = self.files(image.name)
        no = np.zeros(len(found), dtype=np.bool_)
        boxes = found.boxes.astype(np.float64)
        annotation = VocAnnotation(image.name.name, hw, tuple(found.names), boxes, difficult=no, truncated=no)
        folder = "" if image.name.parent == Path() else image.name.parent.as_posix()
        with self.existing.write(path) as file, write_errors(file):
            write_voc_xml(file, annotation, folder, scores=found.scores.tolist())

    def finish(self) -> list[str]:
        """There is no file of all images."""
        return ["annotations/ (VOC XML)"]


class Yolo(DetectionFormat):
    """YOLO text: boxes with scores, and polygons where there are masks."""

    per_image = (("labels", ".txt"), ("segments", ".txt"))
    is_edited = True

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        super().__init__(out, classes, existing)
        self._num_empty = 0
        self._with_masks = False

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Write the files of an image."""
        labels, segments = self.files(image.name)
        with self.existing.write(labels) as file:
            write_yolo_boxes(file, hw, found.labels, found.boxes, found.scores)
        if found.masks is not None:
            self._with_masks = True
            with self.existing.write(segments) as file:
                self._num_empty += write_yolo_polygons(file, found.labels, found.masks)

    def finish(self) -> list[str]:
        """Write the names of the classes."""
        with self.existing.write(self.out / "classes.txt") as file:
            write_whole(file, "".join(f"{name}\n" for name in self.classes.names))
        left_out = f"; {self._num_empty} without a pixel are not in it" if self._num_empty else ""
        segments = [f"segments/ (polygons{left_out})"] if self._with_masks else []
        return ["labels/ (YOLO text)", *segments, "classes.txt"]


class LabelMe(DetectionFormat):
    """LabelMe's JSON, which opens with the image where that lies; scores as X-AnyLabeling has them."""

    per_image = (("labelme", ".json"),)
    is_edited = True

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        super().__init__(out, classes, existing)
        check_labelme_names(classes.names)

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Write the file of an image."""
        (path,) = self.files(image.name)
        shapes: list[dict[str, Any]] = []
        for number, (stated, name, score) in enumerate(_stated(found), start=1):
            of_object = labelme_shapes(stated, name, number, hw, Losses("LabelMe"))
            shapes += [shape | {"score": score} for shape in of_object]
        there = image.name  # of what is in a ZIP file or on a server there is no path
        if isinstance(image.path, Path):
            real = os.path.join(os.path.realpath(image.path.parent), image.path.name)
            there = Path(os.path.relpath(real, os.path.realpath(path.parent)))
        with self.existing.write(path) as file:
            write_labelme_file(file, there.as_posix(), hw, shapes)

    def finish(self) -> list[str]:
        """There is no file of all images."""
        return ["labelme/ (LabelMe JSON)"]


class Cvat(DetectionFormat):
    """CVAT's XML for images, 1.1, which is uploaded to a task with these images; it has no scores."""

    FILE = "cvat.xml"

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        super().__init__(out, classes, existing)
        self._content = CvatFile(classes.names)

    def files(self, image: Path) -> list[Path]:
        """None of its own; names are checked."""
        _check_name(image, self.out / self.FILE)
        return []

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Keep the shapes."""
        element = self._content.add_image(image.name.as_posix(), hw)
        for number, (stated, name, _) in enumerate(_stated(found), start=1):
            add_cvat_object(element, stated, name, number, hw, Losses("CVAT"), source="auto")

    def finish(self) -> list[str]:
        """Write the file."""
        self._content.write(self.out / self.FILE)
        return [f"{self.FILE} (CVAT for images 1.1)"]


class Csv(DetectionFormat):
    """A table, a row for each object."""

    FILE = "detections.csv"
    _COLUMNS = ("image", "name", "label", "score", "x1", "y1", "x2", "y2")

    def __init__(self, out: Path, classes: ClassTable, existing: ExistingFiles) -> None:
        super().__init__(out, classes, existing)
        self._rows: list[list[str]] = []
        self._with_masks = False

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Keep the rows, with numbers of as many digits as float32 has."""
        self._with_masks |= found.masks is not None
        areas = [] if found.masks is None else found.masks.areas.tolist()
        for i, name in enumerate(found.names):
            numbers = map(str, (found.labels[i], found.scores[i], *found.boxes[i]))
            self._rows.append([image.name.as_posix(), name, *numbers, *map(str, areas[i : i + 1])])

    def finish(self) -> list[str]:
        """Write the table."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([[*self._COLUMNS, *(["mask_area"] if self._with_masks else [])], *self._rows])
        write_whole(self.out / self.FILE, text.getvalue())
        return [self.FILE]


class GeoJson(DetectionFormat):
    """GeoJSON (RFC 7946) in pixels of each image, y pointing down: masks with their holes and pieces, else boxes."""

    per_image = (("geojson", ".geojson"),)

    def add(self, image: ImageFile, hw: tuple[int, int], found: Detections) -> None:
        """Write the file of an image."""
        (path,) = self.files(image.name)
        features = []
        for i, name in enumerate(found.names):
            properties = {"name": name, "label": int(found.labels[i]), "score": float(found.scores[i])}
            features.append({"type": "Feature", "geometry": _geometry(found, i), "properties": properties})
        content = {"type": "FeatureCollection", "features": features}
        with self.existing.write(path) as file:
            write_text(file, json.dumps(content | {"image": image.name.as_posix(), "height": hw[0], "width": hw[1]}))

    def finish(self) -> list[str]:
        """There is no file of all images."""
        return ["geojson/ (GeoJSON, in pixels)"]


def _check_name(image: Path, file: Path) -> None:
    try:
        check_xml_text("name", image.as_posix())
    except ValueError as error:
        raise DataError(f"{file}: {error}; rename the image, or export another format") from error


def _stated(found: Detections) -> Iterator[tuple[StatedObject, str, float]]:
    """The N objects as annotations state them, their names and scores; with a mask, that is the outline."""
    for i, (box, label, score) in enumerate(
        zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ):
        masks = found.masks
        outline = None if masks is None else {"size": list(masks.hw), "counts": masks.counts[i].decode("ascii")}
        yield StatedObject(tuple(box), label, False, False, False, float("nan"), outline), found.names[i], score


def _geometry(found: Detections, i: int) -> dict[str, Any]:
    part, (top, left) = (None, (0, 0)) if found.masks is None else found.masks.part(i)
    if part is None or not part.size:  # a mask without a pixel has no outline
        x1, y1, x2, y2 = found.boxes[i].tolist()
        return {"type": "Polygon", "coordinates": [[[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]]}
    corner = np.array([left, top])
    polygons = [[_closed((ring + corner).tolist()) for ring in rings] for rings in mask_polygons(part)]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: list[list[int]]) -> list[list[int]]:
    return [*ring, ring[0]]
