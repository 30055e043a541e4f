"""The content of a COCO file (Lin et al. 2014) as columns, for files in which nothing is unusual.

Of COCO's 860 000 annotations no Python object is kept, and those on the way live as long as their lot.

Letters for dimensions: I images, T annotations.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from detseg.data.annotations.issues import DataIssue, DataReport
from detseg.data.annotations.regions import PackedRegions
from detseg.data.formats.coco_content import CocoContent, CocoEntries, CocoObjects
from detseg.data.formats.coco_file import coco_categories, report_shared_images
from detseg.data.formats.coco_lots import AnnotationLots, ImageLots
from detseg.data.formats.file_digest import FileDigest
from detseg.data.formats.json_lots import UnusualJsonError, read_in_lots
from detseg.data.images.read import read_image_hw
from detseg.errors import DataError
from detseg.structures import IntArray


def open_coco(file: Path, boxes: bool, masks: bool) -> tuple[CocoContent, FileDigest]:
    """The content of a COCO file, read by the faster of two ways that it allows; and the digest of its bytes.

    Args:
        file: the annotation file.
        boxes: whether boxes and areas are needed.
        masks: whether segmentations are.

    Raises:
        DataError: the file is missing or unreadable.
    """
    digest = FileDigest()
    try:
        return CocoColumns(file, boxes, masks, digest), digest
    except UnusualJsonError:
        digest = FileDigest()
        return CocoEntries(file, digest), digest


class CocoColumns:
    """A file that was read by columns; ``CocoContent`` describes it.

    Args:
        file: the annotation file.
        boxes: whether boxes and areas are needed.
        masks: whether segmentations are.
        digest: is given the bytes of the file.

    Raises:
        UnusualJsonError: something in the file is unusual or wrong.
    """

    def __init__(self, file: Path, boxes: bool, masks: bool, digest: FileDigest) -> None:
        images, annotations = ImageLots(file), AnnotationLots(boxes, masks)
        takers = {"images": images.take, "annotations": annotations.take}
        try:
            content = read_in_lots(file, tuple(takers), lambda key, lot: takers[key](lot), digest)
            names = _names(file, content)
            self.file = file
            self.categories: list[dict[str, Any]] = content["categories"]
            self._paths = images.paths
            self._image_ids, self._sizes = images.columns()
            columns, image_ids = annotations.columns()
            places = _places(self._image_ids, image_ids)
            if _repeated(columns["ids"]) or not np.isin(columns["category_ids"], list(names)).all():
                raise UnusualJsonError
            self._objects = CocoObjects(positions=places, **columns)
            self._regions: PackedRegions | None = annotations.regions(self._sizes[places]) if masks else None
        except (DataError, OSError, OverflowError) as error:
            raise UnusualJsonError from error

    def images(self, report: DataReport) -> tuple[IntArray, list[str]]:
        """See ``CocoContent``."""
        report_shared_images(self._paths, report)
        return self._image_ids, self._paths

    def sizes(self, root: Path, paths: list[str], report: DataReport) -> IntArray:
        """See ``CocoContent``."""
        sizes = self._sizes.copy()
        for row in np.flatnonzero(sizes.min(axis=1) == 0).tolist():
            report.add(DataIssue.SIZE_NOT_STATED, paths[row])
            sizes[row] = read_image_hw(root / paths[row])
        return sizes

    def objects(self, boxes: bool, wanted: Collection[int]) -> CocoObjects:
        """See ``CocoContent``; what is asked for here was asked for when the file was read."""
        return self._objects

    def regions(self, rows: IntArray, sizes: IntArray, mend: str) -> PackedRegions:
        """See ``CocoContent``; all of them can be filled, or the file would be unusual.  Can be called once."""
        assert self._regions is not None
        regions, self._regions = self._regions.select(rows), None  # it is most of the memory
        return regions


def _names(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """The categories' names by id; the other two lists must be read, and categories be objects."""
    categories = content.get("categories")
    if content.get("images") != [] or content.get("annotations") != [] or not isinstance(categories, list):
        raise UnusualJsonError
    if not all(isinstance(entry, dict) for entry in categories):
        raise UnusualJsonError
    return coco_categories(file, categories)


def _places(image_ids: IntArray, wanted: IntArray) -> IntArray:
    """(T,) where each wanted id stands among the (I,) ids of images."""
    order = np.argsort(image_ids, kind="stable")
    ascending = image_ids[order]
    places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    if _repeated(ascending) or (ascending[places] != wanted).any():
        raise UnusualJsonError
    return order[places]


def _repeated(ids: IntArray) -> bool:
    ascending = np.sort(ids)
    return bool((ascending[1:] == ascending[:-1]).any() or (ascending[:1] == np.iinfo(np.int64).min).any())
