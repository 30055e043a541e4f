"""Issues of a data set that are no errors: found while reading, with counts and a few examples."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.messages import printable
from detseg.structures import ClassTable

_MAX_EXAMPLES = 5
"""Places that are named of each issue."""


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
    LINK_NOT_FOLLOWED = "links to folders that are not followed (the folder is read already, or holds the link)"
    SHARED_IMAGE = "image entries that share their file with another entry"
    LEFT_OUT = "annotations of categories that the given classes leave out"
    OTHER_ID = "categories whose id differs from the given table's (the names were matched)"
    IGNORE_KEY = "annotations with ignore=1 (counted like all others, as in pycocotools; iscrowd=1 leaves out)"
    NO_OBJECTS = "images without objects (kept, as background)"
    CROWD = "crowd regions (neither right nor wrong to find)"
    DIFFICULT = "difficult objects (neither right nor wrong to find)"
    UNSEEN = "classes without any object"
    NO_IMAGE = "masks without an image (not read)"
    ALL_IGNORED = "images of which no pixel counts (the whole mask is ignored)"
    ONE_CLASS = "masks that show one class and ignored pixels, and nothing else"
    ABSENT = "classes that no mask shows"
    TURNED = (
        "images turned by an EXIF orientation that their masks do not have "
        "(if the masks were drawn on the unturned images, they do not fit)"
    )


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

    def add_all(self, issue: DataIssue, ids: list[int]) -> None:
        """Add one case of an issue for each id."""
        self._counts[issue] += len(ids)
        for entry_id in ids[: _MAX_EXAMPLES + 1]:
            self.add(issue, str(entry_id), 0)

    def count(self, issue: DataIssue) -> int:
        """Number of cases of an issue."""
        return self._counts[issue]

    def examples(self, issue: DataIssue) -> list[str]:
        """The first places of an issue, at most five, each once."""
        return self._examples.get(issue, [])[:_MAX_EXAMPLES]

    def lines(self) -> list[str]:
        """The notes, then one line for each issue that was found."""
        return self._notes + [
            f"{issue.value}: {self._counts[issue]} ({self._where(issue)})" for issue in DataIssue if self.count(issue)
        ]

    def _where(self, issue: DataIssue) -> str:
        more = ", ..." if len(self._examples[issue]) > _MAX_EXAMPLES else ""
        return ", ".join(printable(name) for name in self.examples(issue)) + more


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
