"""What is said of the images of a data set when it is opened: formats that cannot be read here, and ranges of values
that would be nearly black."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.report import Example
from detseg.data.datasets.detection import ImageDataset
from detseg.data.images.read import OPTIONAL_SUFFIXES, read_extent, why_unread
from detseg.data.images.values import describe_low_range
from detseg.errors import DataError
from detseg.messages import listed

MAX_LOOKED_AT = 20  # images whose header is read, evenly spread


def inspect_images(dataset: ImageDataset) -> None:
    """Report `DataIssue.LOW_RANGE` of a few images, evenly spread; of images of 8 bits only the headers are read.

    A DataError if images are of a format that needs a package which is not installed: all of them are named at once.
    """
    _check_formats(dataset)
    positions = np.unique(np.linspace(0, max(len(dataset) - 1, 0), MAX_LOOKED_AT).round().astype(int)).tolist()
    found: dict[int, tuple[float, float]] = {}
    for index in positions[: len(dataset)]:
        try:
            extent = read_extent(dataset.path(index))
        except DataError:  # who reads the image says so
            continue
        if extent is not None:
            found[index] = extent
    if not found or dataset.value_range == "percentiles":
        return
    together = min(low for low, _ in found.values()), max(high for _, high in found.values())
    line = describe_low_range(together, dataset.value_range, several=True)
    if line is None:
        return
    brightest = max(found, key=lambda index: found[index][1])
    if not dataset.report.tolerant:  # a check finds one range for all images of all splits
        dataset.report.note(f"images of more than 8 bits use {line} ({len(found)} of {len(positions)} looked at)")
    for index in found:
        detail = f"values {found[index][0]:g} to {found[index][1]:g}"
        badness = float(index == brightest)
        dataset.report.add(DataIssue.LOW_RANGE, Example(dataset.packed.path(index), index, (), badness, detail))


def _check_formats(dataset: ImageDataset) -> None:
    names = dataset.packed.path_bytes.lower()
    for suffix in sorted(OPTIONAL_SUFFIXES):
        if suffix.encode() not in names or (reason := why_unread(Path(f"image{suffix}"))) is None:
            continue
        paths = [dataset.packed.path(index) for index in range(len(dataset))]
        if unread := [path for path in paths if path.lower().endswith(suffix)]:
            raise DataError(f"{dataset.root}: {len(unread)} of {len(paths)} images ({listed(unread)}) {reason}")
