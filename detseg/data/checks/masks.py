"""Checks of masks: those of objects against the stated boxes and areas, and the labels of semantic maps."""

from __future__ import annotations

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import Example, box_issues
from detseg.data.checks.facts import SplitFacts
from detseg.data.checks.mask_facts import LabelFacts, MaskFacts, box_iou, fits_area, measure_masks, without_exceptions
from detseg.data.datasets.detection import DetectionDataset
from detseg.structures import FloatArray

_WRONG_BOXES = (  # are not compared with masks
    DataIssue.NO_AREA,
    DataIssue.NOTHING_INSIDE,
    DataIssue.OUTSIDE,
    DataIssue.ONE_PIXEL,
    DataIssue.INVERTED,
    DataIssue.SIZE_AS_CORNER,
    DataIssue.SIZE_OR_SWAPPED,
    DataIssue.CORNER_AS_SIZE,
    DataIssue.RELATIVE,
)
_SAMPLE = 100  # images whose masks are looked at when a set is opened
_RARE = 0.001  # of all pixels: classes with fewer are named


def check_masks(split: SplitFacts) -> None:
    """Masks that do not fit the stated box or area, with the two known patterns; empty ones; those that are wrong."""
    packed = split.objects
    if packed is None:
        return
    if split.masks:
        split.report.forget(DataIssue.NO_PIXEL)  # readers look at a sample
    issues = box_issues(packed)
    wrong_box = np.any([issues[issue] for issue in _WRONG_BOXES], axis=0)
    states_both = split.dataset.name.startswith("coco")  # in other formats both are those of the outline
    for image, masks in enumerate(split.masks):
        if not isinstance(masks, MaskFacts):
            continue
        begin, found = int(packed.offsets[image]), dict[DataIssue, list[tuple[int, float, str]]]()
        for row, error in masks.errors.items():
            found.setdefault(DataIssue.BAD_MASK, []).append((row, 0.0, error))
        for row in np.flatnonzero(~np.isnan(masks.areas)).tolist():
            box, area, bounds = packed.boxes[begin + row], float(packed.area[begin + row]), masks.bounds[row]
            if masks.row_major[row]:
                issue, how_bad, detail = DataIssue.ROW_MAJOR, float(masks.areas[row]), ""
            elif masks.holes[row] and states_both:
                issue, how_bad = DataIssue.FILLED_HOLES, float(masks.areas[row]) - area
                detail = f"{masks.areas[row]:.0f} pixels filled, {area:.0f} stated"
            elif masks.areas[row] == 0:
                issue, how_bad, detail = DataIssue.NO_PIXEL, 0.0, ""
            elif states_both and not wrong_box[begin + row] and not masks.fits[row]:
                issue, how_bad = DataIssue.BOX_NOT_OF_MASK, 1 - box_iou(box, bounds)
                detail = f"stated {_in_words(box)}, mask {_in_words(bounds)}"
            elif states_both and not fits_area(area, float(masks.areas[row]), bounds):
                issue, how_bad = DataIssue.AREA_NOT_OF_MASK, abs(area - float(masks.areas[row]))
                detail = f"stated {area:.0f}, mask {masks.areas[row]:.0f}"
            else:
                continue
            found.setdefault(issue, []).append((row, how_bad, detail))
        for issue, rows in found.items():
            worst = max(rows, key=lambda item: item[1])
            numbers = tuple(row for row, _, _ in rows)
            split.report.add(issue, Example(packed.path(image), image, numbers, worst[1], worst[2]), len(rows))


def check_some_masks(dataset: DetectionDataset) -> None:
    """The two known patterns, in the masks of up to 100 images, evenly spread, of a set that states boxes and areas
    beside them: what is looked at whenever one is opened."""
    packed = dataset.packed
    if packed.regions is None or not dataset.name.startswith("coco"):
        return
    images = np.unique(np.linspace(0, len(packed) - 1, _SAMPLE).round().astype(int)).tolist()
    measured = {image: found for image in images if (found := measure_masks(packed, image)) is not None}
    without_exceptions(list(measured.values()))
    for image, found in measured.items():
        patterns = {DataIssue.ROW_MAJOR: found.row_major, DataIssue.FILLED_HOLES: found.holes}
        for issue, rows in patterns.items():
            if numbers := tuple(np.flatnonzero(rows).tolist()):
                dataset.report.add(issue, Example(packed.path(image), image, numbers), len(numbers))


def _in_words(box: FloatArray) -> str:
    return "[" + ", ".join(f"{value:g}" for value in np.round(box, 1).tolist()) + "]"


def check_labels(split: SplitFacts) -> None:
    """Label maps that cannot be read or have another size than their image, and classes that are hardly there."""
    if split.masks:
        split.report.forget(DataIssue.WRONG_MASK)  # readers look at a sample
    for image, labels in enumerate(split.masks):
        if not isinstance(labels, LabelFacts):
            continue
        path = split.dataset.packed.path(image)
        if labels.error:
            split.report.add(DataIssue.WRONG_MASK, Example(path, image, detail=labels.error))
        elif split.images[image].hw not in (labels.hw, (0, 0)):
            sizes = [f"{hw[1]} x {hw[0]}" for hw in (labels.hw, split.images[image].hw)]
            detail = f"the mask is {sizes[0]}, the image {sizes[1]} pixels"
            split.report.add(DataIssue.MASK_SIZE, Example(path, image, detail=detail))
    if split.objects is not None:
        return
    pixels = split.class_counts
    for label in np.flatnonzero((pixels > 0) & (pixels < _RARE * pixels.sum())).tolist():
        part = f"{100 * pixels[label] / pixels.sum():.3f} %"
        split.report.add(DataIssue.RARE_PIXELS, Example(split.dataset.classes.names[label], detail=part))
