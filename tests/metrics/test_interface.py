"""Both evaluators and both results have the interface that training and tools use."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.interface import Evaluator, Result
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.structures import ClassTable

CLASSES = ClassTable(("cat", "dog"))
DETECTION: Evaluator = DetectionEvaluator(CLASSES)
SEGMENTATION: Evaluator = SegmentationEvaluator(CLASSES)


@pytest.mark.parametrize(
    ("evaluator", "headline"),
    [(DETECTION, ["AP", "AP50", "AP75"]), (SEGMENTATION, ["mIoU", "pixel_accuracy", "boundary_IoU"])],
)
def test_what_checkpoints_logs_and_reports_use(evaluator: Evaluator, headline: list[str]) -> None:
    evaluator.reset()
    result: Result = evaluator.compute()
    assert list(result.headline) == headline
    assert all(isinstance(value, float) for value in result.headline.values())
    assert result.explain() == ["No image was evaluated: the split is empty."]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["num_images"] == 0
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(result.table())
    assert "0 images" in console.export_text()
