"""Repairs of a data set that was checked: its annotations with what can be put right, and a list of changes."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detseg.atomic_write import write_text
from detseg.data.annotations.boxes import (
    are_no_swapped_corners,
    as_two_corners,
    have_corner_as_size,
    have_size_as_corner,
    inverted,
    relative,
)
from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.model import PackedAnnotations, Segmentations, region_counts, training_boxes
from detseg.data.annotations.outlines import clip_polygon
from detseg.data.annotations.report import DataReport, repeated_objects
from detseg.data.checks.facts import SplitFacts
from detseg.data.checks.mask_facts import LabelFacts, MaskFacts, cut_holes, transposed
from detseg.data.checks.run import Checked
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.errors import DataError
from detseg.ops.masks import mask_bounds
from detseg.structures import BoolArray, FloatArray, IntArray

REPAIRED = frozenset(
    {
        DataIssue.REPEATED,
        DataIssue.OUTSIDE,
        DataIssue.NO_AREA,
        DataIssue.NOTHING_INSIDE,
        DataIssue.INVERTED,
        DataIssue.SIZE_AS_CORNER,
        DataIssue.CORNER_AS_SIZE,
        DataIssue.RELATIVE,
        DataIssue.OTHER_SIZE,
        DataIssue.UNREADABLE,
        DataIssue.OTHER_SPELLING,
        DataIssue.ROW_MAJOR,
        DataIssue.FILLED_HOLES,
        DataIssue.SAME_ACROSS,
        DataIssue.DUPLICATE_ID,
        DataIssue.MISSING_IMAGE,
        DataIssue.UNKNOWN_IMAGE,
        DataIssue.UNKNOWN_CATEGORY,
        DataIssue.UNKNOWN_CLASS,
        DataIssue.WRONG_OBJECT,
        DataIssue.WRONG_FILE,
        DataIssue.BAD_MASK,
        DataIssue.LISTED_TWICE,
        DataIssue.WRONG_MASK,
        DataIssue.MASK_SIZE,
        DataIssue.NO_MASK,
        DataIssue.NO_IMAGE,
        DataIssue.ROTATED,
        DataIssue.OTHER_SHAPE,
        DataIssue.NOT_IN_TABLE,
    }
)
"""The kinds that a repaired copy does not have, but for what `unrepaired` says of it."""

CHANGES_FILE = "changes.csv"

_SIZE = "size corrected"
_BY_READERS = {
    DataIssue.OTHER_SPELLING: "names of images corrected",
    DataIssue.DUPLICATE_ID: "entries with the id of an earlier one left out",
    DataIssue.MISSING_IMAGE: "missing images left out",
    DataIssue.UNKNOWN_IMAGE: "objects of images that are not listed left out",
    DataIssue.UNKNOWN_CATEGORY: "objects of categories that are not listed left out",
    DataIssue.UNKNOWN_CLASS: "objects of unknown classes left out",
    DataIssue.WRONG_OBJECT: "objects that cannot be read left out",
    DataIssue.WRONG_FILE: "annotation files that cannot be read left out",
    DataIssue.BAD_MASK: "segmentations that cannot be used left out",
    DataIssue.LISTED_TWICE: "repetitions in lists left out",
    DataIssue.NO_MASK: "images without a mask left out",
    DataIssue.NO_IMAGE: "label files and masks without an image left out",
    DataIssue.ROTATED: "rotated boxes left out",
    DataIssue.OTHER_SHAPE: "points, lines and the like left out",
    DataIssue.NOT_IN_TABLE: "objects of categories that train does not list left out",
    DataIssue.LEFT_OUT: "objects of classes that data.classes leaves out",
}
"""What a set that was read with a tolerant report has lost or gained already."""

_OBJECTS_LOST = frozenset(
    {
        DataIssue.UNKNOWN_IMAGE,
        DataIssue.UNKNOWN_CATEGORY,
        DataIssue.UNKNOWN_CLASS,
        DataIssue.WRONG_OBJECT,
        DataIssue.ROTATED,
        DataIssue.NOT_IN_TABLE,
    }
)
_FILES_LOST = frozenset({DataIssue.MISSING_IMAGE, DataIssue.WRONG_FILE, DataIssue.NO_MASK})
_UNREADABLE = "unreadable image left out"


@dataclass
class Changes:
    """What was changed: split, place, number of the object in it (from 0; "" for the image), what, before, after.

    A place is an image; of what readers have left out it may be a file or a class, with the number of objects there,
    and the first 10 000 places have a row.
    """

    rows: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    numbers: Counter[str] = field(default_factory=Counter)  # of changes, by what they are
    kept: dict[str, list[int]] = field(default_factory=dict)  # positions of the images that are in the copy

    def add(self, split: str, place: str, number: str, what: str, before: str = "", after: str = "") -> None:
        """Add a change."""
        self.rows.append((split, place, number, what, before, after))
        self.numbers[what] += 1

    def write(self, path: Path) -> None:
        """Write them as CSV with a header; a DataError if the file cannot be written."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("split", "place", "object", "what", "before", "after"))
        writer.writerows(self.rows)
        write_text(path, text.getvalue())


def repair(checked: Checked) -> tuple[Mapping[str, DetectionDataset | SegmentationDataset], Changes]:
    """The repaired splits, of objects or of label maps, and the changes; see the next two functions. A DataError also
    where a copy would lack most of the set, and where ids are off by one: all labels in it would be wrong."""
    for _, finding in checked.findings():
        if finding.issue is DataIssue.OFF_BY_ONE:
            raise DataError(f"no copy is written: {finding.issue.text}; {finding.issue.fix}")
    for split in checked.splits:
        _refuse_losses(split)
    return repair_maps(checked.splits) if checked.of_maps else repair_splits(checked.splits)


def _refuse_losses(split: SplitFacts) -> None:
    """A DataError if readers have left out more of a split than is left of it."""
    objects = 0 if split.objects is None else len(split.objects.labels)
    for issues, left, noun in ((_OBJECTS_LOST, objects, "objects"), (_FILES_LOST, len(split.dataset), "images")):
        lost = {issue: number for issue in issues if (number := split.report.count(issue))}
        if sum(lost.values()) > left:
            worst = max(lost, key=lambda issue: lost[issue])
            what = f"it would lack {sum(lost.values())} of {sum(lost.values()) + left} {noun}: {worst.text}"
            raise DataError(f"{split.name}: no copy is written, as {what}; {worst.fix}")


def repair_splits(splits: Sequence[SplitFacts]) -> tuple[dict[str, DetectionDataset], Changes]:
    """The repaired splits of objects, to be written by a format's writer, and the changes. The files of the splits stay
    as they are. A DataError where boxes have two readings that fit: a copy would destroy one of them."""
    changes, repaired = Changes(), dict[str, DetectionDataset]()
    for split, kept in _kept(splits, changes):
        dataset = split.dataset
        assert isinstance(dataset, DetectionDataset)
        packed = _repair(split, set(kept), changes).select(kept)
        if not dataset.name.startswith("coco"):  # there ids are places in the order
            packed = replace(packed, image_ids=np.arange(1, len(packed) + 1))
        repaired[split.name] = DetectionDataset(packed, dataset.root, dataset.classes, DataReport(True), dataset.name)
    return repaired, changes


def repair_maps(splits: Sequence[SplitFacts]) -> tuple[dict[str, SegmentationDataset], Changes]:
    """The same for splits of label maps: images and maps that cannot be used are left out, no pixel is changed."""
    changes, repaired = Changes(), dict[str, SegmentationDataset]()
    for split, kept in _kept(splits, changes):
        assert isinstance(split.dataset, SegmentationDataset)
        repaired[split.name] = split.dataset.subset(kept)
    return repaired, changes


def _kept(splits: Sequence[SplitFacts], changes: Changes) -> Iterator[tuple[SplitFacts, list[int]]]:
    """The splits, with the positions of the images that stay; what is lost is among the changes."""
    elsewhere = _in_train_and_elsewhere(splits)
    for split in splits:
        for finding in split.report.findings():
            if (what := _BY_READERS.get(finding.issue)) is not None:
                for place in finding.examples:
                    number = str(place.count) if place.count > 1 else ""
                    changes.add(split.name, place.where, number, what, place.detail)
                changes.numbers[what] += finding.count - len(finding.examples)
            elif finding.issue is DataIssue.UNREADABLE:  # by readers that look for their sizes
                for place in finding.examples:
                    if place.image is None:
                        changes.add(split.name, place.where, "", _UNREADABLE, place.detail)
        kept = _kept_images(split, elsewhere if split.name == "train" else set(), changes)
        changes.kept[split.name] = kept
        yield split, kept


def _in_train_and_elsewhere(splits: Sequence[SplitFacts]) -> set[bytes]:
    """Of the files to leave out of train; none if half of it or more is in another split: that is no slip, and would
    leave too little to train on."""
    others = {image.digest for split in splits if split.name != "train" for image in split.images if image.digest}
    train = [image.digest for split in splits if split.name == "train" for image in split.images if not image.error]
    common = [digest for digest in train if digest in others]
    return set(common) if 2 * len(common) < len(train) else set()


def _kept_images(split: SplitFacts, elsewhere: set[bytes], changes: Changes) -> list[int]:
    kept = []
    for index, (image, mask) in enumerate(zip(split.images, split.masks, strict=True)):
        what, before = "", ""
        if image.error:
            what, before = _UNREADABLE, image.error
        elif image.digest in elsewhere:
            what = "image left out of train, which is in another split, too"
        elif isinstance(mask, LabelFacts) and mask.error:
            what, before = "unreadable mask left out", mask.error
        elif isinstance(mask, LabelFacts) and mask.hw != image.hw:
            what = "mask of another size left out"
            before = f"{mask.hw[1]} x {mask.hw[0]}, image {image.hw[1]} x {image.hw[0]}"
        if what:
            changes.add(split.name, split.dataset.packed.path(index), "", what, before)
        else:
            kept.append(index)
    return kept


def _repair(split: SplitFacts, kept_images: set[int], changes: Changes) -> PackedAnnotations:
    packed, image_of = split.objects, split.image_of
    assert packed is not None
    log = _Log(split.name, packed, image_of, kept_images, changes)
    sizes = _sizes(split, packed, log)
    packed = replace(packed, sizes_hw=sizes)
    hw = sizes[image_of]
    scaled = relative(packed.boxes, image_of, len(packed))
    if have_size_as_corner(packed.boxes, hw) and not are_no_swapped_corners(packed.boxes, hw):
        issue = DataIssue.SIZE_OR_SWAPPED
        raise DataError(f"{split.name}: no copy is written: {issue.text}; {issue.fix}")
    boxes, clipped = _boxes(packed, scaled, hw, split.dataset.name.startswith("voc"), log)
    _take_from_masks(boxes, hw, split, log)
    trainable = training_boxes(boxes, hw)[1]
    for row in np.flatnonzero(~trainable).tolist():
        what = "box without area removed" if (boxes[row, 2:] <= boxes[row, :2]).any() else "box outside removed"
        log.add(row, what, packed.boxes[row])
    twice = repeated_objects(replace(packed, boxes=boxes)) & trainable
    for row in np.flatnonzero(twice).tolist():
        log.add(row, "repeated box removed", packed.boxes[row])
    regions = _regions(split, packed, scaled, clipped, log)
    before, after = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (packed.boxes, boxes))
    area = np.where(scaled & (packed.area <= 1), packed.area * hw.prod(axis=1), packed.area)
    area = np.where(np.isclose(packed.area, before), after, area)  # an area that is the box's follows it
    kept = trainable & ~twice
    stated = ~np.isnan(packed.area) & split.dataset.name.startswith("coco")
    for row in np.flatnonzero(kept & stated & (area != packed.area)).tolist():
        log.add(row, "area changed with its box", packed.area[row : row + 1], area[row : row + 1])
    return replace(packed, boxes=boxes, regions=regions, area=area).keep_objects(kept)


def _take_from_masks(boxes: FloatArray, hw: IntArray, split: SplitFacts, log: _Log) -> None:
    """Boxes without area, or outside, become those of their masks, in place, where there are such."""
    lost = ~training_boxes(boxes, hw)[1]
    for index in np.unique(split.image_of[lost]).tolist():
        masks = split.masks[index]
        begin = int(log.packed.offsets[index])
        for row in np.flatnonzero(lost[begin : log.packed.offsets[index + 1]]).tolist():
            if isinstance(masks, MaskFacts) and masks.areas[row] > 0:
                log.add(begin + row, "box taken from its mask", boxes[begin + row], masks.bounds[row])
                boxes[begin + row] = masks.bounds[row]


@dataclass(frozen=True, eq=False)
class _Log:
    split: str
    packed: PackedAnnotations
    image_of: IntArray
    kept_images: set[int]
    changes: Changes

    def add(self, row: int, what: str, before: Any = "", after: Any = "") -> None:
        """A change of one object; of images that are left out nothing is said."""
        image = int(self.image_of[row])
        if image in self.kept_images:
            inside = str(row - int(self.packed.offsets[image]))
            texts = [_numbers(value) for value in (before, after)]
            self.changes.add(self.split, self.packed.path(image), inside, what, texts[0], texts[1])

    def add_image(self, image: int, what: str, before: str, after: str) -> None:
        """A change of an image."""
        if image in self.kept_images:
            self.changes.add(self.split, self.packed.path(image), "", what, before, after)


def _numbers(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(f"{number:.10g}" for number in value)


def _sizes(split: SplitFacts, packed: PackedAnnotations, log: _Log) -> IntArray:
    """The sizes of the images, where the boxes lie inside them and were not drawn at the stated size: some reach beyond
    it, in this image or in another of the split with the same ratio of the sizes, or the sizes differ by a pixel."""
    sizes, fitting, drawn_here = packed.sizes_hw.copy(), list[tuple[int, tuple[float, ...]]](), set[tuple[float, ...]]()
    for index, (image, masks) in enumerate(zip(split.images, split.masks, strict=True)):
        stated = packed.hw(index)
        if image.error or image.hw == stated or (image.hw == stated[::-1] and image.orientation >= 5):
            continue
        largest = packed.boxes[packed.offsets[index] : packed.offsets[index + 1], 3:1:-1].max(axis=0, initial=0)
        has_runs = isinstance(masks, MaskFacts) and bool(masks.runs.any())  # which are of the stated size
        if (largest <= np.array(image.hw) + 1).all() and not has_runs:
            ratio = tuple((np.array(image.hw) / stated).round(2).tolist())
            fitting.append((index, ratio))
            if (largest > np.array(stated) + 1).any() or np.abs(np.array(image.hw) - stated).max() <= 1:
                drawn_here.add(ratio)
    for index, ratio in fitting:
        if ratio in drawn_here:
            sizes[index] = split.images[index].hw
            texts = [f"{hw[1]} x {hw[0]}" for hw in (packed.hw(index), split.images[index].hw)]
            log.add_image(index, _SIZE, texts[0], texts[1])
    return sizes


def _boxes(
    packed: PackedAnnotations, ratio: BoolArray, hw: IntArray, is_voc: bool, log: _Log
) -> tuple[FloatArray, BoolArray]:
    """Boxes with relative coordinates (``ratio``) scaled, corners put right, and clipped where they leave their image,
    which is the (T,) bool returned beside them."""
    boxes = packed.boxes.copy()
    first = np.array([1.0, 1.0]) if is_voc else np.zeros(2)  # readers have taken it off the first corner

    def change(rows: BoolArray, what: str, low: FloatArray, high: FloatArray) -> None:
        new = np.concatenate([low, high], axis=1)
        for row in np.flatnonzero(rows & (new != boxes).any(axis=1)).tolist():
            log.add(row, what, boxes[row], new[row])
        boxes[rows] = new[rows]

    change(ratio, "relative box scaled", (boxes[:, :2] + first) * hw[:, ::-1], boxes[:, 2:] * hw[:, ::-1])
    others = ~ratio
    if have_size_as_corner(packed.boxes, hw):
        change(others, "width and height added to the corner", boxes[:, :2], boxes[:, :2] + boxes[:, 2:])
    elif have_corner_as_size(packed.boxes, hw, packed.centred):
        corners = as_two_corners(boxes, packed.centred)
        change(others, "width and height taken as the second corner", corners[:, :2], corners[:, 2:])
    else:
        low, high = np.minimum(boxes[:, :2] + first, boxes[:, 2:]), np.maximum(boxes[:, :2] + first, boxes[:, 2:])
        change(others & inverted(boxes), "corners swapped", low - first, high)
    beyond = (boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > hw[:, ::-1] + 1).any(axis=1)
    inside = training_boxes(boxes, hw)[1]
    limit = hw[:, ::-1].astype(np.float64)
    change(beyond & inside, "box clipped", boxes[:, :2].clip(0), np.minimum(boxes[:, 2:], limit))
    return boxes, beyond & inside


def _regions(
    split: SplitFacts, packed: PackedAnnotations, scaled: BoolArray, clipped: BoolArray, log: _Log
) -> Segmentations | None:
    """The segmentations, with transposed run lengths put right, holes cut out, and polygons scaled and clipped
    where their boxes are; None where there are none."""
    if packed.regions is None:
        return None
    new: dict[int, bytes] = {}
    for index, masks in enumerate(split.masks):
        hw, begin, end = packed.hw(index), int(packed.offsets[index]), int(packed.offsets[index + 1])
        as_boxes = scaled[begin:end] | clipped[begin:end]
        if not isinstance(masks, MaskFacts) or not (masks.row_major | masks.holes | as_boxes).any():
            continue
        for row, stated in enumerate(packed.stated(index)):
            if as_boxes[row] and isinstance(stated.segmentation, list):
                polygons = _polygons_as_boxes(stated.segmentation, hw, bool(scaled[begin + row]))
                if polygons and polygons != stated.segmentation:
                    what = f"outline {'scaled' if scaled[begin + row] else 'clipped'}"
                    log.add(begin + row, what, json.dumps(stated.segmentation), json.dumps(polygons))
                    new[begin + row] = json.dumps(polygons).encode()
                continue
            if masks.row_major[row]:
                counts = transposed(region_counts(stated.segmentation, hw), hw)
                log.add(begin + row, "run lengths transposed", masks.bounds[row], mask_bounds((counts,), hw)[0])
            elif masks.holes[row] and split.dataset.name.startswith("coco"):
                counts = cut_holes(stated.segmentation, hw)
                log.add(begin + row, "holes cut out", f"{masks.areas[row]:.0f}", f"{stated.area:.0f}")
            else:
                continue
            new[begin + row] = json.dumps({"size": list(hw), "counts": counts.decode()}).encode()
    if not new:
        return packed.regions
    texts = [new.get(row, text) for row, text in enumerate(packed.regions.texts(range(len(packed.regions))))]
    return Segmentations.of_texts(packed.regions.file, packed.regions.annotation_ids, texts)


def _polygons_as_boxes(polygons: list[list[float]], hw: tuple[int, int], is_scaled: bool) -> list[list[float]]:
    """Polygons scaled to an image of height and width ``hw``, if they are relative to it, and clipped."""
    if is_scaled and max(map(max, polygons)) <= 1:
        polygons = [(np.array(polygon).reshape(-1, 2) * hw[::-1]).ravel().tolist() for polygon in polygons]
    return [clipped for polygon in polygons if (clipped := clip_polygon(polygon, hw))]


def unrepaired(checked: Checked, changes: Changes) -> list[tuple[str, DataIssue, int]]:
    """Split, kind and number of the errors that the copy has still; a check of it says what else there is. A kind is
    repaired in all places or in none, but for sizes of images and images in two splits."""
    left = []
    for name, finding in checked.findings():
        number = finding.count
        if finding.issue == DataIssue.OTHER_SIZE:
            number -= sum(row[0] == name and row[3] == _SIZE for row in changes.rows)
        elif finding.issue == DataIssue.SAME_ACROSS:
            number = _in_earlier_split(checked.splits, changes.kept).get(name, 0)
        elif finding.issue in REPAIRED or finding.issue.severity < Severity.ERROR:
            continue
        if number:
            left.append((name, finding.issue, number))
    return left


def _in_earlier_split(splits: Sequence[SplitFacts], kept: dict[str, list[int]]) -> dict[str, int]:
    first, found = dict[bytes, str](), dict[str, int]()
    for split in splits:
        for index in kept.get(split.name, []):
            if first.setdefault(split.images[index].digest, split.name) != split.name:
                found[split.name] = found.get(split.name, 0) + 1
    return found


def report_lines(changes: Changes) -> list[str]:
    """One line for each kind of change, with its number."""
    return [f"{what}: {number}" for what, number in changes.numbers.items()]
