"""What a COCO file (Lin et al. 2014) says, by whichever of two ways it was read: by columns, or entry by entry.

The first is fast; where anything in a file is unusual it gives up, and the second one reads it or words the error.

Letters for dimensions: I images, T annotations.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.regions import PackedRegions, are_numbers
from detseg.data.formats.coco_file import (
    Entry,
    coco_images,
    coco_references,
    coco_regions,
    coco_sizes,
    entries_by_id,
    is_crowd,
    load_coco,
)
from detseg.data.formats.file_digest import FileDigest
from detseg.errors import DataError
from detseg.messages import shown
from detseg.structures import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class CocoObjects:
    """The T annotations of a file in its order.

    Attributes:
        ids: (T,) int64.
        positions: (T,) int64, where the image of each stands in the list of images.
        category_ids: (T,) int64.
        crowd: (T,) bool.
        xywh: (T, 4) float64, the boxes in pixels; zeros where they were not wanted.
        area: (T,) float64, square pixels; NaN where it is not stated.
        ignore: (T,) bool, whether there is ``"ignore": 1``.
    """

    ids: IntArray
    positions: IntArray
    category_ids: IntArray
    crowd: BoolArray
    xywh: FloatArray
    area: FloatArray
    ignore: BoolArray


def areas_or_those_of_boxes(area: FloatArray, xywh: FloatArray) -> FloatArray:
    """(T,) areas, where they are NaN those of the (T, 4) boxes."""
    return np.where(np.isnan(area), xywh[:, 2] * xywh[:, 3], area)


class CocoContent(Protocol):
    """A file's content.  Its methods are to be called in this order: then the first error is that of the first entry.

    Attributes:
        file: the annotation file.
        categories: the entries of that name.
    """

    file: Path
    categories: list[Entry]

    def images(self, report: DataReport) -> tuple[IntArray, list[str]]:
        """(I,) int64 ids of the images, and their paths; of files that are there twice the report is told.

        Raises:
            DataError: an id or a path is wrong.
        """

    def sizes(self, root: Path, paths: list[str], report: DataReport) -> IntArray:
        """(I, 2) int64 height and width in pixels; what is not stated is read from the images, which the report tells.

        Raises:
            DataError: a size is wrong, or an image without one unreadable.
        """

    def objects(self, boxes: bool, wanted: Collection[int]) -> CocoObjects:
        """The annotations.

        Args:
            boxes: whether boxes and areas are needed.
            wanted: ids of the categories whose annotations are; without boxes, others are not looked at closely.

        Raises:
            DataError: an annotation is wrong.
        """

    def regions(self, rows: IntArray, sizes: IntArray, mend: str) -> PackedRegions:
        """The segmentations of some annotations, in the given order.

        Args:
            rows: which.
            sizes: (R, 2) int64, height and width in pixels of the image of each.
            mend: what the message advises where segmentations cannot be mended.

        Raises:
            DataError: annotations have no segmentation, or one that cannot be filled.
        """


class CocoEntries:
    """A file that is read entry by entry; ``CocoContent`` describes it.

    Args:
        file: the annotation file.
        digest: is given the bytes of the file.

    Raises:
        DataError: see ``load_coco``.
    """

    def __init__(self, file: Path, digest: FileDigest) -> None:
        content = load_coco(file, digest)
        self.file = file
        self.categories = content["categories"]
        self._images = content["images"]
        self._annotations = content["annotations"]
        self._position_of: dict[int, int] = {}

    def images(self, report: DataReport) -> tuple[IntArray, list[str]]:
        """See ``CocoContent``."""
        self._position_of, paths = coco_images(self.file, self._images, report)
        return np.array(list(self._position_of), dtype=np.int64), paths

    def sizes(self, root: Path, paths: list[str], report: DataReport) -> IntArray:
        """See ``CocoContent``."""
        return coco_sizes(self.file, self._images, root, paths, report)

    def objects(self, boxes: bool, wanted: Collection[int]) -> CocoObjects:
        """See ``CocoContent``."""
        entries = self._annotations
        ids = list(entries_by_id(self.file, "annotation", entries))
        names = {entry["id"]: entry["name"] for entry in self.categories}
        references = np.zeros((len(entries), 2), dtype=np.int64)
        crowd, ignore = np.zeros(len(entries), dtype=np.bool_), np.zeros(len(entries), dtype=np.bool_)
        xywh, area = np.zeros((len(entries), 4)), np.full(len(entries), np.nan)
        for row, entry in enumerate(entries):
            references[row] = coco_references(self.file, entry, self._position_of, names)
            if boxes:
                xywh[row] = self._numbers(entry, "bbox", entry.get("bbox"), 4)
                stated = self._numbers(entry, "area", [entry.get("area", xywh[row, 2] * xywh[row, 3])], 1)
                area[row] = stated[0] if "area" in entry else np.nan
            if boxes or references[row, 1] in wanted:
                crowd[row] = is_crowd(self.file, entry)
            ignore[row] = entry.get("ignore") == 1
        # + 0.0: of two zeros one is left, as in ``CocoColumns``
        return CocoObjects(
            ids=np.array(ids, dtype=np.int64),
            positions=references[:, 0],
            category_ids=references[:, 1],
            crowd=crowd,
            xywh=xywh + 0.0,
            area=area + 0.0,
            ignore=ignore,
        )

    def regions(self, rows: IntArray, sizes: IntArray, mend: str) -> PackedRegions:
        """See ``CocoContent``."""
        return coco_regions(self.file, [self._annotations[row] for row in rows.tolist()], sizes, mend)

    def _numbers(self, entry: Entry, key: str, values: object, count: int) -> Sequence[float]:
        if isinstance(values, list) and len(values) == count and are_numbers(values):
            return values
        expected = "[x, y, width, height] in pixels" if count == 4 else "a number"
        raise DataError(
            f"{self.file}: annotation {entry['id']}: {key}: expected {expected}, got {shown(entry.get(key))}"
        )
