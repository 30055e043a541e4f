"""A look at the masks when a data set is opened, so that no epoch is spent on masks that mean something else.

Letters for dimensions: C classes.
"""

from __future__ import annotations

import numpy as np

from detseg.data.images import read_image_hw
from detseg.data.mask_encoding import MaskEncoding
from detseg.data.report import Oddity
from detseg.data.semantic_dataset import SegmentationDataset
from detseg.errors import DataError
from detseg.structures import IGNORE_LABEL, IntArray

MAX_INSPECTED = 200
"""Of larger data sets so many masks are looked at, evenly spread."""


def inspect_masks(dataset: SegmentationDataset, encoding: MaskEncoding | None = None) -> None:
    """Decode all masks, or an even sample of many, and note in the report what is odd about them.

    Where the sample looks as if the masks meant something else, the others are decoded too before that is said.

    Args:
        dataset: just read.
        encoding: of its mask pictures; None: its maps are no pictures.

    Raises:
        DataError: one of the masks, or of their images' headers, is wrong; no pixel of any mask counts; or one of two
            classes never occurs whereas ignored values do, as in masks of 0 and 255 that are read with 255 ignored.
    """
    sample = _evenly_spread(len(dataset), MAX_INSPECTED)
    others = sorted(set(range(len(dataset))) - set(sample))
    counts = np.zeros(256, dtype=np.int64)
    looked = 0
    for index in [*sample, *others]:
        if looked >= len(sample) and not _doubt(counts, dataset, encoding):
            break
        counts += _look(dataset, index)
        looked += 1
    doubt = _doubt(counts, dataset, encoding)
    if doubt:
        others_too = f" and {looked - 1} more" if looked > 1 else ""
        raise DataError(f"{dataset.masks.where(0)}{others_too}: {doubt}")
    _report(dataset, counts, looked)


def _evenly_spread(num: int, most: int) -> list[int]:
    """At most ``most`` of the positions 0 to num - 1, the first and the last among them."""
    return list(range(num)) if num <= most else [round(k * (num - 1) / (most - 1)) for k in range(most)]


def _look(dataset: SegmentationDataset, index: int) -> IntArray:
    """(256,) pixels of each label of one mask, whose size is checked against its image's."""
    semantic = dataset.masks.read(index)
    dataset.check_size(index, read_image_hw(dataset.path(index)), (semantic.shape[0], semantic.shape[1]))
    counts = np.bincount(semantic.ravel(), minlength=256)
    if not counts[:IGNORE_LABEL].any():
        dataset.report.add(Oddity.ALL_IGNORED, dataset.packed.path(index))
    return counts


def _doubt(counts: IntArray, dataset: SegmentationDataset, encoding: MaskEncoding | None) -> str:
    """Why masks with these pixels of each label cannot be meant as they are read; empty: they can."""
    names = dataset.classes.names
    present = np.flatnonzero(counts[: len(names)]).tolist()
    ignored = None if encoding is None or encoding.colors is not None else encoding.ignore_index
    if not counts[IGNORE_LABEL] or encoding is None or ignored is None:
        return "" if present else "no pixel counts, so there is nothing to learn or to score"
    if len(names) == 2 and len(present) < 2:
        found = sorted([ignored, *(encoding.class_values[label] for label in present)])
        absent = 0 if present == [1] else 1
        values = list(encoding.class_values)
        values[absent] = ignored
        part = ("background", "foreground")[absent]
        return (
            f"values {{{', '.join(map(str, found))}}} with 2 classes, and {ignored} counts nowhere, so that "
            f"{names[absent]!r} never occurs: is {ignored} the {part}? set data.mask_values={values} "
            "data.ignore_index=null"
        )
    return "" if present else f"all pixels are {ignored}, which counts nowhere; set data.ignore_index=null or mend them"


def _report(dataset: SegmentationDataset, counts: IntArray, looked: int) -> None:
    if looked < len(dataset):
        dataset.report.note(f"masks looked at when opened: {looked} of {len(dataset)}, evenly spread")
    total, ignored = int(counts.sum()), int(counts[IGNORE_LABEL])
    if ignored:
        dataset.report.note(f"pixels of the masks that count nowhere: {100 * ignored / total:.1f} %")
    for label in np.flatnonzero(counts[: len(dataset.classes)] == 0):
        dataset.report.add(Oddity.ABSENT, dataset.classes.names[label])
