"""Checks of image files: what cannot be read, odd forms and depths, sizes, and the colours that a model expects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.report import DataReport, Example
from detseg.data.checks.facts import Expected, ImageFacts, SplitFacts
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.images.read import IMAGE_SUFFIXES, why_unread
from detseg.data.images.values import ValueRange, describe_low_range, propose_range

_PLAIN_MODES = {"L", "RGB", "RGBA"}
_FAR_MEAN, _LEAST_STD = 1.0, 0.03  # standard deviations that the mean may be off, and the least contrast of any images


def check_images(split: SplitFacts, setting: str) -> None:
    """Images that cannot be read, odd modes and depths, and sizes other than stated. ``setting``: of `range_of_all`."""
    packed = split.objects
    if split.images:
        split.report.forget(DataIssue.LOW_RANGE)  # opening the set has looked at a few
    for index, image in enumerate(split.images):
        path = split.dataset.packed.path(index)
        if image.error:
            split.report.add(DataIssue.UNREADABLE, Example(path, index, detail=image.error))
            continue
        for issue, badness, detail in _oddities(image, split.dataset.value_range, setting):
            split.report.add(issue, Example(path, index, (), badness, detail))
        if packed is not None and packed.hw(index) != image.hw:
            stated = packed.hw(index)
            detail = f"stated {stated[1]} x {stated[0]}, is {image.hw[1]} x {image.hw[0]}"
            swapped = stated == image.hw[::-1] and image.orientation >= 5
            issue = DataIssue.BEFORE_ROTATION if swapped else DataIssue.OTHER_SIZE
            rows = tuple(range(int(np.diff(packed.offsets)[index])))
            split.report.add(issue, Example(path, index, rows, 0.0, detail))
        elif image.orientation != 1:
            split.report.add(DataIssue.ORIENTED, Example(path, index, detail=f"orientation {image.orientation}"))


def range_of_all(splits: Sequence[SplitFacts]) -> str:
    """The setting for all images of more than 8 bits together; "" where the one there is does."""
    images = [image for split in splits for image in split.images]
    extents = [image.extent for image in images if image.extent is not None and not image.error]
    value_range = splits[0].dataset.value_range if splits else None
    if not extents or value_range == "percentiles":
        return ""
    together = min(low for low, _ in extents), max(high for _, high in extents)
    low = describe_low_range(together, value_range, several=True) is not None
    return f"all: data.value_range={propose_range(together)}" if low else ""


def _oddities(image: ImageFacts, value_range: ValueRange, setting: str) -> list[tuple[DataIssue, float, str]]:
    found = []
    if image.extent is not None:
        low, high = image.extent
        detail = f"values {low:g} to {high:g}"
        if image.mode == "F" and value_range is None:
            found.append((DataIssue.FLOATS, high, f"{detail}; {setting}" if setting else detail))
        elif setting or describe_low_range(image.extent, value_range) is not None:
            found.append((DataIssue.LOW_RANGE, -high, f"{detail}; {setting}" if setting else detail))
        elif value_range is None:
            found.append((DataIssue.SIXTEEN_BITS, 0.0, detail))
    elif image.mode not in _PLAIN_MODES:
        found.append((DataIssue.ODD_MODE, 0.0, image.mode))
    if image.unread:
        found.append((DataIssue.PARTLY_READ, 0.0, image.unread))
    if image.transparent:
        part = f"{100 * image.transparent:.2g} % of its pixels"
        found.append((DataIssue.TRANSPARENT, image.transparent, part))
    return found


def check_unlisted(splits: Sequence[SplitFacts], report: DataReport) -> None:
    """Image files in the folders of the splits' images that none of them lists."""
    used = {str(split.dataset.path(index)) for split in splits for index in range(len(split.dataset))}
    folders, found = sorted({os.path.dirname(path) for path in used}), []
    for split in splits:
        if isinstance(split.dataset, SegmentationDataset):  # masks may lie beside their images
            used |= {split.dataset.masks.where(index) for index in range(len(split.dataset))}
    wrong = [one for split in splits for one in split.report.findings() if one.issue.severity == Severity.ERROR]
    # Of those that are listed, by the name of the image or of its annotation file.
    left_out = {os.path.splitext(os.path.basename(place.where))[0] for one in wrong for place in one.examples}
    for folder in folders:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and why_unread(Path(name)) is None
            if path not in used and os.path.splitext(name)[0] not in left_out and is_image and os.path.isfile(path):
                found.append(path)
    if found:  # paths may lead to one file in several ways
        used = {os.path.realpath(path) for path in used}
    for path in found:
        if os.path.realpath(path) not in used:
            report.add(DataIssue.UNLISTED, path)


def check_pixels(split: SplitFacts, expected: Expected) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue over all pixels, (3,) each in [0, 1], compared with those
    that the model normalises by."""
    readable = [image for image in split.images if not image.error]
    if not readable:
        return [0.0] * 3, [0.0] * 3
    pixels = np.array([image.hw[0] * image.hw[1] for image in readable], dtype=np.float64)[:, None]
    means, stds = (np.array([getattr(image, name) for image in readable]) for name in ("mean", "std"))
    mean = (pixels * means).sum(axis=0) / pixels.sum()
    square = (pixels * (stds**2 + means**2)).sum(axis=0) / pixels.sum()
    std = np.sqrt((square - mean**2).clip(0))
    known = expected.mean is not None and expected.std is not None
    model = np.array([expected.mean, expected.std]) if known else np.array([mean, std])
    far = (np.abs(mean - model[0]) > _FAR_MEAN * model[1]) | (std < _LEAST_STD)
    narrow = split.report.count(DataIssue.LOW_RANGE) * 2 > len(readable)  # which says why, and what to do
    for channel in np.flatnonzero(far & ~narrow).tolist():
        detail = f"{mean[channel]:.2f} +- {std[channel]:.2f}"
        if known:
            detail += f", the model expects {model[0, channel]:.2f} +- {model[1, channel]:.2f}"
        split.report.add(DataIssue.OTHER_PIXELS, Example(("red", "green", "blue")[channel], detail=detail))
    return mean.tolist(), std.tolist()
