"""Runs all checks of a data set, and gives what they found as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detseg.data.annotations.issues import DataIssue, Severity
from detseg.data.annotations.report import DataReport, Finding
from detseg.data.checks.classes import check_counts, check_first_class, check_names
from detseg.data.checks.duplicates import check_duplicates
from detseg.data.checks.facts import Expected, SplitFacts, examine_splits
from detseg.data.checks.images import check_images, check_pixels, check_unlisted, range_of_all
from detseg.data.checks.masks import check_labels, check_masks
from detseg.data.checks.sizes import SIZE_BOUNDS, check_anchors, check_boxes, check_ceiling, check_sizes
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset

_JSON_VERSION = 1
_MAX_TYPES = 20  # of image sizes that are listed

TOGETHER = "all"
"""Where findings stand that belong to no single split."""


@dataclass(frozen=True)
class SplitNumbers:
    """Numbers of a split for tables and charts: what its sizes, classes and pixels are."""

    images: int
    objects: int
    class_counts: list[int]
    objects_per_image: list[int]  # images with 0, 1, 2, ... objects
    sizes_in_input: list[int]  # objects between 0, SIZE_BOUNDS and infinity
    image_sizes: dict[str, int]  # "640 x 480" → images, the most frequent first
    mean: list[float]
    std: list[float]
    best_recall_of_anchors: float | None


@dataclass(frozen=True)
class Checked:
    """A data set, what was found in each split, and in all together (`TOGETHER`)."""

    splits: Sequence[SplitFacts]
    expected: Expected
    reports: Mapping[str, DataReport]
    numbers: Mapping[str, SplitNumbers]
    images_opened: bool

    def findings(self) -> list[tuple[str, Finding]]:
        """Split and finding, the most severe first, then in the order of the kinds and splits."""
        found = [(name, finding) for name, report in self.reports.items() for finding in report.findings()]
        kinds = list(DataIssue)
        return sorted(found, key=lambda item: (-item[1].issue.severity, kinds.index(item[1].issue)))

    @property
    def severity(self) -> Severity:
        """The worst of all findings; a NOTE where there are none."""
        return max((finding.issue.severity for _, finding in self.findings()), default=Severity.NOTE)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the first split."""
        return self.splits[0].dataset.classes.names

    @property
    def of_maps(self) -> bool:
        """Whether these are label maps, not objects."""
        return all(split.objects is None for split in self.splits)

    def plain(self, most: int | None = None) -> dict[str, Any]:
        """Everything as plain values, of each finding at most so many examples; docs/checks.md describes the keys."""
        return {
            "version": _JSON_VERSION,
            "severity": self.severity.name.lower(),
            "images_opened": self.images_opened,
            "classes": list(self.class_names),
            "input": {"height": self.expected.input_hw[0], "width": self.expected.input_hw[1]},
            "size_bounds": list(SIZE_BOUNDS),
            "splits": {name: vars(numbers) for name, numbers in self.numbers.items()},
            "notes": {name: report.notes for name, report in self.reports.items() if report.notes},
            "findings": [_plain_finding(name, finding, most) for name, finding in self.findings()],
        }


def _plain_finding(split: str, finding: Finding, most: int | None) -> dict[str, Any]:
    issue = finding.issue
    return {
        "kind": issue.name.lower(),
        "severity": issue.severity.name.lower(),
        "split": split,
        "count": finding.count,
        "places": finding.places,
        "text": issue.text,
        "fix": issue.fix,
        "examples": [
            {"where": place.where, "image": place.image, "rows": list(place.rows), "detail": place.detail}
            for place in finding.examples[:most]
        ],
    }


def check_splits(
    datasets: Mapping[str, DetectionDataset | SegmentationDataset], expected: Expected, open_images: bool = True
) -> Checked:
    """All checks of the splits of a data set.

    Args:
        datasets: by the names train, val and test; read with a tolerant report, to which is added what is found.
        expected: what a model asks of them.
        open_images: whether images and masks are decoded, each once; else only annotations are looked at.
    """
    splits = [SplitFacts(name, dataset) for name, dataset in datasets.items()]
    if open_images:
        splits = examine_splits(splits)
    together, setting = DataReport(True), range_of_all(splits)
    numbers = {}
    for split in splits:
        check_images(split, setting)
        check_masks(split)
        check_labels(split)
        check_boxes(split)
        check_ceiling(split, expected)
        numbers[split.name] = _numbers(split, expected)
    check_duplicates(splits)
    check_names(splits, together)
    check_counts(splits, together)
    check_first_class(splits, together)
    check_unlisted(splits, together)
    reports = {split.name: split.report for split in splits} | {TOGETHER: together}
    return Checked(splits, expected, reports, numbers, open_images)


def _numbers(split: SplitFacts, expected: Expected) -> SplitNumbers:
    packed = split.objects
    counts = np.zeros(0, dtype=np.int64) if packed is None else np.diff(packed.offsets)
    if packed is not None and not split.images:
        shapes = packed.sizes_hw  # as stated
    else:
        shapes = np.array([image.hw for image in split.images if not image.error]).reshape(-1, 2)
    kinds, amounts = np.unique(shapes, axis=0, return_counts=True)
    most = np.argsort(-amounts, kind="stable")[:_MAX_TYPES]
    mean, std = check_pixels(split, expected)
    return SplitNumbers(
        images=len(split.dataset),
        objects=int(counts.sum()),
        class_counts=split.class_counts.tolist(),
        objects_per_image=np.bincount(counts).tolist(),
        sizes_in_input=check_sizes(split, expected),
        image_sizes={f"{kinds[k][1]} x {kinds[k][0]}": int(amounts[k]) for k in most.tolist()},
        mean=mean,
        std=std,
        best_recall_of_anchors=check_anchors(split, expected),
    )
