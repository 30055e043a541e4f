"""Issues of a data set: every kind with its severity and its fix, and the report that readers and checks fill."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np

from detseg.data.annotations.boxes import have_size_as_corner, inverted, relative, repeated
from detseg.data.annotations.model import PackedAnnotations, training_boxes
from detseg.errors import DataError
from detseg.messages import counted, printable
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray, ClassTable, IntArray

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
    INVERTED = (
        _ERROR,
        "boxes whose second corner lies left of or above the first (left out of training)",
        "swap the corners; detseg check --fix does",
    )
    SIZE_AS_CORNER = (
        _ERROR,
        "boxes with xmax < xmin or ymax < ymin: width and height seem to stand where the second corner should",
        "write xmin + width and ymin + height; detseg check --fix does",
    )
    RELATIVE = (
        _ERROR,
        "boxes in relative coordinates, all within 0 to 1, where pixels are expected",
        "multiply them by the sides of the image; detseg check --fix does",
    )
    REPEATED = (
        _WARNING,
        "boxes that repeat another of the same class in the image exactly",
        "remove the repetitions; detseg check --fix does",
    )
    NEARLY_REPEATED = (
        _WARNING,
        "boxes nearly the same as another of the same class in the image (IoU above 0.95)",
        "remove one of each pair, unless there are two objects",
    )
    NARROW = _NOTE, "boxes with a side below 2 pixels", "nothing, if the objects are so small"
    BOX_NOT_OF_MASK = (
        _WARNING,
        "objects whose stated box is not that of their mask",
        "state the bounds of the mask, or correct the mask",
    )
    AREA_NOT_OF_MASK = (
        _WARNING,
        "objects whose stated area is not that of their mask",
        "state the number of pixels in the mask, or correct the mask",
    )
    ROW_MAJOR = (
        _ERROR,
        "masks whose run lengths go row by row, where COCO counts column by column: transposed they fit the stated box",
        "encode the masks column by column; detseg check --fix does",
    )
    FILLED_HOLES = (
        _ERROR,
        "masks with holes exported as further polygons, which fill them: cut out, they fit the stated area",
        "export run lengths instead of polygons; detseg check --fix cuts the holes out",
    )
    WRONG_MASK = _ERROR, "label maps that cannot be read", "correct what the message says, or the settings of masks"
    # of images
    UNREADABLE = (
        _ERROR,
        "images that cannot be read, or are cut short",
        "replace them; detseg check --fix leaves them out",
    )
    ODD_MODE = (
        _NOTE,
        "images in an unusual form (CMYK, palette, 1 bit, grey with alpha), converted to RGB when they are read",
        "nothing, if their colours look right in the pictures here",
    )
    TRANSPARENT = (
        _WARNING,
        "images with transparent pixels, whose transparency is dropped",
        "put them on the background that they are meant for",
    )
    SIXTEEN_BITS = _NOTE, "images of 16 bits, of which the upper 8 are kept", "set data.value_range for another range"
    BEFORE_ROTATION = (
        _ERROR,
        "images whose annotation was made before their EXIF rotation: the sides are swapped",
        "remove the orientation tag from the images, or rotate the annotations",
    )
    OTHER_SIZE = (
        _ERROR,
        "images of another size than their annotation states",
        "restore the images that were annotated; if the boxes fit as they are, detseg check --fix corrects the sizes",
    )
    UNLISTED = (
        _NOTE,
        "image files that no split lists (not used)",
        "nothing, if that is meant; without annotations they are no background images",
    )
    OTHER_PIXELS = (
        _WARNING,
        "channels whose mean or contrast is far from what the model's normalisation expects",
        "look at the images: dark, inverted or of a narrow range? data.value_range stretches 16 bits",
    )
    # of several images
    SAME_IMAGE = (
        _WARNING,
        "images that are the same file as an earlier one in their split",
        "remove the repetitions, and compare their annotations",
    )
    SIMILAR_IMAGE = (
        _NOTE,
        "images that look nearly like an earlier one in their split",
        "keep them on one side of every split: detseg split --group near-duplicates",
    )
    SAME_ACROSS = (
        _ERROR,
        "images that are in two splits (the same file)",
        "remove them from one; detseg check --fix takes them out of train",
    )
    SIMILAR_ACROSS = (
        _WARNING,
        "images that look nearly like one of another split, which makes evaluation too good",
        "split anew: detseg split --group near-duplicates",
    )
    CANNOT_OPEN = _ERROR, "splits that cannot be opened", "correct what the message says, or the settings of the split"
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
        "folders and lists that were found elsewhere below the root than stated",
        "nothing, if these are the ones that are meant",
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
    LOW_RANGE = (
        _WARNING,
        "images of more than 8 bits that use less than an eighth of the range that is read",
        "set data.value_range",
    )
    NO_ANNOTATION = (
        _WARNING,
        "images without an annotation file (not read)",
        "annotate them; an image without objects needs an annotation file without objects",
    )
    UNCLEAR_IMAGE = (
        _ERROR,
        "annotation files whose image is not clear (left out)",
        "give each annotation the name of its image, and each image a name of its own",
    )
    NEEDS_PACKAGE = (
        _ERROR,
        "images in a format that needs another package (left out)",
        "install it, or save them as JPEG",
    )
    # of objects as the file has them
    WRONG_OBJECT = _ERROR, "objects without class or readable box (left out)", "correct them, or remove them"
    DUPLICATE_ID = _ERROR, "entries with the id of an earlier one (left out)", "give each entry an id of its own"
    UNKNOWN_IMAGE = _ERROR, "objects of images that the file does not list (left out)", "add the images, or remove them"
    UNKNOWN_CATEGORY = (
        _ERROR,
        "objects of categories that the file does not list (left out)",
        "add the categories, or correct the objects",
    )
    BAD_MASK = _ERROR, "segmentations that cannot be used (the objects are kept with their boxes)", "draw them again"
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
    SIMILAR_NAMES = (
        _WARNING,
        "class names that differ by little: a slip?",
        "correct them, or merge them: data.classes: [{car: [car, Car]}]",
    )
    OFF_BY_ONE = (
        _ERROR,
        "class ids that seem to count from 1 where they should count from 0, or the reverse",
        "subtract (or add) 1 in the annotations",
    )
    FEW_OBJECTS = _WARNING, "classes with fewer than 10 objects in train", "add objects of them, or merge classes"
    NOT_IN_TRAIN = _WARNING, "classes with objects in val or test and none in train", "split anew: detseg split"
    NOT_IN_VAL = _WARNING, "classes with objects in train and none in val", "split anew: detseg split"
    IMBALANCE = (
        _NOTE,
        "classes with less than a hundredth of the objects of the most frequent one",
        "add objects of them; AP by class shows whether they are learned",
    )
    NOTHING_TO_LEARN = (
        _ERROR,
        "splits without any object that can be trained on",
        "export the objects as polygons or masks with iscrowd 0, not difficult",
    )
    TOO_MANY = (
        _WARNING,
        "images with more objects than evaluation.max_detections counts",
        "raise evaluation.max_detections (and model.max_detections)",
    )
    SMALL_IN_INPUT = (
        _WARNING,
        "objects below 8 x 8 pixels (by area) in the network input",
        "raise data.image_size, or cut the images into tiles",
    )
    ANCHORS = (
        _WARNING,
        "objects that no anchor of the model fits (IoU of the shapes below 0.5)",
        "fit the anchors to the data: model.head.anchors=null, or set model.rpn.anchor_sizes",
    )
    RARE_PIXELS = _NOTE, "classes with less than 0.1 % of the pixels", "weight them: losses with median frequency"
    # of semantic masks
    NO_MASK = _ERROR, "images without a mask (left out)", "add the masks, or take the images out"
    OTHER_NAMES = (
        _NOTE,
        "files whose names do not have the prefix and suffix that the settings state (not read)",
        "nothing, if that is meant",
    )
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
        other: split and position of an image to show beside it, a duplicate.
    """

    where: str
    image: int | None = None
    rows: tuple[int, ...] = ()
    badness: float = 0.0
    detail: str = ""
    other: tuple[str, int] | None = None


@dataclass
class Finding:
    """All cases of an issue in a data set: their number, and the worst few."""

    issue: DataIssue
    count: int = 0
    examples: list[Example] = field(default_factory=list)
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

    @property
    def tolerant(self) -> bool:
        """Whether all errors that can be passed over are counted instead of raised: of readers for checks and
        conversions, which also keep every segmentation there is."""
        return self._accept is True

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

    def forget(self, issue: DataIssue) -> None:
        """Take back what was found of a kind, in a sample, say, to say it of all."""
        self._findings.pop(issue, None)

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
    counts = np.diff(packed.offsets)
    image_of = np.repeat(np.arange(len(packed)), counts)  # (T,): T objects of all images
    boxes, hw = packed.boxes, packed.sizes_hw[image_of]  # (T, 2)
    sides = boxes[:, 2:] - boxes[:, :2]  # (T, 2)
    trainable = training_boxes(boxes, hw)[1]
    swapped, as_ratio = inverted(boxes), relative(boxes, image_of, len(packed))
    as_corner = np.full(len(boxes), have_size_as_corner(boxes, hw)) & swapped
    no_area = np.asarray((sides <= 0).any(axis=1)) & ~swapped
    wrong = swapped | as_ratio | no_area
    outside = np.asarray((boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > hw[:, ::-1] + 1).any(axis=1))
    one_pixel = ~wrong & (sides <= 1).all(axis=1)
    groups = 2 * (image_of * (packed.labels.max(initial=0) + 1) + packed.labels) + packed.crowd
    return {
        DataIssue.NO_AREA: no_area,
        DataIssue.NOTHING_INSIDE: ~wrong & ~trainable,
        DataIssue.OUTSIDE: ~wrong & trainable & outside,
        DataIssue.ONE_PIXEL: one_pixel,
        DataIssue.INVERTED: swapped & ~as_corner,
        DataIssue.SIZE_AS_CORNER: as_corner,
        DataIssue.RELATIVE: as_ratio,
        DataIssue.REPEATED: repeated(boxes, groups),
        DataIssue.CROWD: packed.crowd,
        DataIssue.DIFFICULT: packed.difficult,
    }


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


def nothing_to_learn(annotations: PackedAnnotations) -> str | None:
    """Why a set has no object to train on, and what to do about it; None if there is one."""
    hw = annotations.sizes_hw[np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))]
    has_area = training_boxes(annotations.boxes, hw)[1]
    if (has_area & ~annotations.crowd & ~annotations.difficult).any():
        return None
    num, crowd, difficult = len(annotations.labels), int(annotations.crowd.sum()), int(annotations.difficult.sum())
    if not num:
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
    image_of = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))[counted]
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
