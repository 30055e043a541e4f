from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detseg.models.rcnn.rpn import AnchorOutputs, RegionProposalNetwork
from tests.models.targets import box_targets

HW = (64, 96)
SIZES = ((16.0, 20.0), (32.0, 40.0))
RATIOS = (0.5, 2.0)


def network(**settings: object) -> RegionProposalNetwork:
    torch.manual_seed(0)
    model = RegionProposalNetwork(8, SIZES, RATIOS, **settings)  # type: ignore[arg-type]  # one of each test's own
    with torch.no_grad():
        model.head.cls_logits.weight.normal_(std=0.5)
    return model


def features(num: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(num)
    return [torch.rand(num, 8, HW[0] // stride, HW[1] // stride, generator=generator) for stride in (8, 16)]


def outputs_at(scores: dict[int, float], anchors: list[list[float]], level_sizes: list[int]) -> AnchorOutputs:
    """One image whose anchors have the given logits, and -10 where none is given."""
    logits = torch.full((1, len(anchors)), -10.0)
    for position, score in scores.items():
        logits[0, position] = score
    return AnchorOutputs(torch.tensor(anchors), logits, torch.zeros(1, len(anchors), 4), level_sizes)


def test_outputs_are_read_cell_by_cell() -> None:
    model = network()
    maps = model(features())
    assert [tuple(raw.shape) for raw in maps] == [(2, 20, 8, 12), (2, 20, 4, 6)]
    outputs = model.read(maps, HW)
    assert outputs.level_sizes == [8 * 12 * 4, 4 * 6 * 4]
    images = ImageList(torch.zeros(1, 3, *HW), [HW])
    assert torch.equal(outputs.anchors, AnchorGenerator(SIZES, (RATIOS,) * 2)(images, maps)[0])
    # Anchor 3 of the cell at row 2, column 5 of the coarse map of the second image.
    at = 8 * 12 * 4 + (2 * 6 + 5) * 4 + 3
    assert outputs.logits[1, at] == maps[1][1, 3, 2, 5]
    assert torch.equal(outputs.deltas[1, at], maps[1][1, 4 + 12 : 4 + 16, 2, 5])


def test_precision_of_the_maps_does_not_wear_the_anchors_off() -> None:
    model = network()
    maps = model(features())
    expected = model.read(maps, HW).anchors
    rounded = model.read([raw.bfloat16() for raw in maps], HW)
    assert rounded.logits.dtype == rounded.anchors.dtype == torch.float32
    assert torch.equal(model.read(maps, HW).anchors, expected)


def test_proposals_are_the_best_of_each_level_after_suppression() -> None:
    anchors = [[0.0, 0, 10, 10], [1.0, 0, 11, 10], [40.0, 0, 50, 10], [0.0, 0, 10, 10], [60.0, 0, 70, 10]]
    outputs = outputs_at({0: 2.0, 1: 3.0, 2: 1.0, 3: 4.0, 4: 0.5}, anchors, [3, 2])
    (all_of_them,) = network().propose(outputs, HW, training=True)
    # 0 and 1 overlap by 9/11 in one level; 3 lies on 0, but in another level.
    assert all_of_them.tolist() == [anchors[3], anchors[1], anchors[2], anchors[4]]
    counts = network(pre_nms_top_n=(2, 1), post_nms_top_n=(4, 1))
    (for_training,) = counts.propose(outputs, HW, training=True)
    assert for_training.tolist() == [anchors[3], anchors[1], anchors[4]]
    (for_prediction,) = counts.propose(outputs, HW, training=False)
    assert for_prediction.tolist() == [anchors[3]]


def test_unlikely_and_outer_proposals_are_dropped() -> None:
    anchors = [[-20.0, 0, 0, 10], [90.0, 60, 120, 80], [10.0, 10, 20, 20]]
    outputs = outputs_at({0: 5.0, 1: 4.0, 2: -3.0}, anchors, [3])
    (found,) = network(score_threshold=0.05).propose(outputs, HW, training=False)  # sigmoid(-3) = 0.047
    assert found.tolist() == [[90, 60, 96, 64]]


def test_losses_by_hand() -> None:
    # One positive, two negatives, one anchor in the crowd, which counts for nothing.
    anchors = [[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10], [62.0, 2, 68, 8]]
    target = box_targets([(0, 0, 10, 20), (60, 0, 96, 64)], ignore=[False, True])
    outputs = outputs_at({0: 0.0, 1: 0.0, 2: 0.0, 3: 50.0}, anchors, [4])
    terms = network().losses(outputs, [target])
    assert terms["objectness"].item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    # Its centre is half a height further down, its height twice as much; smooth L1 less half of beta each.
    expected = (0.5 - 1 / 18) + (torch.log(torch.tensor(2.0)).item() - 1 / 18)
    assert terms["proposal_box"].item() == pytest.approx(expected / 3)


def test_everything_ignored_costs_nothing() -> None:
    model = network()
    whole = box_targets([(-100, -100, 300, 300)], ignore=[True])
    terms = model.losses(model.read(model(features()), HW), [whole, whole])
    assert {name: term.item() for name, term in terms.items()} == {"objectness": 0, "proposal_box": 0}


def test_wrong_levels_are_errors() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"expected 2 levels.*got 1"):
        model.read(model(features())[:1], HW)
