"""The second stage by hand; its masks against torchvision's functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from detseg.models.rcnn import roi_heads
from detseg.models.rcnn.roi_heads import RoIHeads, TwoLayerHead, mask_targets, torchvision_mask_regions
from detseg.structures import BoxTargets, RoiMasks
from tests.models.targets import box_targets

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


def heads(logits: dict[float, list[float]], num_outputs: int = 3, masks: bool = False, **settings: Any) -> RoIHeads:
    parts = {"mask_pool": Pool(), "mask_head": nn.Identity(), "mask_predictor": MaskPredictor()} if masks else {}
    return RoIHeads(Pool(), nn.Identity(), Predictor(logits, num_outputs), **parts, **settings)


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
    return replace(box_targets(boxes, outputs, ignore), masks=masks)


def test_losses_by_hand_with_a_crowd() -> None:
    proposals = [torch.tensor([[0.0, 0, 10, 12], [30.0, 0, 40, 10], [24.0, 24, 30, 30], [50.0, 30, 60, 40]])]
    objects = target([[0.0, 0, 10, 10], [20.0, 20, 44, 40]], [2, 1], [False, True])
    rows = {0.0: (0.25, 0.25, 0.5), 30.0: (0.8, 0.1, 0.1), 50.0: (0.4, 0.3, 0.3)}
    model = heads({left: probabilities(*row) for left, row in rows.items()})
    terms = model.losses(FEATURES, proposals, HW, [objects])
    # The third proposal lies in the crowd: left out; the crowd itself is no proposal, the object is (the last one).
    assert model.box_pool.seen[0].tolist() == [[0, 0, 10, 12], [30, 0, 40, 10], [50, 30, 60, 40], [0, 0, 10, 10]]
    p = torch.tensor([0.5, 0.8, 0.4, 0.5])
    assert terms["class"].item() == pytest.approx(-p.log().mean().item())
    # The first proposal's centre is a twelfth of its height too low, and it is 12/10 as high.
    shift, growth = 10 / 12, 5 * torch.log(torch.tensor(1.2)).item()
    assert terms["box"].item() == pytest.approx((shift - 1 / 18 + growth - 1 / 18) / 4, rel=1e-5)
    assert set(terms) == {"class", "box"}
    # Of the four regions the first and the last are of output 2, whose weight is 3; what is divided by stays.
    model.class_weights = torch.tensor([1.0, 2.0, 3.0])
    weighted = model.losses(FEATURES, proposals, HW, [objects])
    assert weighted["class"].item() == pytest.approx(-(torch.tensor([3.0, 1, 1, 3]) * p.log()).sum().item() / 4)
    assert torch.equal(weighted["box"], terms["box"])


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
    assert {k: term.item() for k, term in terms.items()} == {"class": 0, "box": 0} | ({"mask": 0} if masks else {})


def random_regions(num: int, side: float) -> torch.Tensor:
    low = torch.rand(num, 2) * side * 0.6
    return torch.cat([low, low + 2 + torch.rand(num, 2) * side * 0.4], dim=1)


def test_whole_pixels_are_told_exactly() -> None:
    masks = torch.rand(3, 12, 16) > 0.5
    regions = torch.tensor([[0.0, 0.0, 4.0, 4.0], [12.0, 8.0, 16.0, 12.0]])
    targets = mask_targets(masks, torch.tensor([2, 0]), regions, cells=4, aligned=True)
    # Along the image's border RoIAlign repeats the last pixel; a cell of a pixel is that pixel everywhere.
    torch.testing.assert_close(targets, torch.stack([masks[2, :4, :4], masks[0, 8:, 12:]]).float())


def test_a_cell_is_the_fraction_of_its_pixels() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 2:6] = True  # rows 2, 3 and 4
    targets = mask_targets(masks, torch.tensor([0]), torch.tensor([[2.0, 2.0, 6.0, 6.0]]), cells=2, aligned=True)
    assert targets[0].tolist() == [[1.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize("pixels_at_once", [1, 3 * 40 * 50, 1 << 24])
def test_published_targets_are_torchvisions(pixels_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(roi_heads, "_PIXELS_AT_ONCE", pixels_at_once)
    masks, objects, regions = torch.rand(7, 40, 50) > 0.4, torch.randint(7, (20,)), random_regions(20, 40)
    expected = project_masks_on_boxes(masks.to(torch.uint8), regions, objects, 28)
    assert torch.equal(mask_targets(masks, objects, regions, cells=28, aligned=False), expected)


@pytest.mark.parametrize("cells", [28, 14])
def test_torchvision_mask_regions_paste_as_torchvision_does(cells: int) -> None:
    torch.manual_seed(1)
    boxes = random_regions(40, 100)
    boxes[:4] = torch.tensor([[0, 0, 1, 1], [0, 0, 100, 90], [99, 89, 100, 90], [3.5, 0.25, 3.75, 90]])
    # As networks give them: smooth over the grid.  A value within rounding of a half would be anybody's guess.
    grids = torch.nn.functional.interpolate(torch.rand(40, 1, 5, 5), size=(cells, cells), mode="bilinear")[:, 0]
    expected = paste_masks_in_image(grids[:, None], boxes, (90, 100))[:, 0] >= 0.5
    pasted = RoiMasks(grids, torchvision_mask_regions(boxes, cells)).paste((90, 100))
    np.testing.assert_array_equal(pasted.dense(), expected.numpy())


def test_torchvision_mask_regions_by_hand() -> None:
    # Widened by 30/28 about (14, 28): 14 ± 15 and 28 ± 30, whole pixels and the last one in: -1..30 and -2..59, of
    # which a thirtieth at each end is the padding.
    region = torchvision_mask_regions(torch.tensor([[0.0, 0.0, 28.0, 56.0]]), 28)
    expected = [-1 + 31 / 30, -2 + 61 / 30, 30 - 31 / 30, 59 - 61 / 30]
    assert region[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_both_fully_connected_layers_drop() -> None:
    head = TwoLayerHead(4, 100, 0.25)
    with torch.no_grad():
        head.fc6.weight.fill_(0.25)
        head.fc7.weight.copy_(torch.eye(100))
        for layer in (head.fc6, head.fc7):
            layer.bias.zero_()
    torch.manual_seed(0)
    out = head(torch.ones(50, 1, 2, 2))
    # Each layer leaves 3 of 4 outputs, and these 4/3 times as large.
    assert out.unique().tolist() == pytest.approx([0, 16 / 9])
    assert (out != 0).float().mean().item() == pytest.approx(9 / 16, abs=0.03)
    assert torch.equal(head.eval()(torch.ones(50, 1, 2, 2)), torch.ones(50, 100))
