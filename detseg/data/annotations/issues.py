"""Issues of a data set: every kind with its severity and its fix, and the report that readers and checks fill."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np

from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.errors import DataError
from detseg.messages import printable
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, ClassTable

_MAX_EXAMPLES = 5  # places that are named of each issue


class Severity(IntEnum):
    """How bad an issue is: for information, worth a look, or wrong."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


_NOTE, _WARNING, _ERROR = Severity.NOTE, Severity.WARNING, Severity.ERROR


class DataIssue(Enum):
    """All kinds of issues: severity, what the user reads, and what to do about it."""

    # of boxes and masks of objects
    NO_AREA = _WARNING, "boxes without area (left out of training)", "remove them, or correct their corners"
    NOTHING_INSIDE = _WARNING, "boxes outside their image (left out of training)", "remove them, or correct them"
    OUTSIDE = _WARNING, "boxes that extend more than a pixel beyond their image (clipped in training)", "clip them"
    NO_PIXEL = _WARNING, "masks without a pixel (left out of training)", "remove these objects, or draw them again"
    ONE_PIXEL = _WARNING, "boxes of one pixel or less", "remove them, if they are slips of the mouse"
    ZERO_BASED = (
        _NOTE,
        "boxes with a corner at 0 though VOC counts pixels from 1 (was the file written 0-based?)",
        "nothing is needed: they are read a pixel too large",
    )
    # of files, sizes and lists
    WRONG_FILENAME = (
        _NOTE,
        "annotation files whose <filename> is not their image (ignored; the list's name counts)",
        "nothing is needed",
    )
    SIZE_NOT_STATED = (
        _NOTE,
        "images whose size the annotation does not state (taken from the image)",
        "nothing is needed",
    )
    AREA_NOT_STATED = (
        _NOTE,
        "annotations whose area is not stated (that of the mask is taken, without masks that of the box)",
        "nothing is needed",
    )
    LISTED_TWICE = _WARNING, "images listed more than once (read once)", "take the repetitions off the list"
    MISSING_IMAGE = (
        _ERROR,
        "images that are missing (left out)",
        "add the files, or leave them out with data.on_missing=skip",
    )
    UNREADABLE_IMAGE = _ERROR, "images that cannot be read (left out)", "replace the files, or take them off the list"
    OTHER_PLACE = (
        _NOTE,
        "folders, lists and images that were found elsewhere below the root than stated",
        "nothing, if these are the ones that are meant",
    )
    EMBEDDED_IMAGE = (
        _ERROR,
        "images that are in their annotation files alone (left out)",
        "write each beside its annotation file",
    )
    WRONG_FILE = _ERROR, "annotation files that cannot be read (left out)", "correct them, or export them again"
    WRONG_LINE = _ERROR, "lines of label files that cannot be read (left out)", "correct or remove them"
    PIXEL_LINE = (
        _ERROR,
        "lines of label files with pixels where fractions of the image's sides are expected (left out)",
        "divide x by the width and y by the height of the image",
    )
    WRONG_SHAPE = _ERROR, "shapes that cannot be read (left out)", "correct or remove them"
    OTHER_SHAPE = (
        _WARNING,
        "points, lines, tags and the like, which are neither boxes nor outlines (left out)",
        "draw boxes or outlines, if these are objects",
    )
    ROTATED = _ERROR, "rotated boxes (left out)", "export their outlines as polygons, or draw upright boxes"
    NO_LABEL_FILE = (
        _NOTE,
        "images without a label file (kept, as background)",
        "nothing, if there are no objects in them",
    )
    LABELS_WITHOUT_IMAGE = _WARNING, "label files without an image (not read)", "add their images, or remove them"
    SHARED_LABELS = (
        _WARNING,
        "images that share a label file, as their names differ in the suffix alone",
        "rename one of them and its labels, or remove it",
    )
    UNLABELLED = (
        _WARNING,
        "images without an annotation file (left out: nobody has labelled them)",
        "label them; save an empty annotation for those without objects",
    )
    OTHER_SPELLING = (
        _WARNING,
        "images that were found under another spelling of their name",
        "correct the names in the annotations; detseg convert writes them so",
    )
    # of classes
    UNKNOWN_CLASS = (
        _ERROR,
        "objects of classes that the training set lacks (left out)",
        "correct the annotations, or name the classes in data.classes",
    )
    LEFT_OUT = _NOTE, "objects of classes that data.classes leaves out", "nothing, if that is meant"
    # of objects and images
    NO_OBJECTS = _NOTE, "images without objects (kept, as background)", "nothing, if there are no objects in them"
    CROWD = _NOTE, "crowd regions (neither right nor wrong to find)", "nothing is needed"
    DIFFICULT = _NOTE, "difficult objects (neither right nor wrong to find)", "nothing is needed"
    UNSEEN = _WARNING, "classes without any object", "add objects of them, or leave them out with data.classes"
    # of semantic masks
    NO_IMAGE = _WARNING, "masks without an image (not read)", "add their images, or remove them"
    ALL_IGNORED = _WARNING, "images of which no pixel counts (the whole mask is ignored)", "remove them, or label them"
    ONE_CLASS = _NOTE, "masks that show one class and ignored pixels, and nothing else", "nothing, if that is meant"
    ABSENT = _WARNING, "classes that no mask shows", "add masks of them, or leave them out with data.classes"

    def __init__(self, severity: Severity, text: str, fix: str) -> None:
        self.severity, self.text, self.fix = severity, text, fix


@dataclass(frozen=True)
class Example:
    """A place where an issue was found.

    Attributes:
        where: a file, a class or an id, for messages.
        image: position in the data set of the image to show; None: there is none.
        rows: which of its objects, counted within the image.
        badness: the larger, the worse: the worst examples are kept, the first ones of equals.
        detail: what is wrong in this place, in a few words with numbers; may be empty.
    """

    where: str
    image: int | None = None
    rows: tuple[int, ...] = ()
    badness: float = 0.0
    detail: str = ""


@dataclass
class Finding:
    """All cases of an issue in a data set: their number, and the worst few."""

    issue: DataIssue
    count: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def line(self) -> str:
        """Text, count and places on one line."""
        more = ", ..." if len(self.examples) > _MAX_EXAMPLES else ""
        where = ", ".join(printable(example.where) for example in self.examples[:_MAX_EXAMPLES]) + more
        return f"{self.issue.text}: {self.count} ({where})"


class DataReport:
    """The issues of a data set: a count of each, and a few places.

    ``accept``: kinds of errors that readers count, passing over what is wrong, instead of raising them; True: all.
    """

    def __init__(self, accept: Collection[DataIssue] | bool = ()) -> None:
        self._accept = accept
        self._findings: dict[DataIssue, Finding] = {}
        self._notes: list[str] = []

    @property
    def tolerant(self) -> bool:
        """Whether all errors that can be passed over are counted instead of raised: of readers for checks and
        conversions, which also keep every segmentation there is."""
        return self._accept is True

    def note(self, line: str) -> None:
        """Add a line of text, for what cannot be counted."""
        self._notes.append(line)

    def add(self, issue: DataIssue, where: str | Example, count: int = 1) -> None:
        """Add ``count`` cases of an issue at a place."""
        finding = self._findings.setdefault(issue, Finding(issue))
        finding.count += count
        example = Example(where) if isinstance(where, str) else where
        if example.where not in [known.where for known in finding.examples]:
            finding.examples.append(example)
            if len(finding.examples) > _MAX_EXAMPLES + 1:
                finding.examples.sort(key=lambda known: -known.badness)
                del finding.examples[_MAX_EXAMPLES + 1 :]

    def wrong(
        self,
        issue: DataIssue,
        where: str | Example,
        message: str,
        count: int = 1,
        error: type[DataError] = DataError,
    ) -> None:
        """Add cases of something wrong that this report accepts; raises ``error`` with the ``message`` if not."""
        if not (self._accept if isinstance(self._accept, bool) else issue in self._accept):
            raise error(message)
        self.add(issue, where, count)

    def findings(self) -> list[Finding]:
        """What was found, in the order of the kinds; of each the worst places come first."""
        found = [self._findings[issue] for issue in DataIssue if issue in self._findings]
        for finding in found:
            finding.examples.sort(key=lambda known: -known.badness)
        return found

    def count(self, issue: DataIssue) -> int:
        """Number of cases of an issue."""
        return self._findings[issue].count if issue in self._findings else 0

    def examples(self, issue: DataIssue) -> list[str]:
        """The first places of an issue, at most five, each once."""
        known = self._findings[issue].examples if issue in self._findings else []
        return [example.where for example in known[:_MAX_EXAMPLES]]

    def lines(self) -> list[str]:
        """The notes, then one line for each issue that was found."""
        return self._notes + [finding.line for finding in self.findings()]


def report_contents(packed: PackedAnnotations, classes: ClassTable, report: DataReport) -> None:
    """Add to a report the issues of boxes, flags, images and classes that are the same in every format."""
    counts = np.diff(packed.offsets)
    image_of = np.repeat(np.arange(len(packed)), counts)  # (T,): T objects of all images
    hw = packed.sizes_hw[image_of]  # (T, 2)
    sides = packed.boxes[:, 2:] - packed.boxes[:, :2]  # (T, 2)
    trainable = training_boxes(packed.boxes, hw)[1]
    no_area = np.asarray((sides <= 0).any(axis=1))
    outside = np.asarray((packed.boxes[:, :2] < -1).any(axis=1) | (packed.boxes[:, 2:] > hw[:, ::-1] + 1).any(axis=1))
    found = {
        DataIssue.NO_AREA: no_area,
        DataIssue.NOTHING_INSIDE: ~no_area & ~trainable,
        DataIssue.OUTSIDE: trainable & outside,
        DataIssue.ONE_PIXEL: ~no_area & (sides <= 1).all(axis=1),
        DataIssue.CROWD: packed.crowd,
        DataIssue.DIFFICULT: packed.difficult,
    }
    for issue, rows in found.items():
        report_rows(issue, rows, packed, report)
    for image in np.flatnonzero(counts == 0).tolist():
        report.add(DataIssue.NO_OBJECTS, Example(packed.path(image), image))
    for label in np.flatnonzero(np.bincount(packed.labels, minlength=len(classes)) == 0):
        report.add(DataIssue.UNSEEN, classes.names[label])


def report_rows(issue: DataIssue, rows: BoolArray, packed: PackedAnnotations, report: DataReport) -> None:
    """Add the objects that a (T,) bool mask marks, image by image."""
    marked = np.flatnonzero(rows)
    of_image, firsts = np.unique(np.searchsorted(packed.offsets, marked, side="right") - 1, return_index=True)
    for image, own in zip(of_image.tolist(), np.split(marked, firsts[1:]), strict=False):
        inside = tuple((own - packed.offsets[image]).tolist())
        report.add(issue, Example(packed.path(image), image, inside), len(inside))


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
