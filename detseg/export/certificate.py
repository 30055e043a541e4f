"""What an export costs: the exported model and its checkpoint on the same images, by the one evaluator."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track

from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.evaluation.compare import difference
from detseg.messages import console
from detseg.metrics.bootstrap import Samples, detection_samples, segmentation_samples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.error_kinds import pairwise_ious
from detseg.metrics.interface import format_number, new_table, without_nan
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.predict.interface import ImagePredictor, ObjectPredictor
from detseg.predict.results import Detections
from detseg.structures import IGNORE_LABEL, SCORE_THRESHOLD

if TYPE_CHECKING:
    from rich.console import RenderableType

    from detseg.tasks import AnyDataset

AnyEvaluator = DetectionEvaluator | SegmentationEvaluator

_SAME = 0.5  # IoU from which a detection of each is the same object
_NUM_TIMED, _NUM_UNTIMED = 20, 2
_METRICS = {"AP": "AP", "mask_AP": "mask_AP", "mIoU": "IoU"}
"""What is compared, where a result has it → its name by class."""


@dataclass(frozen=True)
class MetricChange:
    """A metric of both.

    Attributes:
        metric: such as ``AP``.
        original, exported: its values.
        change: their difference.
        low, high: ends of the 95 % interval of the change, for the choice of the images; NaN for a few images.
        by_class: class → change of the metric; NaN where the split has no object of it.
    """

    metric: str
    original: float
    exported: float
    change: float
    low: float
    high: float
    by_class: dict[str, float]


@dataclass(frozen=True)
class Certificate:
    """The numbers of both.

    Attributes:
        num_images: that both saw.
        changes: of AP, and of masks of mask_AP, too; or of mIoU.
        matched: pairs of detections of one object that score 0.3 or more; None: of a segmenter.
        box_error: largest difference of a side between their boxes, pixels; None: there are none.
        score_drift: largest difference between their scores; None: there are none.
        mask_iou: smallest overlap of their masks; None: there are none.
        unmatched: detections of 0.3 or more that the other has not, with IoU 0.5 and the same class.
        changed_pixels: fraction of the pixels whose class differs; None: of a detector.
        latency_ms: median for an image from file to result, of the original and the exported, at the default threshold.
    """

    num_images: int
    changes: tuple[MetricChange, ...]
    latency_ms: tuple[float, float]
    matched: int | None = None
    box_error: float | None = None
    score_drift: float | None = None
    mask_iou: float | None = None
    unmatched: int | None = None
    changed_pixels: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain

    def table(self) -> RenderableType:
        """For the screen, 80 columns wide."""
        table = new_table(f"{self.num_images} images", ("checkpoint", "export", "change", "95 % interval"))
        for one in self.changes:
            ends = f"{one.low:+.4f} to {one.high:+.4f}"
            values = format_number(one.original), format_number(one.exported)
            table.add_row(one.metric, *values, f"{one.change:+.4f}", ends)
        first, second = self.latency_ms
        table.add_row("ms an image", f"{first:.1f}", f"{second:.1f}", f"x {first / second:.2f}", "")
        return table

    def lines(self) -> list[str]:
        """What stands below the table."""
        lines = []
        if self.matched:
            lines.append(
                f"detections from {SCORE_THRESHOLD} on, {self.matched} pairs: boxes differ by {self.box_error:.3g} px "
                f"at most, scores by {self.score_drift:.2g}; {self.unmatched} have no match"
            )
        elif self.unmatched is not None:
            what = f"no detection scores {SCORE_THRESHOLD}" + (" in both" if self.unmatched else "")
            lines.append(f"{what}: boxes were not compared; {self.unmatched} have no match")
        if self.mask_iou is not None:
            lines.append(f"their masks overlap by {self.mask_iou:.4f} at least")
        if self.changed_pixels is not None:
            lines.append(f"{self.changed_pixels:.3%} of the pixels have another class")
        for one in self.changes:
            worst = sorted((change, name) for name, change in one.by_class.items() if change < -0.001)
            if worst:
                shown = ", ".join(f"{name} {change:+.3f}" for change, name in worst[:5])
                lines.append(f"{one.metric} that classes lose most: {shown}")
        return lines


def certify(
    original: ImagePredictor[Any],
    exported: ImagePredictor[Any],
    dataset: AnyDataset,
    evaluators: tuple[AnyEvaluator, AnyEvaluator],
) -> Certificate:
    """Predict for all images by both, and compare.

    Args:
        original, exported: with score thresholds of 0, where they have some; they are timed, and returned, with the
            default threshold.
        dataset: the images and their truth.
        evaluators: two of the task, empty.
    """
    drift = _Drift()
    for evaluator in evaluators:
        if isinstance(evaluator, SegmentationEvaluator):
            evaluator.keep_images()
    for index in track(range(len(dataset)), description="comparing", console=console, transient=True):
        results = []
        for predictor, evaluator in zip((original, exported), evaluators, strict=True):
            found = predictor(dataset.path(index))
            if isinstance(evaluator, DetectionEvaluator):
                evaluator.update(dataset.image_id(index), found, dataset.annotations(index))
            elif isinstance(dataset, SegmentationDataset):
                evaluator.update(found.labels, dataset.semantic(index))
            results.append(found)
        drift.add(*results)
    paths = [dataset.path(index) for index in range(min(_NUM_TIMED, len(dataset)))]
    return Certificate(
        len(dataset),
        _changes(*evaluators),
        (_latency_ms(original, paths), _latency_ms(exported, paths)),
        **drift.numbers(),
    )


def has_truth(dataset: AnyDataset) -> bool:
    """Whether there is an object, or a pixel, that AP or mIoU count."""
    indices = range(len(dataset))
    if isinstance(dataset, SegmentationDataset):
        return any((dataset.semantic(index) != IGNORE_LABEL).any() for index in indices)
    return any(not dataset.annotations(index).ignore.all() for index in indices)


def _changes(original: AnyEvaluator, exported: AnyEvaluator) -> tuple[MetricChange, ...]:
    first, second = original.compute(), exported.compute()
    samples, others = _samples(original).numbers, _samples(exported).numbers
    changes = []
    for name, of_class in _METRICS.items():
        if name not in first.numbers:
            continue
        found = difference(first.numbers[name], second.numbers[name], samples[name], others[name])
        by_label = np.subtract(second.by_class[of_class], first.by_class[of_class]).tolist()
        by_class = dict(zip(original.classes.names, by_label, strict=True))
        change = found.second - found.first
        changes.append(MetricChange(name, found.first, found.second, change, found.low, found.high, by_class))
    return tuple(changes)


def _latency_ms(predictor: ImagePredictor[Any], paths: Sequence[Path]) -> float:
    """The median of images, as users predict them; the first ones are predicted before, without being timed."""
    if isinstance(predictor, ObjectPredictor):
        predictor.score_threshold = SCORE_THRESHOLD
    for path in paths[:_NUM_UNTIMED]:
        predictor(path)
    times = []
    for path in paths:
        begin = time.perf_counter()
        predictor(path)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def _samples(evaluator: AnyEvaluator) -> Samples:
    if isinstance(evaluator, SegmentationEvaluator):
        return segmentation_samples(*evaluator.image_counts)
    return detection_samples(evaluator.records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou)


class _Drift:
    """How far results are apart."""

    def __init__(self) -> None:
        self._boxes, self._scores, self._matched, self._unmatched = 0.0, 0.0, 0, 0
        self._masks: float | None = None
        self._changed = self._pixels = 0

    def add(self, one: Any, other: Any) -> None:
        if isinstance(one, Detections):
            self._add_detections(one[one.scores >= SCORE_THRESHOLD], other[other.scores >= SCORE_THRESHOLD])
        else:
            self._changed += int((one.labels != other.labels).sum())
            self._pixels += one.labels.size

    def _add_detections(self, one: Detections, other: Detections) -> None:
        same = one.labels[:, None] == other.labels
        overlaps = pairwise_ious(one.boxes.astype(np.float64), other.boxes.astype(np.float64)) * same
        matched = 0
        for row in range(len(one)):
            column = int(overlaps[row].argmax()) if len(other) else 0
            if not len(other) or overlaps[row, column] < _SAME:
                continue
            overlaps[:, column] = 0
            matched += 1
            self._boxes = max(self._boxes, float(abs(one.boxes[row] - other.boxes[column]).max()))
            self._scores = max(self._scores, float(abs(one.scores[row] - other.scores[column])))
            if one.masks is not None and other.masks is not None:
                first, second = one.masks.mask(row), other.masks.mask(column)
                union = np.count_nonzero(first | second)
                overlap = np.count_nonzero(first & second) / union if union else 1.0
                self._masks = min(overlap, 1.0 if self._masks is None else self._masks)
        self._matched += matched
        self._unmatched += len(one) + len(other) - 2 * matched

    def numbers(self) -> dict[str, Any]:
        """Those that a certificate has of such results."""
        if self._pixels:
            return {"changed_pixels": self._changed / self._pixels}
        return {
            "matched": self._matched,
            "box_error": self._boxes if self._matched else None,
            "score_drift": self._scores if self._matched else None,
            "mask_iou": self._masks,
            "unmatched": self._unmatched,
        }
