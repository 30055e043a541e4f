"""Lots of a COCO file's images and annotations → columns, by msgspec; what is of another type is unusual.

Letters for dimensions: I images, T annotations, N annotations of a lot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import simdjson
from msgspec import UNSET, UnsetType

from detseg.data.annotations.ragged import GrowingArray, running_total
from detseg.data.annotations.regions import LARGEST, PackedRegions, compact, compressed_counts, in_pixels
from detseg.data.formats.coco_content import areas_or_those_of_boxes
from detseg.data.formats.coco_file import image_path
from detseg.data.formats.json_lots import Lot, UnusualJsonError
from detseg.data.formats.polygon_text import read_boxes, read_polygons
from detseg.data.images.read import MAX_PIXELS
from detseg.structures import BoolArray, IntArray

_NONE = msgspec.Raw(b"")


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int | UnsetType | None = UNSET
    width: int | UnsetType | None = UNSET
    # Not wanted; but where all keys are known, it shows at once that none is there twice.
    license: msgspec.Raw = _NONE
    coco_url: msgspec.Raw = _NONE
    flickr_url: msgspec.Raw = _NONE
    date_captured: msgspec.Raw = _NONE


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    segmentation: msgspec.Raw = _NONE
    bbox: msgspec.Raw = _NONE
    area: float | UnsetType = UNSET
    iscrowd: int | UnsetType = UNSET
    ignore: Any = UNSET


_COLUMNS = {
    "ids": np.int64,
    "image_ids": np.int64,
    "category_ids": np.int64,
    "crowd": np.bool_,
    "ignore": np.bool_,
    "area": np.float64,
}
"""Name and type of each column of annotations but for the boxes."""

_IMAGES = msgspec.json.Decoder(list[_Image])
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])


class ImageLots:
    """Collects the images of a file.

    Attributes:
        paths: of the I images.
    """

    def __init__(self, file: Path) -> None:
        self.paths: list[str] = []
        self._file = file
        self._columns = GrowingArray(np.int64, width=3)

    def take(self, lot: Lot) -> None:
        """Take the next lot.

        Raises:
            DataError: an image has no usable path.
            UnusualJsonError: a key may be there twice.
        """
        images = _IMAGES.decode(lot.text)
        heights, widths = [image.height for image in images], [image.width for image in images]
        others = chain.from_iterable((i.license, i.coco_url, i.flickr_url, i.date_captured) for i in images)
        num_keys = (
            4 * len(images) - heights.count(UNSET) - widths.count(UNSET) + sum(key is not _NONE for key in others)
        )
        lot.check_keys(num_keys)
        self.paths += [image_path(self._file, image.id, image.file_name) for image in images]
        self._columns.add([(image.id, image.height or 0, image.width or 0) for image in images])

    def columns(self) -> tuple[IntArray, IntArray]:
        """(I,) int64 ids; (I, 2) int64 heights and widths, 0 where they are not stated.

        Raises:
            UnusualJsonError: there are no images, or a size is wrong.
        """
        columns = self._columns.all()
        ids, sizes = columns[:, 0].copy(), columns[:, 1:].copy()
        if not len(ids):
            raise UnusualJsonError
        # Each side is looked at first: the product could overflow.
        if sizes.min() < 0 or sizes.max() > MAX_PIXELS or sizes.clip(1).prod(axis=1).max() > MAX_PIXELS:
            raise UnusualJsonError
        return ids, sizes


class AnnotationLots:
    """Collects the annotations of a file.

    Args:
        boxes: whether boxes and areas are needed.
        masks: whether segmentations are.
    """

    def __init__(self, boxes: bool, masks: bool) -> None:
        self._boxes = boxes
        self._masks = masks
        self._parser = simdjson.Parser()
        self._num = 0
        self._columns = {name: GrowingArray(dtype) for name, dtype in _COLUMNS.items()}
        self._columns["xywh"] = GrowingArray(np.float64, width=4)
        self._coordinates = GrowingArray(np.int32)
        self._lengths, self._num_polygons = GrowingArray(np.int64), GrowingArray(np.int64)
        self._rles: dict[int, bytes] = {}

    def take(self, lot: Lot) -> None:
        """Take the next lot.

        Raises:
            OverflowError: an id has more than 64 bits.
            UnusualJsonError: a key may be there twice, a number is no pixel, a flag neither 0 nor 1, or a segmentation
                cannot be filled.
        """
        entries = _ANNOTATIONS.decode(lot.text)
        num = len(entries)
        boxes, areas = [entry.bbox for entry in entries], [entry.area for entry in entries]
        crowd, ignore = [entry.iscrowd for entry in entries], [entry.ignore for entry in entries]
        segmentations = [entry.segmentation for entry in entries]
        num_keys = 8 * num - sum(values.count(UNSET) for values in (areas, crowd, ignore))
        num_keys -= sum([raw is _NONE for raws in (boxes, segmentations) for raw in raws])
        # Run lengths are objects with keys of their own: of crowds as a rule, of others where there are more keys.
        rles = _objects(segmentations, [place for place, flag in enumerate(crowd) if flag == 1])
        rle_keys = sum(len(_KEYS.decode(text)) for text in rles.values())
        if self._masks and lot.places.result() > num_keys + rle_keys:
            rles = _objects(segmentations, range(num))
            rle_keys = sum(len(_KEYS.decode(text)) for text in rles.values())
        lot.check_keys(num_keys + rle_keys)
        ids = ([e.id for e in entries], [e.image_id for e in entries], [e.category_id for e in entries])
        for name, values in zip(("ids", "image_ids", "category_ids"), ids, strict=True):
            self._columns[name].add(np.fromiter(values, np.int64, num))
        self._columns["crowd"].add(_flags(crowd))
        self._columns["ignore"].add(np.fromiter((value == 1 for value in ignore), np.bool_, num))  # UNSET is not
        self._add_pixels(boxes, areas)
        if self._masks:
            self._take_regions(segmentations, rles)
        self._num += num

    def _add_pixels(self, boxes: list[msgspec.Raw], areas: list[Any]) -> None:
        xywh, area = np.zeros((len(boxes), 4)), np.full(len(areas), np.nan)
        if self._boxes:
            xywh = read_boxes(self._parser, boxes)
            area = np.array([np.nan if value is UNSET else value for value in areas], dtype=np.float64) + 0.0
            for pixels in (xywh, areas_or_those_of_boxes(area, xywh)):
                if not (np.abs(pixels) < LARGEST).all():
                    raise UnusualJsonError
        self._columns["xywh"].add(xywh)
        self._columns["area"].add(area)

    def _take_regions(self, segmentations: list[msgspec.Raw], rles: dict[int, bytes]) -> None:
        others = [segmentation for place, segmentation in enumerate(segmentations) if place not in rles]
        num_polygons = np.ones(len(segmentations), dtype=np.int64)
        num_polygons[list(rles)] = 0
        numbers, lengths, num_polygons[num_polygons > 0] = read_polygons(self._parser, others)
        self._lengths.add(lengths)
        self._num_polygons.add(num_polygons)
        coordinates = compact(numbers)
        if coordinates.dtype != self._coordinates.dtype:  # they are hundredths of pixels as long as all can be
            coordinates = in_pixels(coordinates)
            if self._coordinates.dtype == np.int32:
                so_far, self._coordinates = in_pixels(self._coordinates.all()), GrowingArray(np.float64)
                self._coordinates.add(so_far)
        self._coordinates.add(coordinates)
        self._rles |= {self._num + place: text for place, text in rles.items()}

    def columns(self) -> tuple[dict[str, npt.NDArray[Any]], IntArray]:
        """The columns of ``CocoObjects`` but for the positions; (T,) int64, the ids of the images."""
        found = {name: column.all() for name, column in self._columns.items()}
        return found, found.pop("image_ids")

    def regions(self, sizes: IntArray) -> PackedRegions:
        """The T segmentations.

        Args:
            sizes: (T, 2) int64, height and width in pixels of the image of each.

        Raises:
            UnusualJsonError: run lengths do not fill their image.
        """
        rle_lengths = np.zeros(self._num, dtype=np.int64)
        for row, text in self._rles.items():
            hw = int(sizes[row, 0]), int(sizes[row, 1])
            try:
                self._rles[row] = compressed_counts(msgspec.json.decode(text), hw)
            except ValueError as error:
                raise UnusualJsonError from error
            rle_lengths[row] = len(self._rles[row])
        return PackedRegions(
            coordinates=self._coordinates.all(),
            polygon_offsets=running_total(self._lengths.all()),
            region_offsets=running_total(self._num_polygons.all()),
            rle_bytes=np.frombuffer(b"".join(self._rles.values()), dtype=np.uint8),
            rle_offsets=running_total(rle_lengths),
        )


def _objects(texts: Sequence[msgspec.Raw], places: Iterable[int]) -> dict[int, bytes]:
    """Those of the texts at some places that are JSON objects."""
    found = ((place, bytes(texts[place])) for place in places)
    return {place: text for place, text in found if text[:1] == b"{"}


def _flags(values: list[int | UnsetType]) -> BoolArray:
    """(N,) bool, false where nothing is stated."""
    found = np.fromiter((0 if value is UNSET else value for value in values), np.int64, len(values))
    if ((found != 0) & (found != 1)).any():
        raise UnusualJsonError
    flags: BoolArray = found == 1
    return flags
