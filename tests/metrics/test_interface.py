"""Both evaluators and both results offer what training and tools go by; mypy holds the same of this file."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.interface import Evaluator, Result
from detseg.metrics.segmentation.evaluator import SegmentationEvaluator
from detseg.structures import ClassTable
from tests.metrics.detection.builders import found, truth

CLASSES = ClassTable(("cat", "dog"))
DETECTION: Evaluator = DetectionEvaluator(CLASSES)
SEGMENTATION: Evaluator = SegmentationEvaluator(CLASSES)


@pytest.mark.parametrize(
    ("evaluator", "headline"),
    [(DETECTION, ["AP", "AP50", "AP75"]), (SEGMENTATION, ["mIoU", "pixel_accuracy", "boundary_IoU"])],
)
def test_what_checkpoints_logs_and_reports_go_by(evaluator: Evaluator, headline: list[str]) -> None:
    evaluator.reset()
    result: Result = evaluator.compute()
    assert list(result.headline) == headline
    assert all(isinstance(value, float) for value in result.headline.values())
    assert result.explain() == ["No image was evaluated: the split is empty."]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["num_images"] == 0
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(result.table())
    assert "0 images" in console.export_text()


def test_the_headline_of_detection_is_cocos() -> None:
    evaluator = DetectionEvaluator(CLASSES)
    evaluator.update(0, found([((0, 0, 50, 50), 0.9, 0)]), truth([((0, 0, 50, 30), 0), ((60, 0, 90, 30), 0)]))
    result = evaluator.compute()
    assert result.headline == {name: result.coco[name] for name in ("AP", "AP50", "AP75")}
    assert 0 < result.headline["AP"] < result.headline["AP50"]
