"""What an export costs: the exported model and its checkpoint on the same images, by the one evaluator."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
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
from detseg.structures import SCORE_THRESHOLD

if TYPE_CHECKING:
    from rich.console import RenderableType

    from detseg.tasks import AnyDataset

AnyEvaluator = DetectionEvaluator | SegmentationEvaluator

_SAME = 0.5  # IoU from which a detection of each is the same object
_NUM_TIMED = 20


@dataclass
class Certificate:
    """The numbers of both.

    Attributes:
        num_images: that both saw.
        metric: the headline, such as ``AP``.
        original, exported: its values.
        low, high: ends of the 95 % interval of the change, for the choice of the images; NaN for a few images.
        by_class: class → change of the metric.
        box_error: largest difference of a side between detections of one object that score 0.3 or more, pixels.
        score_drift: largest difference between their scores.
        mask_iou: smallest overlap of their masks; None: there are none.
        unmatched: detections of 0.3 or more that the other has not, with IoU 0.5 and the same class.
        changed_pixels: fraction of the pixels whose class differs; None: of a detector.
        latency_ms: median for an image from file to result, of the original and the exported, measured in turn.
    """

    num_images: int
    metric: str
    original: float
    exported: float
    low: float
    high: float
    by_class: dict[str, float]
    box_error: float | None = None
    score_drift: float | None = None
    mask_iou: float | None = None
    unmatched: int | None = None
    changed_pixels: float | None = None
    latency_ms: tuple[float, float] = field(default=(float("nan"), float("nan")))

    @property
    def change(self) -> float:
        """Of the metric."""
        return self.exported - self.original

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain: dict[str, Any] = without_nan(asdict(self) | {"change": self.change})
        return plain

    def table(self) -> RenderableType:
        """For the screen, 80 columns wide."""
        table = new_table(f"{self.num_images} images", ("checkpoint", "export", "change", "95 % interval"))
        ends = f"{self.low:+.4f} to {self.high:+.4f}"
        numbers = format_number(self.original), format_number(self.exported), f"{self.change:+.4f}", ends
        table.add_row(self.metric, *numbers)
        first, second = self.latency_ms
        table.add_row("ms an image", f"{first:.1f}", f"{second:.1f}", f"x {first / second:.2f}", "")
        return table

    def lines(self) -> list[str]:
        """What stands below the table."""
        lines = []
        if self.unmatched is not None:
            lines.append(
                f"detections from {SCORE_THRESHOLD} on: boxes differ by {self.box_error:.3g} px at most, scores by "
                f"{self.score_drift:.2g}; {self.unmatched} have no match"
            )
        if self.mask_iou is not None:
            lines.append(f"their masks overlap by {self.mask_iou:.4f} at least")
        if self.changed_pixels is not None:
            lines.append(f"{self.changed_pixels:.3%} of the pixels have another class")
        worst = sorted((change, name) for name, change in self.by_class.items() if change < -0.001)
        if worst:
            shown = ", ".join(f"{name} {change:+.3f}" for change, name in worst[:5])
            lines.append(f"{self.metric} that classes lose most: {shown}")
        return lines


def certify(
    original: ImagePredictor[Any],
    exported: ImagePredictor[Any],
    dataset: AnyDataset,
    evaluators: tuple[AnyEvaluator, AnyEvaluator],
) -> Certificate:
    """Predict for all images by both, and compare.

    Args:
        original, exported: with score thresholds of 0, where they have some.
        dataset: the images and their truth.
        evaluators: two of the task, empty.
    """
    drift, times = _Drift(), [list[float](), list[float]()]
    for evaluator in evaluators:
        if isinstance(evaluator, SegmentationEvaluator):
            evaluator.keep_images()
    for index in track(range(len(dataset)), description="comparing", console=console, transient=True):
        results = []
        for predictor, evaluator, own in zip((original, exported), evaluators, times, strict=True):
            begin = time.perf_counter()
            found = predictor(dataset.path(index))
            own.append((time.perf_counter() - begin) * 1e3)
            if isinstance(evaluator, DetectionEvaluator):
                evaluator.update(dataset.image_id(index), found, dataset.annotations(index))
            elif isinstance(dataset, SegmentationDataset):
                evaluator.update(found.labels, dataset.semantic(index))
            results.append(found)
        drift.add(*results)
    first, second = (evaluator.compute() for evaluator in evaluators)
    metric = next(iter(first.by_class))
    number = metric if metric in first.numbers else next(iter(first.numbers))
    samples = [_samples(evaluator).numbers[number] for evaluator in evaluators]
    change = difference(first.numbers[number], second.numbers[number], *samples)
    classes = evaluators[0].classes.names
    changes = np.subtract(second.by_class[metric], first.by_class[metric]).tolist()
    return Certificate(
        len(dataset),
        number,
        change.first,
        change.second,
        change.low,
        change.high,
        dict(zip(classes, changes, strict=True)),
        latency_ms=(statistics.median(times[0][-_NUM_TIMED:]), statistics.median(times[1][-_NUM_TIMED:])),
        **(drift.of_detections() if isinstance(original, ObjectPredictor) else drift.of_maps()),
    )


def _samples(evaluator: AnyEvaluator) -> Samples:
    if isinstance(evaluator, SegmentationEvaluator):
        return segmentation_samples(*evaluator.image_counts)
    return detection_samples(evaluator.records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou)


class _Drift:
    """How far results are apart."""

    def __init__(self) -> None:
        self._boxes, self._scores, self._unmatched = 0.0, 0.0, 0
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
        self._unmatched += len(one) + len(other) - 2 * matched

    def of_detections(self) -> dict[str, Any]:
        return {
            "box_error": self._boxes,
            "score_drift": self._scores,
            "mask_iou": self._masks,
            "unmatched": self._unmatched,
        }

    def of_maps(self) -> dict[str, Any]:
        return {"changed_pixels": self._changed / max(self._pixels, 1)}
