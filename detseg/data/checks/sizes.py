"""Checks of sizes and numbers of objects against what the model and the evaluation can do."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from detseg.data.annotations.boxes import nearly_repeated, repeated
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import (
    Example,
    box_issues,
    detections_ceiling,
    nothing_to_learn,
    report_rows,
    sizes_in_input,
)
from detseg.data.checks.facts import Expected, SplitFacts

SIZE_BOUNDS = (8, 16, 32, 96)
"""Where the table of sizes changes from one column to the next, pixels of the network input."""

SIZE_NAMES = (
    f"below {SIZE_BOUNDS[0]}",
    *(f"{low} to {high}" for low, high in pairwise(SIZE_BOUNDS)),
    f"{SIZE_BOUNDS[-1]} and more",
)
"""Its columns."""

_SMALL, _WORTH_A_LINE, _ACCEPTED = 8, 0.1, 0.05  # pixels; fraction of the objects that is worth a line, that may stay
_LARGEST_INPUT = 2048  # pixels beyond which tiles are the better way
_FITS = 0.5  # IoU of the shapes of an object and an anchor
_NEARLY = 0.95  # IoU of boxes that are nearly the same


def check_boxes(split: SplitFacts) -> None:
    """What readers do not say of boxes: nearly the same ones, narrow ones, and splits without trainable objects."""
    packed = split.objects
    if packed is None:
        return
    wrong = box_issues(packed)
    known = wrong[DataIssue.ONE_PIXEL] | wrong[DataIssue.RELATIVE]
    sides = packed.boxes[:, 2:] - packed.boxes[:, :2]
    report_rows(DataIssue.NARROW, (sides > 0).all(axis=1) & (sides < 2).any(axis=1) & ~known, packed, split.report)
    groups = 2 * (packed.image_of * len(split.dataset.classes) + packed.labels) + packed.crowd
    once = ~wrong[DataIssue.REPEATED]
    near = np.zeros(len(once), dtype=np.bool_)
    near[once] = nearly_repeated(packed.boxes[once], groups[once], _NEARLY)
    report_rows(DataIssue.NEARLY_REPEATED, near & ~known, packed, split.report)
    twice = repeated(packed.boxes, 2 * packed.image_of + packed.crowd) & once
    report_rows(DataIssue.TWO_CLASSES, twice & ~known, packed, split.report)
    if why := nothing_to_learn(packed, split.report):
        split.report.add(DataIssue.NOTHING_TO_LEARN, Example(split.name, detail=why))


def check_ceiling(split: SplitFacts, expected: Expected) -> None:
    """Images with more objects than evaluation counts, with the largest recall that is possible then."""
    packed = split.objects
    if packed is None:
        return
    images, recall = detections_ceiling(packed, expected.max_detections)
    for image in images.tolist():
        counts = np.bincount(packed.labels[packed.offsets[image] : packed.offsets[image + 1]])
        num, name = int(counts.max()), split.dataset.classes.names[int(counts.argmax())]
        detail = f"{num} of {name}; the split's recall is at most {recall:.3f} with {expected.max_detections}"
        split.report.add(DataIssue.TOO_MANY, Example(packed.path(image), image, (), float(num), detail))


def check_sizes(split: SplitFacts, expected: Expected) -> list[int]:
    """Objects that are small in the network input, with an input size that would do; returns how many lie between
    the `SIZE_BOUNDS`, one more number than there are bounds."""
    if split.objects is None:
        return [0] * (len(SIZE_BOUNDS) + 1)
    sizes, rows = sizes_in_input(split.objects, expected.input_hw)
    roots = np.sqrt(sizes.prod(axis=1))
    table = np.histogram(roots, [0, *SIZE_BOUNDS, np.inf])[0].tolist()
    small = roots < _SMALL
    if len(small) and small.mean() >= _WORTH_A_LINE:
        side = max(expected.input_hw)
        wanted = math.ceil(_SMALL / max(float(np.quantile(roots, _ACCEPTED)), 1e-3) * side / 32) * 32
        advice = f"data.image_size={wanted} leaves at most {100 * _ACCEPTED:.0f} %"
        if wanted > _LARGEST_INPUT:
            advice = f"it would take {wanted} pixels: cut the images into tiles"
        detail = f"{100 * small.mean():.0f} % of {len(small)} at {side} pixels; {advice}"
        marked = np.isin(np.arange(len(split.objects.labels)), rows[small])
        report_rows(DataIssue.SMALL_IN_INPUT, marked, split.objects, split.report, detail)
    return [int(number) for number in table]


def check_anchors(split: SplitFacts, expected: Expected) -> float | None:
    """The best recall that the model's anchors allow: the fraction of objects whose shape has an IoU of at least 0.5
    with that of an anchor; None without anchors. Objects that none fits are reported where they are many."""
    if split.objects is None or expected.anchors is None:
        return None
    sizes, rows = sizes_in_input(split.objects, expected.input_hw)
    if not len(sizes):
        return None
    best = np.zeros(len(sizes))
    for anchor in expected.anchors:
        common = np.minimum(sizes, anchor).prod(axis=1)
        best = np.maximum(best, common / (sizes.prod(axis=1) + anchor.prod() - common))
    bad = best < _FITS
    if bad.mean() >= _WORTH_A_LINE:
        detail = f"{100 * bad.mean():.0f} % of {len(bad)}: a recall of {1 - bad.mean():.3f} at best"
        marked = np.isin(np.arange(len(split.objects.labels)), rows[bad])
        report_rows(DataIssue.ANCHORS, marked, split.objects, split.report, detail)
    return float(1 - bad.mean())
