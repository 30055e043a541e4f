from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.models.rcnn.regions import RegionHeads
from detseg.structures import BoxTargets

HW = (40, 60)
FEATURES = [torch.zeros(1, 1, 10, 15)]
NO_DELTAS = torch.zeros(4)


class Pool(nn.Module):
    """Hands the boxes on, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        assert list(features) == ["0"]
        assert shapes == [HW] * len(boxes)
        self.seen = boxes
        return torch.cat(boxes)


class Predictor(nn.Module):
    """Logits and differences by the left edge of the box."""

    def __init__(self, logits: dict[float, list[float]], num_outputs: int) -> None:
        super().__init__()
        self.logits = logits
        self.num_outputs = num_outputs

    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        rows = [self.logits.get(left, [0.0] * self.num_outputs) for left in boxes[:, 0].tolist()]
        return torch.tensor(rows).reshape(-1, self.num_outputs), torch.zeros(len(boxes), 4 * self.num_outputs)


class MaskPredictor(nn.Module):
    """The logits of output k are k - 2 everywhere."""

    def forward(self, boxes: Tensor) -> Tensor:
        return (torch.arange(6.0) - 2)[None, :, None, None].repeat(len(boxes), 1, 4, 4)


def heads(logits: dict[float, list[float]], num_outputs: int = 3, masks: bool = False, **settings: Any) -> RegionHeads:
    parts = {"mask_pool": Pool(), "mask_head": nn.Identity(), "mask_predictor": MaskPredictor()} if masks else {}
    return RegionHeads(Pool(), nn.Identity(), Predictor(logits, num_outputs), **parts, **settings)


def probabilities(*values: float) -> list[float]:
    return torch.tensor(values).log().tolist()


LOGITS = {0.0: probabilities(0.1, 0.7, 0.2), 1.0: probabilities(0.2, 0.6, 0.2), 30.0: probabilities(0.5, 0.1, 0.4)}
PROPOSALS = [torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [30.0, 20, 70, 50]])]


def test_detections_by_hand() -> None:
    (found,) = heads(LOGITS, score_threshold=0.15).detect(FEATURES, PROPOSALS, HW, None)
    # The first two overlap by 9/11: of each class the better one stays.  The third is cut to the image.
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.7, 0.4, 0.2])
    assert found.boxes[:2].tolist() == [[0, 0, 10, 10], [30, 20, 60, 40]]
    (two,) = heads(LOGITS, score_threshold=0.15, max_detections=2).detect(FEATURES, PROPOSALS, HW, None)
    assert torch.equal(two.boxes, found.boxes[:2])


def test_labels_speak_through_their_outputs_and_others_take_no_place() -> None:
    logits = {0.0: probabilities(0.1, 0.5, 0.05, 0.05, 0.1, 0.2), 30.0: probabilities(0.05, 0.5, 0.1, 0.1, 0.15, 0.1)}
    model = heads(logits, num_outputs=6, masks=True, score_threshold=0.12, max_detections=2)
    (found,) = model.detect(FEATURES, PROPOSALS, HW, torch.tensor([5, 4]))
    # Output 1 scores most, but no label has it.  Of label 0 the second proposal is suppressed, of label 1 it is best.
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.2, 1 / 6])
    assert found.grids is not None
    expected = torch.tensor([5.0 - 2, 4.0 - 2]).sigmoid()[:, None, None].expand(2, 4, 4)
    torch.testing.assert_close(found.grids.probabilities, expected)


def test_nothing_found() -> None:
    for proposals in (PROPOSALS, [torch.zeros(0, 4)]):
        (found,) = heads(LOGITS, masks=False, score_threshold=0.9).detect(FEATURES, proposals, HW, None)
        assert len(found) == 0
        (found,) = heads({}, 6, masks=True, score_threshold=0.9).detect(FEATURES, proposals, HW, None)
        assert found.grids is not None
        assert len(found) == len(found.grids) == 0


def target(boxes: list[list[float]], outputs: list[int], ignore: list[bool], masks: Tensor | None = None) -> BoxTargets:
    return BoxTargets(torch.tensor(boxes).reshape(-1, 4), torch.tensor(outputs, dtype=torch.int64),
                      torch.tensor(ignore, dtype=torch.bool), masks)  # fmt: skip


def test_losses_by_hand_with_a_crowd() -> None:
    proposals = [torch.tensor([[0.0, 0, 10, 12], [30.0, 0, 40, 10], [24.0, 24, 30, 30], [50.0, 30, 60, 40]])]
    objects = target([[0.0, 0, 10, 10], [20.0, 20, 44, 40]], [2, 1], [False, True])
    logits = {
        0.0: probabilities(0.25, 0.25, 0.5),
        30.0: probabilities(0.8, 0.1, 0.1),
        50.0: probabilities(0.4, 0.3, 0.3),
    }
    model = heads(logits)
    terms = model.losses(FEATURES, proposals, HW, [objects])
    # The third proposal lies in the crowd: left out; the crowd itself is no proposal, the object is (the last one).
    assert model.box_pool.seen[0].tolist() == [[0, 0, 10, 12], [30, 0, 40, 10], [50, 30, 60, 40], [0, 0, 10, 10]]
    p = torch.tensor([0.5, 0.8, 0.4, 0.5])
    assert terms["class"].item() == pytest.approx(-p.log().mean().item())
    # The first proposal's centre is a twelfth of its height too low, and it is 12/10 as high.
    shift, growth = 10 / 12, 5 * torch.log(torch.tensor(1.2)).item()
    assert terms["box"].item() == pytest.approx((shift - 1 / 18 + growth - 1 / 18) / 4, rel=1e-5)
    assert set(terms) == {"class", "box"}


def test_mask_loss_by_hand() -> None:
    masks = torch.zeros(3, *HW, dtype=torch.bool)
    masks[1, :8, :8] = True  # full
    masks[2, 20:28, 20:24] = True  # the left half of its box
    objects = target([[0.0, 0, 60, 40], [0.0, 0, 8, 8], [20.0, 20, 28, 28]], [1, 5, 3], [True, False, False], masks)
    model = heads({}, num_outputs=6, masks=True, mask_weight=2.0)
    terms = model.losses(FEATURES, [torch.zeros(0, 4)], HW, [objects])
    full = -torch.tensor(3.0).sigmoid().log()  # output 5: logit 3
    half = -(torch.tensor(1.0).sigmoid().log() + torch.tensor(-1.0).sigmoid().log()) / 2  # output 3: logit 1
    assert terms["mask"].item() == pytest.approx(2 * (full + half).item() / 2, rel=1e-5)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_to_look_at_costs_nothing(masks: bool) -> None:
    """No proposal passes the first stage's threshold, and there is no object."""
    terms = heads({}, 6, masks).losses(FEATURES, [torch.zeros(0, 4)], HW, [BoxTargets.empty()])
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(
        ["class", "box", "mask"] if masks else ["class", "box"], 0
    )


def test_half_a_mask_head_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"masks need all of .*, got no mask_head and no mask_predictor"):
        RegionHeads(Pool(), nn.Identity(), Predictor({}, 3), mask_pool=Pool())
