"""Detections in the formats that other tools read: COCO results, Pascal VOC XML, YOLO text.

COCO (Lin et al. 2014) takes everything, the masks as compressed run lengths; VOC (Everingham et al. 2010) and YOLO text
are a file a picture, and have no place for masks but polygons.

Letters for dimensions: H and W pixels of the picture.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.formats.coco_writer import MASK_RESULTS, RESULTS, CocoFile, result_files
from detseg.data.formats.voc import VocAnnotation
from detseg.data.formats.voc_writer import check_xml_text, write_voc_xml
from detseg.errors import ConfigError, DataError
from detseg.formats import NAMED_FORMATS
from detseg.predict.polygons import outer_polygon
from detseg.predict.writing import write_file, write_text
from detseg.structures import ClassTable, DetectorOutput

VOC_FOLDER, YOLO_LABELS, YOLO_SEGMENTS = "annotations", "labels", "segments"
"""Folders below that of the drawn copies."""

YOLO_CLASSES = "classes.txt"
"""The names of the classes, one a line in the order of their numbers."""


class Export(ABC):
    """Writes the detections of picture after picture in one format.

    Args:
        out: the folder to write to.
        classes: the classes that may occur.
    """

    def __init__(self, out: Path, classes: ClassTable) -> None:
        self.out = out
        self.classes = classes

    def written_with(self, picture: Path) -> list[Path]:
        """The files that ``add`` will write for a picture, by its relative path.

        Raises:
            DataError: the format has no place for the picture's name.
        """
        return []

    def written_once(self) -> list[Path]:
        """The files for all pictures together that must not exist yet, since a person may have made them."""
        return []

    @abstractmethod
    def add(self, image_id: int, relative: Path, hw: tuple[int, int], found: DetectorOutput) -> None:
        """Take up one picture.

        Args:
            image_id: its number among the pictures.
            relative: its path relative to the folder that it was found in.
            hw: its height and width, pixels.
            found: its detections, in its pixels.

        Raises:
            DataError: a file could not be written.
        """

    @abstractmethod
    def finish(self) -> str:
        """Write what belongs to all pictures together; returns the names of what was written.

        Raises:
            DataError: a file could not be written.
        """

    def _beside(self, folder: str, picture: Path, suffix: str) -> Path:
        return (self.out / folder / picture).with_suffix(suffix)


class CocoExport(Export):
    """COCO results in ``detections.json``; files and categories in ``images.json``; of a model of masks also
    ``detections_masks.json``, the results without boxes."""

    def __init__(self, out: Path, classes: ClassTable) -> None:
        super().__init__(out, classes)
        self._entries: list[dict[str, Any]] = []
        self._file = CocoFile(classes)
        self._with_masks = False

    def add(self, image_id: int, relative: Path, hw: tuple[int, int], found: DetectorOutput) -> None:
        """Take up one picture; nothing is written yet."""
        self._entries += found.to_coco(image_id)
        self._with_masks |= found.masks is not None
        self._file.add(image_id, relative.as_posix(), hw)

    def finish(self) -> str:
        """Write the files."""
        images = {key: self._file.content[key] for key in ("images", "categories")}
        for name, content in {**result_files(self._entries, self._with_masks), "images.json": images}.items():
            write_text(self.out / name, json.dumps(content))
        without_boxes = f"{MASK_RESULTS} (without boxes, to score as segm), " if self._with_masks else ""
        return f"{RESULTS}, {without_boxes}images.json"


class VocExport(Export):
    """``annotations/<name>.xml``: 1-based inclusive corners to a thousandth of a pixel, and ``<score>``."""

    def written_with(self, picture: Path) -> list[Path]:
        """The annotation."""
        path = self._beside(VOC_FOLDER, picture, ".xml")
        try:
            check_xml_text("name", picture.as_posix())
        except ValueError as error:  # a name of a file may hold anything
            raise DataError(f"{path}: {error}; rename the picture, or export another format") from error
        return [path]

    def add(self, image_id: int, relative: Path, hw: tuple[int, int], found: DetectorOutput) -> None:
        """Write the annotation of one picture."""
        none = np.zeros(len(found), dtype=np.bool_)
        boxes = found.boxes.double().numpy()
        annotation = VocAnnotation(relative.name, hw, tuple(found.names), boxes, difficult=none, truncated=none)
        folder = "" if relative.parent == Path() else relative.parent.as_posix()
        (path,) = self.written_with(relative)
        write_file(path, lambda: write_voc_xml(path, annotation, folder, scores=found.scores.tolist()))

    def finish(self) -> str:
        """Names the folder; all is written."""
        return f"{VOC_FOLDER}/ (VOC XML)"


class YoloExport(Export):
    """``labels/<name>.txt`` with a line an object; with masks also ``segments/<name>.txt``; ``classes.txt``.

    A line of labels: class, x and y of the centre, width, height as shares of the picture's sides, score.  A line of
    segments: class, then x and y of each corner of a polygon, as shares as well; see ``outer_polygon``.
    """

    def __init__(self, out: Path, classes: ClassTable) -> None:
        super().__init__(out, classes)
        self._with_masks = False
        self._empty = 0

    def written_with(self, picture: Path) -> list[Path]:
        """The labels, and the segments that a model of masks will give."""
        return [self._beside(folder, picture, ".txt") for folder in (YOLO_LABELS, YOLO_SEGMENTS)]

    def written_once(self) -> list[Path]:
        """The names of the classes."""
        return [self.out / YOLO_CLASSES]

    def add(self, image_id: int, relative: Path, hw: tuple[int, int], found: DetectorOutput) -> None:
        """Write the labels of one picture, and its segments where there are masks."""
        height, width = hw
        labels = found.labels.tolist()
        x1, y1, x2, y2 = found.boxes.double().unbind(dim=1)
        shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, found.scores]
        rows = zip(labels, *(column.tolist() for column in shares), strict=True)
        write_text(self._beside(YOLO_LABELS, relative, ".txt"), "".join(_line(label, row) for label, *row in rows))
        if found.masks is None:
            return
        self._with_masks = True
        lines = []
        for i, label in enumerate(labels):
            part, (top, left) = found.masks.part(i)
            if not part.size:
                self._empty += 1
                continue
            corners = (outer_polygon(part) + np.array([left, top])) / np.array([width, height])
            lines.append(_line(label, corners.ravel().tolist()))
        write_text(self._beside(YOLO_SEGMENTS, relative, ".txt"), "".join(lines))

    def finish(self) -> str:
        """Write the names of the classes, one a line in the order of their numbers."""
        write_text(self.out / YOLO_CLASSES, "".join(f"{name}\n" for name in self.classes.names))
        if not self._with_masks:
            return f"{YOLO_LABELS}/ (YOLO text), {YOLO_CLASSES}"
        without = f"; {self._empty} without a pixel are not in it" if self._empty else ""
        return f"{YOLO_LABELS}/ (YOLO text), {YOLO_SEGMENTS}/ (polygons{without}), {YOLO_CLASSES}"


def open_export(name: str, out: Path, classes: ClassTable) -> Export:
    """What writes one of the ``EXPORT_FORMATS``.

    Raises:
        ConfigError: another name.
    """
    match name:
        case "coco":
            return CocoExport(out, classes)
        case "voc":
            return VocExport(out, classes)
        case "yolo":
            return YoloExport(out, classes)
        case _:
            raise ConfigError(f"format: expected {NAMED_FORMATS}, got {name!r}")


def _line(label: int, numbers: list[float]) -> str:
    return " ".join([str(label), *(f"{number:.6f}" for number in numbers)]) + "\n"
