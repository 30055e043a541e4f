"""Detections between the journal and the formats of other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detseg.errors import ConfigError
from detseg.messages import counted
from detseg.predict.outputs import formats
from detseg.predict.outputs.formats import DetectionFormat
from detseg.predict.outputs.output import REPLACED, Entry, ExistingFiles, ImageFile, Output
from detseg.predict.results import Detections
from detseg.structures import ClassTable, InstanceMasks

_FORMATS: dict[str, type[DetectionFormat]] = {
    "coco": formats.Coco,
    "voc": formats.Voc,
    "yolo": formats.Yolo,
    "labelme": formats.LabelMe,
    "cvat": formats.Cvat,
    "csv": formats.Csv,
    "geojson": formats.GeoJson,
}


class DetectionOutput(Output):
    """Detections in one format or several.

    Args:
        out: the folder to write to.
        classes: the classes that may occur.
        names: some of ``EXPORT_FORMATS``.
        score_threshold: of the predictor, for the message; None: each class has its own.
        existing: what becomes of files of single images that exist.

    Raises:
        ConfigError: an unknown format.
        DataError: a format has no place for a name of a class.
    """

    def __init__(
        self,
        out: Path,
        classes: ClassTable,
        names: Sequence[str],
        score_threshold: float | None = 0.0,
        existing: ExistingFiles = REPLACED,
    ) -> None:
        for name in names:
            if name not in _FORMATS:
                raise ConfigError(f"format: expected one of {', '.join(_FORMATS)}, got {name!r}")
        self.out, self.classes, self._score_threshold = out, classes, score_threshold
        self._names, self._existing = tuple(dict.fromkeys(names)), existing
        self._formats = self._opened()

    def _opened(self) -> list[DetectionFormat]:
        return [_FORMATS[name](self.out, self.classes, self._existing) for name in self._names]

    def files(self, image: Path) -> list[Path]:
        """Those of all formats."""
        return [file for written in self._formats for file in written.files(image)]

    def must_not_exist(self, images: Sequence[Path]) -> list[Path]:
        """Those of formats that people correct."""
        edited = [written for written in self._formats if written.is_edited]
        names = [self.out / "classes.txt"] if "yolo" in self._names else []
        return [file for image in images for written in edited for file in written.files(image)] + names

    def is_made(self, image: ImageFile, entry: Entry) -> bool:
        """Nothing is written with a result."""
        self._found(entry)
        return True

    def entry(self, image: ImageFile, found: Detections) -> Entry:
        """See ``describe_objects``."""
        return describe_objects(found)

    def write(self, entries: Iterable[tuple[ImageFile, Entry]], also: Sequence[str] = ()) -> str:
        """Write the files of all formats."""
        num_images = num_objects = 0
        opened = self._opened()  # a second call starts from the beginning
        for image, entry in entries:
            found = self._found(entry)
            num_images, num_objects = num_images + 1, num_objects + len(found)
            for written in opened:
                written.add(image, (entry["height"], entry["width"]), found)
        names = [*also, *(name for written in opened for name in written.finish())]
        counts = f"{counted(num_objects, 'object')} in {counted(num_images, 'image')}"
        least = "the threshold of the class" if self._score_threshold is None else f"{self._score_threshold:g}"
        score = f"score {least} or more; scores are from 0 to 1"
        text = f"{counts} ({score}); written to {self.out}: {', '.join(names)}"
        if num_objects or not num_images or not self._score_threshold:
            return text
        fix = "try a lower score, such as --score 0.05, leave out --classes and --min-area, or train longer"
        return f"{text}\nno object is left: {fix}"

    def _found(self, entry: Entry) -> Detections:
        """The detections of an entry, to the bit."""
        objects = entry["objects"]
        boxes = np.array([one["box"] for one in objects], dtype=np.float32).reshape(-1, 4)
        scores = np.array([one["score"] for one in objects], dtype=np.float32)
        labels = np.array([self.classes.names.index(one["name"]) for one in objects], dtype=np.int64)
        hw = (entry["height"], entry["width"])
        masks = InstanceMasks(hw, tuple(one["mask"].encode("ascii") for one in objects)) if entry["masks"] else None
        return Detections(boxes, scores, labels, self.classes, masks)


def describe_objects(found: Detections) -> Entry:
    """The size of the image, whether the model gives masks, and the objects, best first: class, score, box, mask."""
    assert found.image is not None  # a predictor's results know it
    objects: list[dict[str, Any]] = [
        {"name": name, "score": score, "box": box}
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes.tolist(), strict=True)
    ]
    if found.masks is not None:
        for one, counts in zip(objects, found.masks.counts, strict=True):
            one["mask"] = counts.decode("ascii")
    height, width = found.image.shape[:2]
    return {"height": height, "width": width, "masks": found.masks is not None, "objects": objects}
