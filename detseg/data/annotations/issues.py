"""Issues of a data set that are no errors: found while reading, with counts and a few examples."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.messages import printable
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable

_MAX_EXAMPLES = 5  # places that are named of each issue


class DataIssue(StrEnum):
    """All issues that readers report; the value is the text that the user sees."""

    NO_AREA = "boxes without area (left out of training)"
    NOTHING_INSIDE = "boxes outside their image (left out of training)"
    OUTSIDE = "boxes that extend more than a pixel beyond their image (clipped in training)"
    NO_PIXEL = "masks without a pixel (left out of training)"
    ONE_PIXEL = "boxes of one pixel or less"
    ZERO_BASED = "boxes with a corner at 0 though VOC counts pixels from 1 (was the file written 0-based?)"
    WRONG_FILENAME = "annotation files whose <filename> is not their image (ignored; the list's name counts)"
    SIZE_NOT_STATED = "images whose size the annotation does not state (taken from the image)"
    AREA_NOT_STATED = "annotations whose area is not stated (that of the mask is taken, without masks that of the box)"
    LISTED_TWICE = "images listed more than once (read once)"
    LEFT_OUT = "annotations of categories that the given classes leave out"
    NO_OBJECTS = "images without objects (kept, as background)"
    CROWD = "crowd regions (neither right nor wrong to find)"
    DIFFICULT = "difficult objects (neither right nor wrong to find)"
    UNSEEN = "classes without any object"
    NO_IMAGE = "masks without an image (not read)"
    ALL_IGNORED = "images of which no pixel counts (the whole mask is ignored)"
    ONE_CLASS = "masks that show one class and ignored pixels, and nothing else"
    ABSENT = "classes that no mask shows"


class DataReport:
    """The issues of a data set: a count of each, and the first few places."""

    def __init__(self) -> None:
        self._counts: Counter[DataIssue] = Counter()
        self._examples: dict[DataIssue, list[str]] = {}
        self._notes: list[str] = []

    def note(self, line: str) -> None:
        """Add a line of text, for what cannot be counted."""
        self._notes.append(line)

    def add(self, issue: DataIssue, where: str, count: int = 1) -> None:
        """Add ``count`` cases of an issue at a place: a file, a class or an id."""
        self._counts[issue] += count
        examples = self._examples.setdefault(issue, [])
        if len(examples) <= _MAX_EXAMPLES and where not in examples:
            examples.append(where)

    def count(self, issue: DataIssue) -> int:
        """Number of cases of an issue."""
        return self._counts[issue]

    def examples(self, issue: DataIssue) -> list[str]:
        """The first places of an issue, at most five, each once."""
        return self._examples.get(issue, [])[:_MAX_EXAMPLES]

    def lines(self) -> list[str]:
        """The notes, then one line for each issue that was found."""
        lines = list(self._notes)
        for issue in DataIssue:
            if self.count(issue):
                more = ", ..." if len(self._examples[issue]) > _MAX_EXAMPLES else ""
                where = ", ".join(printable(name) for name in self.examples(issue)) + more
                lines.append(f"{issue.value}: {self.count(issue)} ({where})")
        return lines


def report_contents(packed: PackedAnnotations, classes: ClassTable, report: DataReport) -> None:
    """Add to a report the issues of boxes, flags, images and classes that are the same in every format."""
    counts = np.diff(packed.offsets)
    image_of = np.repeat(np.arange(len(packed)), counts)  # (T,): T objects of all images
    hw = packed.sizes_hw[image_of]  # (T, 2)
    sides = packed.boxes[:, 2:] - packed.boxes[:, :2]  # (T, 2)
    trainable = training_boxes(packed.boxes, hw)[1]
    no_area = (sides <= 0).any(axis=1)
    outside = (packed.boxes[:, :2] < -1).any(axis=1) | (packed.boxes[:, 2:] > hw[:, ::-1] + 1).any(axis=1)
    found = {
        DataIssue.NO_AREA: no_area,
        DataIssue.NOTHING_INSIDE: ~no_area & ~trainable,
        DataIssue.OUTSIDE: trainable & outside,
        DataIssue.ONE_PIXEL: ~no_area & (sides <= 1).all(axis=1),
        DataIssue.CROWD: packed.crowd,
        DataIssue.DIFFICULT: packed.difficult,
    }
    for issue, rows in found.items():
        for image, count in zip(*np.unique(image_of[rows], return_counts=True), strict=True):
            report.add(issue, packed.path(int(image)), int(count))
    for image in np.flatnonzero(counts == 0):
        report.add(DataIssue.NO_OBJECTS, packed.path(int(image)))
    for label in np.flatnonzero(np.bincount(packed.labels, minlength=len(classes)) == 0):
        report.add(DataIssue.UNSEEN, classes.names[label])


def small_boxes_line(annotations: PackedAnnotations, input_hw: tuple[int, int], min_box_size: float) -> str | None:
    """One line on the boxes of a training set whose sides are below ``min_box_size`` pixels in the letterbox to
    ``input_hw`` (height, width), so that they are dropped; None if all are kept."""
    image_of = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))  # (T,)
    boxes, has_area = training_boxes(annotations.boxes, annotations.sizes_hw[image_of])
    counted = has_area & ~annotations.crowd & ~annotations.difficult
    scales = [Letterbox.fit((int(height), int(width)), input_hw).scale_xy for height, width in annotations.sizes_hw]
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.array(scales).reshape(-1, 2)[image_of]  # (T, 2)
    small = counted & (sides < min_box_size).any(axis=1)
    if not small.any():
        return None
    names = ", ".join(printable(annotations.path(int(i))) for i in np.unique(image_of[small])[:3])
    return (
        f"{small.sum()} of {counted.sum()} objects ({small.sum() / counted.sum():.1%}) have a side below "
        f"data.augmentation.min_box_size = {min_box_size:g} pixels in the network input of {input_hw[1]} x "
        f"{input_hw[0]} and are not trained on unless augmentation enlarges them ({names}); raise data.image_size or "
        "lower data.augmentation.min_box_size"
    )
