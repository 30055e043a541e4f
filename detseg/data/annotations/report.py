"""The report that readers and checks fill: the issues of a data set, with counts and the worst places."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from detseg.data.annotations.boxes import (
    are_no_swapped_corners,
    have_corner_as_size,
    have_size_as_corner,
    inverted,
    relative,
    repeated,
)
from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.errors import DataError
from detseg.messages import counted, printable
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray

_MAX_EXAMPLES = 5  # places that are named of each issue in a line
_MOST_KEPT = 10_000  # that are kept of each by a tolerant report


@dataclass(frozen=True)
class Example:
    """A place where an issue was found.

    Attributes:
        where: a file, a class or an id, for messages.
        image: position in the data set of the image to show; None: there is none.
        rows: which of its objects, counted within the image.
        badness: the larger, the worse: the worst examples are kept, the first ones of equals.
        detail: what is wrong in this place, in a few words with numbers; may be empty.
        other: split and position of an image to show beside it, a duplicate.
        count: of cases there.
    """

    where: str
    image: int | None = None
    rows: tuple[int, ...] = ()
    badness: float = 0.0
    detail: str = ""
    other: tuple[str, int] | None = None
    count: int = 1  # of cases there


@dataclass
class Finding:
    """All cases of an issue in a data set: their number, and the worst few, or up to 10 000 of a tolerant report."""

    issue: DataIssue
    count: int = 0
    examples: list[Example] = field(default_factory=list)
    known: set[str] = field(default_factory=set)  # where they are
    places: int = 0  # how often it was added: of issues of objects the images that have it

    @property
    def amount(self) -> str:
        """The number of cases, of objects also of the images with them: ``8 in 3 images``."""
        of_objects = any(example.rows for example in self.examples)
        return f"{self.count} in {counted(self.places, 'image')}" if of_objects else str(self.count)

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
        self._first_wrong = ""

    @property
    def tolerant(self) -> bool:
        """Whether all errors that can be passed over are counted instead of raised: of readers for checks and
        conversions, which also keep every segmentation there is."""
        return self._accept is True

    @property
    def first_wrong(self) -> str:
        """The message of the first thing that was wrong and accepted; "" if nothing was."""
        return self._first_wrong

    @property
    def notes(self) -> list[str]:
        """The lines of text, for what cannot be counted."""
        return list(self._notes)

    def note(self, line: str) -> None:
        """Add a line of text, for what cannot be counted."""
        self._notes.append(line)

    def add(self, issue: DataIssue, where: str | Example, count: int = 1) -> None:
        """Add ``count`` cases of an issue at a place."""
        finding = self._findings.setdefault(issue, Finding(issue))
        finding.count += count
        finding.places += 1
        example = replace(Example(where) if isinstance(where, str) else where, count=count)
        if example.where not in finding.known:
            finding.known.add(example.where)
            finding.examples.append(example)
            most = _MOST_KEPT if self.tolerant else _MAX_EXAMPLES + 1
            if len(finding.examples) > (2 * most if self.tolerant else most):  # sorting takes long
                finding.examples.sort(key=lambda known: -known.badness)
                del finding.examples[most:]
                finding.known = {known.where for known in finding.examples}

    def wrong(
        self,
        issue: DataIssue,
        where: str | Example,
        message: str,
        count: int = 1,
        error: type[DataError] = DataError,
    ) -> None:
        """Add cases of something wrong that this report accepts; raises ``error`` with the ``message`` if not. Without
        its file the message becomes the detail of the example, if that has none."""
        if not (self._accept if isinstance(self._accept, bool) else issue in self._accept):
            raise error(message)
        self._first_wrong = self._first_wrong or message
        example = Example(where) if isinstance(where, str) else where
        if not example.detail:
            reason = message.partition(": ")[2].removeprefix(f"{example.where}: ")
            example = replace(example, detail=reason or message)
        self.add(issue, example, count)

    def unread(self, kind: str, keys: Iterable[str]) -> None:
        """Count the keys of an entry of a file whose values are passed over; by a tolerant report alone, that of
        conversions, since others need not know."""
        for key in keys if self.tolerant else ():
            self.add(DataIssue.OTHER_KEYS, f"{kind}: {key}")

    def forget(self, issue: DataIssue) -> None:
        """Take back what was found of a kind, in a sample, say, to say it of all."""
        self._findings.pop(issue, None)

    def findings(self) -> list[Finding]:
        """What was found, in the order of the kinds; of each the worst places come first."""
        found = [self._findings[issue] for issue in DataIssue if issue in self._findings]
        for finding in found:
            finding.examples.sort(key=lambda known: -known.badness)
            del finding.examples[_MOST_KEPT:]
        return found

    def count(self, issue: DataIssue) -> int:
        """Number of cases of an issue."""
        return self._findings[issue].count if issue in self._findings else 0

    def examples(self, issue: DataIssue, most: int | None = _MAX_EXAMPLES) -> list[str]:
        """The first places of an issue, at most so many (None: all that are kept), each once."""
        known = self._findings[issue].examples if issue in self._findings else []
        return [example.where for example in known[:most]]

    def lines(self) -> list[str]:
        """The notes, then one line for each issue that was found."""
        return self._notes + [finding.line for finding in self.findings()]


def report_contents(packed: PackedAnnotations, classes: ClassTable, report: DataReport) -> None:
    """Add to a report the issues of boxes, flags, images and classes that are the same in every format, and that their
    numbers alone tell: no image is opened."""
    counts = np.diff(packed.offsets)
    for issue, rows in box_issues(packed).items():
        report_rows(issue, rows, packed, report)
    for image in np.flatnonzero(counts == 0).tolist():
        report.add(DataIssue.NO_OBJECTS, Example(packed.path(image), image))
    for label in np.flatnonzero(np.bincount(packed.labels, minlength=len(classes)) == 0):
        report.add(DataIssue.UNSEEN, classes.names[label])


def box_issues(packed: PackedAnnotations) -> dict[DataIssue, BoolArray]:
    """Which of T objects have which issue, (T,) bool each, by their boxes and flags alone; one box has one of the
    issues of its numbers."""
    image_of, boxes = packed.image_of, packed.boxes
    hw = packed.sizes_hw[image_of]  # (T, 2)
    sides = boxes[:, 2:] - boxes[:, :2]  # (T, 2)
    trainable = training_boxes(boxes, hw)[1]
    swapped, as_ratio = inverted(boxes), relative(boxes, image_of, len(packed))
    may_be_size = have_size_as_corner(boxes, hw)
    as_corner = swapped & (may_be_size and are_no_swapped_corners(boxes, hw))
    as_size = np.full(len(boxes), have_corner_as_size(boxes, hw, packed.centred))
    no_area = np.asarray((sides <= 0).any(axis=1)) & ~swapped
    wrong = swapped | as_ratio | no_area | as_size
    outside = np.asarray((boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > hw[:, ::-1] + 1).any(axis=1))
    one_pixel = ~wrong & (sides <= 1).all(axis=1)
    return {
        DataIssue.NO_AREA: no_area,
        DataIssue.NOTHING_INSIDE: ~wrong & ~trainable,
        DataIssue.OUTSIDE: ~wrong & trainable & outside,
        DataIssue.ONE_PIXEL: one_pixel,
        DataIssue.INVERTED: swapped & (not may_be_size),
        DataIssue.SIZE_AS_CORNER: as_corner,
        DataIssue.SIZE_OR_SWAPPED: swapped & may_be_size & ~as_corner,
        DataIssue.CORNER_AS_SIZE: as_size & ~swapped & ~as_ratio & ~no_area,
        DataIssue.RELATIVE: as_ratio,
        DataIssue.REPEATED: repeated_objects(packed) & ~as_ratio,
        DataIssue.CROWD: packed.crowd,
        DataIssue.DIFFICULT: packed.difficult,
    }


def repeated_objects(packed: PackedAnnotations) -> BoolArray:
    """(T,) bool: an earlier object of the same image, class and flags has the same box, and the same outline, if this
    one has any."""
    kind = 4 * packed.labels + 2 * packed.crowd + packed.difficult
    groups = packed.image_of * (kind.max(initial=0) + 1) + kind
    found = repeated(packed.boxes, groups)
    if packed.regions is None or not found.any():
        return found
    rows = np.flatnonzero(found | repeated(packed.boxes[::-1], groups[::-1])[::-1])  # with the first of each
    texts = list(packed.regions.texts(rows.tolist()))
    number_of = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    of_text = groups[rows] * len(number_of) + np.array([number_of[text] for text in texts])
    of_box = np.array([not text for text in texts])
    found[rows] = np.where(of_box, found[rows], repeated(packed.boxes[rows], of_text))
    return found


def report_rows(
    issue: DataIssue, rows: BoolArray, packed: PackedAnnotations, report: DataReport, detail: str = ""
) -> None:
    """Add the objects that a (T,) bool mask marks, image by image; with a ``detail``, which is said of all of them, the
    images with the most come first."""
    marked = np.flatnonzero(rows)
    of_image, firsts = np.unique(np.searchsorted(packed.offsets, marked, side="right") - 1, return_index=True)
    for image, own in zip(of_image.tolist(), np.split(marked, firsts[1:]), strict=False):
        inside = tuple((own - packed.offsets[image]).tolist())
        badness = float(len(inside)) if detail else 0.0
        report.add(issue, Example(packed.path(image), image, inside, badness, detail), len(inside))


def sizes_in_input(annotations: PackedAnnotations, input_hw: tuple[int, int]) -> tuple[FloatArray, IntArray]:
    """Widths and heights of the trainable objects in the letterbox to ``input_hw`` (height, width), (N, 2) float64
    pixels, and (N,) their rows."""
    image_of = annotations.image_of
    boxes, has_area = training_boxes(annotations.boxes, annotations.sizes_hw[image_of])
    rows = np.flatnonzero(has_area & ~annotations.crowd & ~annotations.difficult)
    shapes, inverse = np.unique(annotations.sizes_hw, axis=0, return_inverse=True)
    scales = np.array([Letterbox.fit((h, w), input_hw).scale_xy for h, w in shapes.tolist()]).reshape(-1, 2)
    sides = (boxes[rows, 2:] - boxes[rows, :2]).astype(np.float64)
    return sides * scales[inverse.reshape(-1)[image_of[rows]]], rows


def small_boxes_line(annotations: PackedAnnotations, input_hw: tuple[int, int], min_box_size: float) -> str | None:
    """One line on the boxes of a training set whose sides are below ``min_box_size`` pixels in the letterbox to
    ``input_hw`` (height, width), so that they are dropped; None if all are kept."""
    sizes, rows = sizes_in_input(annotations, input_hw)
    small = np.asarray((sizes < min_box_size).any(axis=1))
    if not small.any():
        return None
    names = ", ".join(printable(annotations.path(i)) for i in np.unique(annotations.image_of[rows[small]])[:3].tolist())
    return (
        f"{small.sum()} of {len(small)} objects ({small.mean():.1%}) have a side below "
        f"data.augmentation.min_box_size = {min_box_size:g} pixels in the network input of {input_hw[1]} x "
        f"{input_hw[0]} and are not trained on unless augmentation enlarges them ({names}); raise data.image_size or "
        "lower data.augmentation.min_box_size"
    )


def nothing_to_learn(annotations: PackedAnnotations, report: DataReport) -> str | None:
    """Why a set has no object to train on, and what to do about it; None if there is one. ``report``: what its reader
    left out."""
    has_area = training_boxes(annotations.boxes, annotations.sizes_hw[annotations.image_of])[1]
    if (has_area & ~annotations.crowd & ~annotations.difficult).any():
        return None
    num, crowd, difficult = len(annotations.labels), int(annotations.crowd.sum()), int(annotations.difficult.sum())
    left_out = [
        finding
        for finding in report.findings()
        if finding.issue.severity == Severity.ERROR or finding.issue in (DataIssue.LEFT_OUT, DataIssue.OTHER_SHAPE)
    ]
    if not num and left_out:
        most = max(left_out, key=lambda finding: finding.count)
        why, fix = f"none is left of its {len(annotations)} images; {most.issue.text}: {most.count}", most.issue.fix
        fix = "correct data.classes" if most.issue is DataIssue.LEFT_OUT else fix
    elif not num:
        why = f"its {len(annotations)} images have no annotations"
        fix = "is this the split, and are these the annotations that you mean? name the classes in data.classes"
    elif crowd == num:
        why, fix = (
            f"all {num} objects are crowd regions (iscrowd 1), which are neither right nor wrong to find",
            ("export them with iscrowd 0 (from CVAT: as polygons, or as masks with iscrowd set to 0)"),
        )
    elif difficult == num:
        why, fix = f"all {num} objects are marked difficult, which are not trained on", "take the mark off"
    else:
        why = f"of {num} objects {crowd} are crowd regions, {difficult} are difficult, the others have no area"
        fix = "detseg check says what is wrong with them"
    return f"there is no object to train on: {why}; {fix}"


def detections_ceiling(annotations: PackedAnnotations, max_detections: int) -> tuple[IntArray, float]:
    """Which images hold more objects of one class than ``max_detections``, (M,) int64, and the largest recall that is
    possible with so many detections of a class in an image; 1 where all have room. Crowd and difficult ones aside."""
    counted = ~annotations.crowd & ~annotations.difficult
    image_of = annotations.image_of[counted]
    num_classes = int(annotations.labels.max(initial=0)) + 1
    counts = np.unique(image_of * num_classes + annotations.labels[counted], return_counts=True)
    full = np.unique(counts[0][counts[1] > max_detections] // num_classes)
    return full, float(np.minimum(counts[1], max_detections).sum() / max(counts[1].sum(), 1))


def ceiling_line(annotations: PackedAnnotations, max_detections: int) -> str | None:
    """One line on the images that hold more objects than are counted; None if there are none."""
    images, recall = detections_ceiling(annotations, max_detections)
    if not len(images):
        return None
    names = ", ".join(printable(annotations.path(int(i))) for i in images[:3])
    return (
        f"{len(images)} of {len(annotations)} images hold more than evaluation.max_detections = {max_detections} "
        f"objects of a class ({names}), so no result can have a recall above {recall:.3f}; raise it"
    )
