"""Detections of raw maps against every candidate decoded, and slow suppression of all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from detseg.models.interface import LossTerms
from detseg.models.yolo.detector import best_detections
from detseg.models.yolo.scheme import Candidates, PriorIndex
from detseg.structures import BoxTargets, DetectorOutput
from tests.ops.test_nms import Row, brute_force

HW = (40, 60)
Limits = tuple[float, float, int]
"""Threshold of scores, IoU of the suppression, most detections."""


class GivenCandidates(nn.Module):
    """A scheme that has decoded already; it counts the priors that it is asked for.

    Args:
        boxes: (B, A, 4) float32.
        scores: (B, A, C) float32.
        rounding: fraction by which the best scores are off, at most.
    """

    strides: tuple[int, ...] = (8,)
    box_outputs = class_outputs = 0

    def __init__(self, boxes: Tensor, scores: Tensor, rounding: float = 3e-7) -> None:
        super().__init__()
        self.boxes, self.scores, self.rounding = boxes, scores, rounding
        self.num_decoded = 0

    def initial_bias(self, stride: int) -> Tensor:
        return torch.zeros(0)

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        return {}

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        best = self.scores[maps[0].long()].amax(dim=2)
        return best * (1 + self.rounding * torch.linspace(-1, 1, best.numel()).cos().view_as(best))

    def decode(self, maps: list[Tensor], index: PriorIndex | None = None) -> Candidates:
        assert index is not None
        self.num_decoded += len(index.prior)
        image = maps[0].long()[index.image]
        return Candidates(self.boxes[image, index.prior], self.scores[image, index.prior])


def found_by(scheme: GivenCandidates, limits: Limits, num_priors: int | None = None) -> list[DetectorOutput]:
    """The maps are the numbers of the images."""
    return best_detections(scheme, [torch.arange(float(len(scheme.boxes)))], HW, *limits, num_priors)


def expected(boxes: Tensor, scores: Tensor, limits: Limits) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image: all candidates in the order of priors and classes, all of them suppressed."""
    score_threshold, nms_iou, max_detections = limits
    clipped = torch.minimum(boxes.clamp(min=0), torch.tensor(HW[::-1] * 2))
    prior, label = torch.nonzero(scores >= score_threshold, as_tuple=True)
    area = (clipped[prior, 2:] > clipped[prior, :2]).all(dim=1)
    prior, label = prior[area], label[area]
    rows: list[Row] = [tuple(row) for row in clipped[prior].double().tolist()]
    kept = brute_force(rows, scores[prior, label].tolist(), label.tolist(), nms_iou)[:max_detections]
    return clipped[prior[kept]], scores[prior, label][kept], label[kept]


def assert_found(found: list[DetectorOutput], scheme: GivenCandidates, limits: Limits) -> None:
    for detections, boxes, scores in zip(found, scheme.boxes, scheme.scores, strict=True):
        for column, right in zip(
            (detections.boxes, detections.scores, detections.labels), expected(boxes, scores, limits), strict=True
        ):
            assert torch.equal(column, right)


def given_candidates(seed: int, num_scores: int, num: int = 60) -> GivenCandidates:
    """Two images; boxes with whole corners, some outside, some empty; ``num_scores`` different scores, so ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(-10, 55, (2, num, 2), generator=generator)
    boxes = torch.cat([corner, corner + torch.randint(0, 20, (2, num, 2), generator=generator)], dim=2).float()
    scores = torch.randint(0, num_scores, (2, num, 3), generator=generator) / num_scores
    return GivenCandidates(boxes, scores)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_scores=st.sampled_from([1, 2, 10, 1000]),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    max_detections=st.sampled_from([1, 5, 40, 300]),
    num_priors=st.sampled_from([1, 4, 30, None]),
)
def test_finds_what_decoding_everything_finds(
    seed: int, num_scores: int, threshold: float, max_detections: int, num_priors: int | None
) -> None:
    limits = (threshold, 0.5, max_detections)
    scheme = given_candidates(seed, num_scores)
    assert_found(found_by(scheme, limits, num_priors), scheme, limits)


def test_decodes_only_what_can_be_found() -> None:
    scheme = given_candidates(0, 1000, num=5000)
    scheme.scores *= torch.rand(2, 5000, 1).pow(20)  # few priors have high scores
    high = int((scheme.scores.amax(dim=2) >= 0.3).sum())
    found_by(scheme, (0.3, 0.5, 300))
    assert high <= scheme.num_decoded <= high + 2
    scheme.num_decoded = 0
    found_by(scheme, (0.0, 0.5, 10))  # all reach the threshold, the best 4 x 10 priors of each image suffice
    assert 80 <= scheme.num_decoded <= 90


def test_images_whose_best_candidates_are_all_one_object_are_looked_at_further() -> None:
    boxes = torch.tensor([[[10.0, 10, 30, 30]] * 100 + [[31, 0, 40, 9], [41, 0, 50, 9]]] * 2)
    scores = torch.cat([torch.linspace(1, 0.5, 100), torch.tensor([0.2, 0.1])])[None, :, None].repeat(2, 1, 1)
    scores[1, 100] = 0.999  # here the first look is enough
    scheme, limits = GivenCandidates(boxes, scores), (0.001, 0.5, 2)
    found = found_by(scheme, limits)
    assert [detections.scores.tolist() for detections in found] == [
        pytest.approx([1.0, 0.2]),
        pytest.approx([1.0, 0.999]),
    ]
    assert_found(found, scheme, limits)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_scores_that_are_no_number_hide_no_others(threshold: float) -> None:
    scheme = given_candidates(3, 10)
    scheme.scores[:, ::2, 1] = torch.nan
    scheme.scores[0, 1] = torch.nan
    limits = (threshold, 0.5, 20)
    assert_found(found_by(scheme, limits, 3), scheme, limits)
    scheme.scores[:] = torch.nan
    assert [len(detections) for detections in found_by(scheme, limits, 3)] == [0, 0]
