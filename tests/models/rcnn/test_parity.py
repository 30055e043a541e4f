"""Our two-stage detectors against torchvision's own, of the same weights: losses of 20 steps, predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.ops.letterbox import Letterbox
from detseg.structures import BoxTargets
from tests.models.rcnn.small import copy_weights, small_detector, spread_outputs, torchvision_detector

SIDE = 128
NUM_LABELS = 4
TERMS = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal_box",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


def pair(masks: bool) -> tuple[Any, Any]:
    torch.manual_seed(3)
    theirs = torchvision_detector(NUM_LABELS + 1, masks, SIDE)
    ours = small_detector(NUM_LABELS + 1, masks, torchvision_masks=True)
    spread_outputs(theirs)
    copy_weights(theirs, ours)
    return theirs, ours


def random_targets(num: int, generator: torch.Generator) -> BoxTargets:
    """Objects that are ellipses in their boxes."""
    low = torch.rand(num, 2, generator=generator) * 80
    sides = 10 + torch.rand(num, 2, generator=generator) * 37
    boxes = torch.cat([low, low + sides], dim=1)
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    centre, half = (low + sides / 2)[:, :, None, None], (sides / 2)[:, :, None, None]
    masks = ((x - centre[:, 0]) / half[:, 0]) ** 2 + ((y - centre[:, 1]) / half[:, 1]) ** 2 <= 1
    labels = torch.randint(NUM_LABELS, (num,), generator=generator)
    return BoxTargets(boxes, labels, torch.zeros(num, dtype=torch.bool), masks)


def as_torchvision(target: BoxTargets) -> dict[str, Tensor]:
    assert target.masks is not None
    return {"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks.to(torch.uint8)}


def train(model: Any, losses: Any, steps: int) -> list[dict[str, float]]:
    """The loss terms of each step of plain SGD, the sampling seeded."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    torch.manual_seed(11)
    history = []
    for _ in range(steps):
        terms = losses()
        optimizer.zero_grad()
        torch.autograd.backward(list(terms.values()))
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
    return history


@pytest.mark.parametrize("masks", [False, True], ids=["faster", "mask"])
def test_twenty_steps_have_torchvisions_losses(masks: bool) -> None:
    theirs, ours = pair(masks)
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    targets = [random_targets(3, generator), random_targets(6, generator)]
    expected = train(theirs, lambda: theirs(list(images), [as_torchvision(target) for target in targets]), 20)
    history = train(ours, lambda: ours.losses(images, targets), 20)
    assert sum(expected[-1].values()) < 0.8 * sum(expected[0].values())  # it does learn: the steps are not alike
    for step, (mine, other) in enumerate(zip(history, expected, strict=True)):
        assert mine == pytest.approx({TERMS[name]: value for name, value in other.items()}, abs=1e-4), step


@pytest.mark.parametrize("masks", [False, True], ids=["faster", "mask"])
def test_predictions_are_torchvisions(masks: bool) -> None:
    theirs, ours = pair(masks)
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    soft: list[Tensor] = []
    if masks:
        theirs.roi_heads.mask_predictor.register_forward_hook(lambda *call: soft.append(call[2].sigmoid()))
    with torch.no_grad():
        expected = theirs.eval()(list(images))
    found = ours.eval().predict(images)
    assert min(len(image["boxes"]) for image in expected) >= 10
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.boxes, other["boxes"], rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.scores, other["scores"], rtol=0, atol=1e-5)
        assert mine.labels.tolist() == (other["labels"] - 1).tolist()
        assert (mine.grids is not None) == masks
    if masks:
        labels = torch.cat([image["labels"] for image in expected])
        expected_grids = soft[0][torch.arange(len(labels)), labels]
        torch.testing.assert_close(
            torch.cat([mine.grids.probabilities for mine in found]), expected_grids, rtol=0, atol=1e-5
        )
        for mine, other in zip(found, expected, strict=True):
            pasted = mine.to_original(Letterbox.fit((SIDE, SIDE), (SIDE, SIDE))).masks
            np.testing.assert_array_equal(pasted.dense(), (other["masks"][:, 0] >= 0.5).numpy())
            assert 0 < pasted.dense().mean() < 0.5
