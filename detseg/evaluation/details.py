"""What a result alone does not say: how sure its numbers are, and of detections what the errors cost."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.atomic_write import write_text
from detseg.errors import DataError
from detseg.messages import rendered
from detseg.metrics.bootstrap import detection_samples, interval, segmentation_samples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.error_kinds import ErrorKind, ErrorKinds, error_kinds
from detseg.metrics.interface import Evaluator, Result, format_number, new_table, without_nan
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.structures import FloatArray

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger("detseg")

ERROR_MEANINGS = {
    ErrorKind.LOCATION: "right class, IoU 0.1 to 0.5",
    ErrorKind.CLASS: "on an object of another class",
    ErrorKind.DUPLICATE: "on an object that is found already",
    ErrorKind.BACKGROUND: "on nothing",
    ErrorKind.BOTH: "other class, IoU 0.1 to 0.5",
    ErrorKind.MISSED: "object without any of these",
}


@dataclass(frozen=True, eq=False)
class Details:
    """Details of a result.

    Attributes:
        intervals: metric → ends of its 95 % interval: where it would lie on average over sets of as many images.
        errors: of detections; of masks where these are scored, else of boxes.
    """

    intervals: dict[str, tuple[float, float]]
    errors: ErrorKinds | None = None

    @classmethod
    def of(cls, evaluator: Evaluator, result: Result) -> Details:
        """Of everything that was collected, of label maps with ``keep_images``, and its result."""
        if isinstance(evaluator, SegmentationEvaluator):
            confusions, bands = evaluator.image_counts
            return cls(
                intervals_of(result.numbers, segmentation_samples(confusions, bands).numbers) if len(confusions) else {}
            )
        if not isinstance(evaluator, DetectionEvaluator) or not len((records := evaluator.records).image_ids):
            return cls({})
        samples = detection_samples(records, evaluator.classes, evaluator.max_detections, evaluator.f1_iou)
        errors = error_kinds(records, evaluator.classes, iou_type="segm" if evaluator.masks else "bbox")
        return cls(intervals_of(result.numbers, samples.numbers), errors)

    def table(self) -> RenderableType:
        """For the screen, 80 columns wide."""
        from rich.console import Group

        sure = new_table("95 % intervals, for the choice of the images")
        for name, (low, high) in self.intervals.items():
            sure.add_row(name, f"{format_number(low)} to {format_number(high)}")
        if self.errors is None:
            return sure
        costs = new_table("Errors, and what AP50 would gain without them (TIDE)")
        for kind, gain in self.errors.gains.items():
            text = "-" if math.isnan(gain) else f"+{gain:.3f}"
            costs.add_row(kind, str(self.errors.counts[kind]), text, ERROR_MEANINGS[kind])
        return Group(sure, costs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain: dict[str, Any] = {"intervals": self.intervals}
        if (errors := self.errors) is not None:
            kinds = {kind.value: {"count": errors.counts[kind], "gain": gain} for kind, gain in errors.gains.items()}
            gains = {
                "false_positive_gain": errors.false_positive_gain,
                "false_negative_gain": errors.false_negative_gain,
            }
            plain["errors"] = {"ap50": errors.ap50, **gains, **kinds}
        found: dict[str, Any] = without_nan(plain)
        return found


def report(
    evaluator: Evaluator,
    result: Result,
    file: Path,
    origin: Mapping[str, Any],
    settings: Mapping[str, Any],
    explained: Sequence[str],
) -> None:
    """Log a result, its details and what they mean, and write them to a JSON file, or log a warning where that fails.
    ``origin``: what was evaluated; ``settings``: how; ``explained``: what is suspicious."""
    logger.info(rendered(result.table()))
    details = Details.of(evaluator, result)
    logger.info(rendered(details.table()))
    for line in explained:
        logger.warning(line)
    content = {**origin, **result.to_dict(), **details.to_dict(), "settings": settings}
    try:
        write_text(file, json.dumps(content, indent=2))
        logger.info(f"written: {file}")
    except DataError as error:
        logger.warning(str(error))


def intervals_of(numbers: Mapping[str, float], samples: Mapping[str, FloatArray]) -> dict[str, tuple[float, float]]:
    """Metric → ends of its 95 % interval, within [0, 1], of the (B,) samples of each."""
    ends = {name: interval(numbers[name], values) for name, values in samples.items()}
    return {name: (max(low, 0.0), min(high, 1.0)) for name, (low, high) in ends.items()}
