"""Checks of image files: what cannot be read, odd forms and depths, sizes, and the colours that a model expects."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import DataReport, Example
from detseg.data.checks.facts import Expected, ImageFacts, SplitFacts
from detseg.data.images.read import IMAGE_SUFFIXES
from detseg.data.images.values import ValueRange, describe_low_range

_PLAIN_MODES = {"L", "RGB", "RGBA"}
_FAR_MEAN, _FAR_STD = 1.0, 0.4  # standard deviations that the mean may be off, and least part of the expected contrast


def check_images(split: SplitFacts) -> None:
    """Images that cannot be read, odd modes and depths, and sizes other than stated."""
    packed = split.objects
    if split.images:
        split.report.forget(DataIssue.LOW_RANGE)  # opening the set has looked at a few
    for index, image in enumerate(split.images):
        path = split.dataset.packed.path(index)
        if image.error:
            split.report.add(DataIssue.UNREADABLE, Example(path, index, detail=image.error))
            continue
        for issue, badness, detail in _oddities(image, split.dataset.value_range):
            split.report.add(issue, Example(path, index, (), badness, detail))
        if packed is not None and packed.hw(index) != image.hw:
            stated = packed.hw(index)
            detail = f"stated {stated[1]} x {stated[0]}, is {image.hw[1]} x {image.hw[0]}"
            swapped = stated == image.hw[::-1] and image.orientation >= 5
            issue = DataIssue.BEFORE_ROTATION if swapped else DataIssue.OTHER_SIZE
            rows = tuple(range(int(np.diff(packed.offsets)[index])))
            split.report.add(issue, Example(path, index, rows, 0.0, detail))


def _oddities(image: ImageFacts, value_range: ValueRange) -> list[tuple[DataIssue, float, str]]:
    found = []
    if image.extent is not None:
        low, high = image.extent
        detail = f"values {low:g} to {high:g}"
        if image.mode == "F" and value_range is None:
            found.append((DataIssue.FLOATS, high, detail))
        elif describe_low_range(image.extent, value_range) is not None:
            found.append((DataIssue.LOW_RANGE, -high, detail))
        else:
            found.append((DataIssue.SIXTEEN_BITS, 0.0, detail))
    elif image.mode not in _PLAIN_MODES:
        found.append((DataIssue.ODD_MODE, 0.0, image.mode))
    if image.transparent:
        part = f"{100 * image.transparent:.2g} % of its pixels"
        found.append((DataIssue.TRANSPARENT, image.transparent, part))
    return found


def check_unlisted(splits: Sequence[SplitFacts], report: DataReport) -> None:
    """Image files in the folders of the splits' images that none of them lists."""
    used = {str(split.dataset.path(index)) for split in splits for index in range(len(split.dataset))}
    found = []
    for folder in sorted({os.path.dirname(path) for path in used}):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if path not in used and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and os.path.isfile(path):
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
    if expected.mean is not None and expected.std is not None:
        channels = zip(("red", "green", "blue"), mean, std, expected.mean, expected.std, strict=True)
        for name, own_mean, own_std, model_mean, model_std in channels:
            if abs(own_mean - model_mean) > _FAR_MEAN * model_std or own_std < _FAR_STD * model_std:
                detail = f"{own_mean:.2f} +- {own_std:.2f}, the model expects {model_mean:.2f} +- {model_std:.2f}"
                split.report.add(DataIssue.OTHER_PIXELS, Example(name, detail=detail))
    return mean.tolist(), std.tolist()
