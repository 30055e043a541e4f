"""What is written for the pictures of a folder, for each kind of model, beside the drawn copies."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detseg.draw import class_colors, draw_legend
from detseg.predict.detection import Predictor
from detseg.predict.exports import open_export
from detseg.predict.segmentation import SegmentationPredictor
from detseg.predict.writing import write_file, write_text
from detseg.structures import SegmentationMap, UInt8Array

MASKS = "masks"
"""Folder for the labels of a segmentation model, below that of the drawn copies."""


class Output(ABC):
    """Predicts for pictures, and keeps or writes what is found; how they are drawn is its answer."""

    def written_with(self, picture: Path) -> list[Path]:
        """The files beside its drawn copy that ``add`` will write for a picture, by its relative path."""
        return []

    def must_not_exist(self, pictures: Sequence[Path]) -> list[Path]:
        """The files that are not to be written over, for pictures by their relative paths."""
        return []

    @abstractmethod
    def add(self, image_id: int, relative: Path, image: UInt8Array) -> UInt8Array:
        """Predict for one picture.

        Args:
            image_id: its number among the pictures.
            relative: its path relative to the folder that it was found in.
            image: (H, W, 3) uint8 RGB.

        Returns:
            The drawn copy, (H', W, 3) uint8 RGB.
        """

    @abstractmethod
    def finish(self) -> str:
        """Write what belongs to all pictures together; returns what to tell the user."""


class DetectionOutput(Output):
    """Detections in one format or several.

    Args:
        predictor: finds the objects.
        out: the folder to write to.
        formats: some of ``EXPORT_FORMATS``; see `detseg.predict.exports`.

    Raises:
        ConfigError: an unknown format.
    """

    def __init__(self, predictor: Predictor, out: Path, formats: Sequence[str]) -> None:
        self._predictor = predictor
        self._out = out
        self._exports = [open_export(name, out, predictor.classes) for name in dict.fromkeys(formats)]
        self._num_objects = 0
        self._num_pictures = 0

    def written_with(self, picture: Path) -> list[Path]:
        """What the formats have for each picture."""
        return [file for export in self._exports for file in export.written_with(picture)]

    def must_not_exist(self, pictures: Sequence[Path]) -> list[Path]:
        """The annotations that will be written: a person may have made those that are there already.

        Args:
            pictures: relative paths.
        """
        each = [file for picture in pictures for file in self.written_with(picture)]
        return each + [file for export in self._exports for file in export.written_once()]

    def add(self, image_id: int, relative: Path, image: UInt8Array) -> UInt8Array:
        """Find the objects of a picture; returns it with their boxes and masks."""
        found = self._predictor(image)
        for export in self._exports:
            export.add(image_id, relative, (image.shape[0], image.shape[1]), found)
        self._num_objects += len(found)
        self._num_pictures += 1
        return found.draw(image)

    def finish(self) -> str:
        """Write what belongs to all pictures together."""
        written = ", ".join(["the drawn pictures", *(export.finish() for export in self._exports)])
        counts = f"{_counted(self._num_objects, 'object')} in {_counted(self._num_pictures, 'picture')}"
        return f"{counts}; written to {self._out}: {written}"


class SegmentationOutput(Output):
    """Labels as indexed PNGs in ``masks/``; what they mean, and how many pixels each class has, in ``classes.json``.

    Args:
        predictor: labels the pixels.
        out: the folder to write to.
        tile: height and width of tiles, pixels; None: pictures are scaled to the input size.
        overlap: pixels that neighbouring tiles share at least; None: half of the tile's sides.
    """

    def __init__(
        self, predictor: SegmentationPredictor, out: Path, tile: tuple[int, int] | None, overlap: int | None
    ) -> None:
        self._predictor = predictor
        self._out = out
        self._tile = tile
        self._overlap = overlap
        self._pictures: list[dict[str, Any]] = []

    def written_with(self, picture: Path) -> list[Path]:
        """The labels of the picture."""
        return [self._mask_of(picture)]

    def add(self, image_id: int, relative: Path, image: UInt8Array) -> UInt8Array:
        """Label the pixels of a picture and write them; returns it under their colours, with a legend below it."""
        found = self._predictor(image, tile=self._tile, overlap=self._overlap)
        mask = self._mask_of(relative)
        write_file(mask, lambda: found.save_png(mask))
        height, width = found.hw
        self._pictures.append(
            {
                "file_name": relative.as_posix(),
                "mask": mask.relative_to(self._out).as_posix(),
                "height": height,
                "width": width,
                "pixels": found.areas,
            }
        )
        return draw_legend(found.draw(image), _legend(found))

    def finish(self) -> str:
        """Write ``classes.json``."""
        table = self._predictor.classes
        rows = zip(table.names, class_colors(table), strict=True)
        classes = [{"label": i, "name": name, "color": color} for i, (name, color) in enumerate(rows)]
        write_text(self._out / "classes.json", json.dumps({"classes": classes, "pictures": self._pictures}))
        return (
            f"{_counted(len(self._pictures), 'picture')}; written to {self._out}: the drawn pictures, {MASKS}/ (labels "
            f"as indexed PNGs), classes.json"
        )

    def _mask_of(self, picture: Path) -> Path:
        return (self._out / MASKS / picture).with_suffix(".png")


def _legend(found: SegmentationMap) -> list[tuple[str, str, tuple[int, int, int]]]:
    """The classes that occur with their share of the picture, the largest first."""
    areas = list(found.areas.values())
    occurring = sorted((label for label, area in enumerate(areas) if area), key=lambda label: -areas[label])
    total, colors = found.labels.size, class_colors(found.classes)
    return [(found.names[label], f" {areas[label] / total:.1%}", colors[label]) for label in occurring]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
