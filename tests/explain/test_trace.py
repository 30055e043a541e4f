"""What the real detectors compute on the way: boxes before NMS, and the priors that training would assign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from detseg.errors import ConfigError
from detseg.explain.trace import traces
from detseg.models.layers import Normalize
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.detector import YoloDetector
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.scheme import Scheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.ops.nms import classwise_nms
from detseg.structures import BoxTargets
from tests.models.rcnn.small import small_detector, spread_outputs
from tests.models.targets import box_targets, logit


class GivenMap(nn.Module):
    """A head that gives one map, whatever it sees."""

    def __init__(self, raw: Tensor) -> None:
        super().__init__()
        self.raw = raw

    def forward(self, features: Tensor) -> list[Tensor]:
        return [self.raw]


def yolo(scheme: Scheme, raw: Tensor) -> YoloDetector:
    return YoloDetector(nn.Identity(), nn.Identity(), GivenMap(raw), scheme, Normalize((0.0,) * 3, (1.0,) * 3))


IMAGES = torch.zeros(2, 3, 64, 64)
TARGETS = [
    box_targets([(8, 8, 40, 24, 1), (20, 10, 30, 20, 0), (34, 40, 60, 60, 0)]),  # two centres in the upper left cell
    box_targets([(0, 0, 60, 60, 0, True), (2, 2, 20, 20, 1)]),
]


def test_of_a_grid() -> None:
    # 2 x 2 cells of 32 pixels, 2 boxes each: in the middle of the cell, 16 pixels wide; 0.2 · 0.5 for either class.
    raw = torch.zeros(2, 12, 2, 2)
    raw[:, [4, 9]] = logit(0.2)
    first, second = traces(yolo(GridScheme(2, 32, 2), raw), IMAGES, TARGETS)
    assert first.boxes[:, 0].tolist()[::2] == [[8, 8, 24, 24], [40, 8, 56, 24], [8, 40, 24, 56], [40, 40, 56, 56]]
    assert first.scores.shape == (8, 2)
    assert first.scores.flatten().tolist() == pytest.approx([0.1] * 16)
    assert (first.stride, first.limits.nms_iou, first.first_stage) == (32, 0.65, None)
    assert first.priors.possible.tolist() == [2, 2, 2]
    assert first.priors.assigned.tolist() == [1, 0, 1]  # the largest has the cell
    assert second.priors.assigned.tolist() == [0, 1]


def test_of_anchors() -> None:
    # A level of 32 pixels with one anchor of 16 x 16, and a cell that two objects claim: the better shape has it.
    scheme = AnchorScheme(2, (32,), [[(16.0, 16.0)]])
    first, second = traces(yolo(scheme, torch.zeros(2, 7, 2, 2)), IMAGES, TARGETS)
    assert first.priors.anchor_iou is not None
    # 16 x 16 of 32 x 16; 10 x 10 of 16 x 16; 16 x 16 of 26 x 20
    assert first.priors.anchor_iou.tolist() == pytest.approx([256 / 512, 100 / 256, 256 / 520])
    assert first.priors.assigned.tolist() == [1, 0, 1]
    assert second.priors.assigned.tolist() == [0, 1]


def test_of_points() -> None:
    # Cells of 16 pixels with points at 8, 24, 40, 56; every box is that of its point and 7.5 cells, the mean of 16
    # bins, to each side: the whole image, so that all points of an object are equally good.
    scheme = TaskAlignedScheme(2, (16,), TaskAlignedAssigner(topk=2))
    (trace,) = traces(
        yolo(scheme, torch.zeros(1, 66, 4, 4)), IMAGES[:1], [box_targets([(0, 0, 64, 30, 0), (7, 30, 9, 34, 1)])]
    )
    assert trace.boxes[:, 0].tolist() == [[0, 0, 64, 64]] * 16
    # 4 x 2 points; and of an object narrower than a cell, which is as wide as one then: (0, 24, 16, 40) has (8, 24)
    # just inside, and (8, 40).
    assert trace.priors.possible.tolist() == [8, 2]
    assert trace.priors.assigned.tolist() == [2, 2]


def test_of_two_stages() -> None:
    torch.manual_seed(0)
    detector = small_detector(3, masks=False, score_threshold=0.2).eval()
    spread_outputs(detector)
    images = torch.rand(2, 3, 64, 64)
    targets = [box_targets([(8, 8, 32, 32, 0), (40, 40, 44, 43, 1)]), BoxTargets.empty()]
    found = detector.predict(images)
    for trace, detections in zip(traces(detector, images, targets), found, strict=True):
        assert trace.stride == 4
        assert trace.first_stage is not None
        assert len(trace.boxes) == len(trace.scores) == len(trace.first_stage.proposals) == 30
        row, label = torch.nonzero(trace.scores >= trace.limits.score_threshold, as_tuple=True)
        boxes, scores = trace.boxes[row, label], trace.scores[row, label]
        kept = classwise_nms(boxes, scores, label, trace.limits.nms_iou, trace.limits.max_detections)
        torch.testing.assert_close(boxes[kept], detections.boxes)
        torch.testing.assert_close(scores[kept], detections.scores)
        assert torch.equal(label[kept], detections.labels)
        assert len(kept) > 3
    priors = traces(detector, images, targets)[0].priors
    assert priors.anchor_iou is not None
    # Anchors of 24 pixels stand every 8 pixels, one with the corners of the first object's but for 4 pixels each way
    # (20 x 20 of 752). The smallest anchor, 12 pixels at 1 : 2, rounded to 16 x 8, holds the second, 4 x 3.
    assert priors.assigned[0] >= 1
    assert priors.anchor_iou[1] == pytest.approx(12 / 128)
    assert priors.possible[1] == 0
    assert priors.assigned[1] >= 1  # the best one, however little it overlaps


def test_a_module_of_ones_own_has_no_steps_that_are_known() -> None:
    with pytest.raises(ConfigError, match="a Identity is none of our detectors"):
        traces(nn.Identity(), IMAGES, TARGETS)
