"""A look at the masks when a data set is opened, so that no epoch is spent on masks that mean something else.

Letters for dimensions: C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detseg.data.annotations.classes import listed, printable
from detseg.data.annotations.issues import MAX_EXAMPLES, DataIssue
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.mask_hints import histogram
from detseg.data.images.read import read_image_hw, read_orientation
from detseg.errors import DataError, one_line, shown
from detseg.structures import IGNORE_LABEL, IntArray

MAX_INSPECTED = 200
"""Of larger data sets so many masks are looked at, evenly spread."""


@dataclass(eq=False)
class _Seen:
    """What the masks hold that were looked at.

    Attributes:
        counts: (256,) int64, pixels of each label.
        masks: how many they are.
        alone: of each label the images whose masks show it and ignored pixels, and nothing else.
        bad: what is wrong with those that cannot be read.
    """

    counts: IntArray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    masks: int = 0
    alone: dict[int, list[str]] = field(default_factory=dict)
    bad: list[DataError] = field(default_factory=list)

    @property
    def looked_at(self) -> int:
        """All of them."""
        return self.masks + len(self.bad)

    @property
    def present(self) -> list[int]:
        """The labels that occur."""
        return [int(label) for label in np.flatnonzero(self.counts[:IGNORE_LABEL])]


def inspect_masks(
    dataset: SegmentationDataset, encoding: MaskEncoding | None = None, training: bool = True, skip_bad: bool = False
) -> None:
    """Decode all masks, or an even sample of many, and note in the report what is odd about them.

    Where the sample looks as if the masks meant something else, the others are decoded too before that is said.

    Args:
        dataset: just read.
        encoding: of its mask pictures; None: its maps are no pictures.
        training: whether this set is trained on.  One class and ignored pixels are all that a split of images without
            objects may hold, but nothing can be learned from them.
        skip_bad: whether masks, and headers of images, that are wrong are noted instead of refused, since the training
            skips them.

    Raises:
        DataError: one of the masks, or of their images' headers, is wrong (with `skip_bad`: all of them); no pixel of
            any mask counts; or, in training, a single class occurs beside ignored pixels, as in masks of 0 and 255 that
            are read with 255 ignored.
    """
    sample = _evenly_spread(len(dataset), MAX_INSPECTED)
    others = sorted(set(range(len(dataset))) - set(sample))
    seen = _Seen()
    for index in [*sample, *others]:
        if seen.looked_at >= len(sample) and not _refused(seen, encoding, training):
            break
        try:
            _look(dataset, index, seen)
        except DataError as error:
            if not skip_bad:
                raise
            seen.bad.append(error)
    if seen.bad and not seen.masks:
        raise seen.bad[0]
    if _refused(seen, encoding, training):
        others_too = f" and {seen.masks - 1} more" if seen.masks > 1 else ""
        raise DataError(f"{dataset.masks.where(0)}{others_too}: {_mend(seen, dataset.classes.names, encoding)}")
    _report(dataset, seen, encoding)


def _refused(seen: _Seen, encoding: MaskEncoding | None, training: bool) -> bool:
    return not seen.present or (training and encoding is not None and _single(seen))


def _single(seen: _Seen) -> bool:
    """Whether one class occurs beside ignored pixels, and no other."""
    return len(seen.present) == 1 and bool(seen.counts[IGNORE_LABEL])


def _evenly_spread(num: int, most: int) -> list[int]:
    """At most ``most`` of the positions 0 to num - 1, the first and the last among them."""
    return list(range(num)) if num <= most else [round(k * (num - 1) / (most - 1)) for k in range(most)]


def _look(dataset: SegmentationDataset, index: int, seen: _Seen) -> None:
    """Add one mask, whose size and orientation are checked against its image's."""
    semantic = dataset.masks.read(index)
    hw = (semantic.shape[0], semantic.shape[1])
    dataset.check_size(index, read_image_hw(dataset.path(index)), hw)
    name = dataset.packed.path(index)
    if isinstance(dataset.masks, PictureMasks) and _turned_otherwise(dataset, index, hw):
        dataset.report.add(DataIssue.TURNED, name)
    counts = np.bincount(semantic.ravel(), minlength=256)
    labels = np.flatnonzero(counts[:IGNORE_LABEL])
    if not len(labels):
        dataset.report.add(DataIssue.ALL_IGNORED, name)
    if len(labels) == 1 and counts[IGNORE_LABEL]:
        seen.alone.setdefault(int(labels[0]), []).append(name)
    seen.counts += counts
    seen.masks += 1


def _turned_otherwise(dataset: SegmentationDataset, index: int, hw: tuple[int, int]) -> bool:
    """Whether image and mask state different orientations, where their sizes do not show that they fit."""
    image, mask = read_orientation(dataset.path(index)), read_orientation(dataset.masks.where(index))
    sides_show_it = (image >= 5) != (mask >= 5) and hw[0] != hw[1]  # 5 to 8 swap the sides, and these are equal by now
    return image != mask and not sides_show_it


def _mend(seen: _Seen, names: tuple[str, ...], encoding: MaskEncoding | None) -> str:
    """Why masks with these pixels cannot be trained on, and what may be meant."""
    ignored = None if encoding is None or encoding.colors is not None else encoding.ignore_index
    if seen.present and encoding is not None:
        begin, question = _single_class(seen.present[0], ignored, encoding)
        return f"{begin}, and one class alone cannot be learned: {question} (found: {_histogram(seen, encoding)})"
    if ignored is None:
        return "no pixel counts, so there is nothing to learn or to score"
    return (
        f"values {{{ignored}}} with {len(names)} classes: all pixels are {ignored}, which counts nowhere; set "
        "data.ignore_index=null if that is a class, or mend the masks"
    )


def _single_class(label: int, ignored: int | None, encoding: MaskEncoding) -> tuple[str, str]:
    """What masks hold that show one class and ignored pixels (None: of ignored colours), and what may be meant."""
    names, values = encoding.classes.names, list(encoding.class_values)
    absent = [name for k, name in enumerate(names) if k != label]
    if ignored is None:
        begin = f"only {shown(names[label])} occurs beside colours that count nowhere, never {listed(absent)}"
        return begin, "is one of data.ignore_colors a class? it belongs into data.mask_colors"
    low, high = sorted([ignored, values[label]])
    begin = f"values {{{low}, {high}}} with {len(names)} classes, and {ignored} counts nowhere"
    if len(names) == 2:
        values[1 - label] = ignored
        return f"{begin}, so that {shown(absent[0])} never occurs", (
            f"is {ignored} the {('foreground', 'background')[label]}? set data.mask_values={values} "
            f"data.ignore_index=null; or is it void? add images that show {shown(absent[0])}"
        )
    return f"{begin} (data.ignore_index), so that only {shown(names[label])} occurs, never {listed(absent)}", (
        f"is {ignored} a class here? the masks then tell fewer classes apart than data.classes has; mend the masks, or "
        "name their classes in data.classes and the value of each in data.mask_values"
    )


def _histogram(seen: _Seen, encoding: MaskEncoding) -> str:
    """How often each class, by its value or else its name, and what is ignored occur."""
    labels = [*seen.present, IGNORE_LABEL]
    if encoding.colors is None:
        names = [str(encoding.ignore_index if k == IGNORE_LABEL else encoding.class_values[k]) for k in labels]
    else:
        names = ["ignored" if k == IGNORE_LABEL else encoding.classes.names[k] for k in labels]
    return histogram(names, seen.counts[labels])


def _report(dataset: SegmentationDataset, seen: _Seen, encoding: MaskEncoding | None) -> None:
    report, names = dataset.report, dataset.classes.names
    if seen.looked_at < len(dataset):
        report.note(f"masks looked at when opened: {seen.looked_at} of {len(dataset)}, evenly spread")
    if seen.bad:
        report.note(
            f"masks or images that cannot be read, which the training will skip: {len(seen.bad)} of {seen.looked_at}; "
            f"the first: {one_line(seen.bad[0])}"
        )
    total, ignored = int(seen.counts.sum()), int(seen.counts[IGNORE_LABEL])
    if ignored:
        report.note(f"pixels of the masks that count nowhere: {100 * ignored / total:.1f} %")
    if encoding is not None and _single(seen):
        report.note(
            f"the masks show {shown(names[seen.present[0]])} and what counts nowhere, and no other class "
            f"({_histogram(seen, encoding)}): is that so?"
        )
    for label, images in sorted(seen.alone.items()) if encoding is not None else ():
        more = ", ..." if len(images) > MAX_EXAMPLES else ""
        some = ", ".join(printable(name) for name in images[:MAX_EXAMPLES]) + more
        alone = f"masks in which only {shown(names[label])} and void occur"
        report.note(f"{alone}: {len(images)} of {seen.masks} ({some})")
    for absent in np.flatnonzero(seen.counts[: len(names)] == 0):
        report.add(DataIssue.ABSENT, names[absent])
