"""The published detectors are torchvision's: from one file of weights the same detections, and the same training.

The files hold random weights, so that no network is needed; both sides are few proposals wide, so that they are quick.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detseg.factory.rcnn import build_rcnn
from detseg.models.rcnn.detector import RCNNDetector
from detseg.structures import BoxTargets, ClassTable, DetectorOutput
from detseg.training.optim.freezing import freeze_stages
from tests.factory.torchvision_models import (
    LIGHT,
    MAKERS,
    as_published,
    published_file,
    random_state,
    settings,
    with_old_names,
)

CLASSES = ClassTable(tuple(f"class {i}" for i in range(1, 91)))
"""One for each output of published heads but background, so that nothing of what they say is lost."""

HW = (96, 128)
TERMS = {
    "objectness": "loss_objectness",
    "proposal_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}
"""Our names of the loss terms → torchvision's."""

Key = tuple[str, str]
Pair = tuple[Key, Any, RCNNDetector]


@pytest.fixture(scope="module", params=MAKERS, ids=" on ".join)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model of torchvision's and ours, both from one file."""
    key: Key = request.param
    state = random_state(key)
    if key[1] == "resnet50_fpn":
        state = with_old_names(state)  # these two were published before the names changed
    with published_file(tmp_path_factory.mktemp("hub"), key, state), pytest.MonkeyPatch.context() as patch:
        limits = {"rpn_post_nms_top_n_train": 100, "rpn_post_nms_top_n_test": 60, "rpn_batch_size_per_image": 64}
        limits |= {"box_batch_size_per_image": 32, "box_detections_per_img": 30}
        theirs = as_published(key, box_score_thresh=0.02, **limits)
        patch.setattr("detseg.factory.rcnn.coco_outputs", lambda weights, classes: tuple(range(1, 91)))
        changes = {
            "rpn": {"post_nms_top_n_train": 100, "post_nms_top_n": 60, "batch_size_per_image": 64},
            "roi_heads": {"batch_size_per_image": 32},
            "score_threshold": 0.02,
            "max_detections": 30,
        }
        ours = build_rcnn(settings(key, **changes), CLASSES, True)
    return key, theirs, ours


def random_images(seed: int) -> Tensor:
    """(2, 3, H, W) coloured blocks with noise on them."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(2, 3, HW[0] // 16, HW[1] // 16, generator=generator)
    noise = torch.rand(2, 3, *HW, generator=generator)
    return 0.8 * F.interpolate(blocks, size=HW, mode="nearest") + 0.2 * noise


def in_order_of(found: DetectorOutput, expected: dict[str, Tensor]) -> Tensor:
    """The position of each expected detection among those found: torchvision does not say which of several equal scores
    comes first, and small regions share theirs."""
    ours = torch.cat([found.boxes, found.labels[:, None] * 1e3, found.scores[:, None] * 1e3], dim=1)
    theirs = torch.cat(
        [expected["boxes"], expected["labels"][:, None] * 1e3 - 1e3, expected["scores"][:, None] * 1e3], 1
    )
    order = torch.cdist(theirs, ours, p=torch.inf).argmin(dim=1)
    assert sorted(order.tolist()) == list(range(len(found)))
    return order


@torch.no_grad()
def test_the_same_detections(pair: Pair) -> None:
    """Boxes, scores, labels, and grids of masks, to 1e-5 of a pixel or of a probability."""
    _, theirs, ours = pair
    images = random_images(0)
    theirs.transform.postprocess = lambda result, *sizes: result  # masks stay the grids that they are
    expected, found = theirs.eval()(list(images)), ours.eval().predict(images)
    for want, got in zip(expected, found, strict=True):
        assert len(want["labels"].unique()) >= 3
        assert want["scores"].max() - want["scores"].min() > 0.05
        torch.testing.assert_close(got.scores, want["scores"], rtol=0, atol=1e-5)
        order = in_order_of(got, want)
        torch.testing.assert_close(got.boxes[order], want["boxes"], rtol=0, atol=1e-5)
        assert torch.equal(got.labels[order] + 1, want["labels"])
        assert (got.grids is not None) == ("masks" in want)
        if got.grids is not None:
            check_masks(got[order], want)


def check_masks(got: DetectorOutput, want: dict[str, Tensor]) -> None:
    """The soft grids, and what they are pasted to, pixel by pixel."""
    assert got.grids is not None
    torch.testing.assert_close(got.grids.probabilities[:, None], want["masks"], rtol=0, atol=1e-5)
    pasted = paste_masks_in_image(want["masks"], want["boxes"], HW)[:, 0]
    undecided = (pasted - 0.5).abs() < 1e-5
    masks = torch.from_numpy(got.grids.paste(HW).dense())
    assert not ((masks != (pasted >= 0.5)) & ~undecided).any()
    assert undecided.float().mean() < 1e-3
    assert 0.005 < masks.float().mean() < 0.9


def ellipses(boxes: Tensor) -> Tensor:
    """(N, H, W) bool, one in each box."""
    y, x = torch.meshgrid(torch.arange(HW[0]) + 0.5, torch.arange(HW[1]) + 0.5, indexing="ij")
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    away = torch.stack([x, y]) - center[:, :, None, None]
    return ((away / half[:, :, None, None]) ** 2).sum(dim=1) < 1


def training_targets(with_masks: bool) -> tuple[list[dict[str, Tensor]], list[BoxTargets]]:
    """The objects of two images, torchvision's way and ours."""
    boxes = [
        torch.tensor([[8.0, 12.0, 70.0, 90.0], [60.0, 30.0, 120.0, 80.0], [100.0, 5.0, 126.5, 40.0]]),
        torch.tensor([[20.0, 20.0, 110.0, 90.0], [5.0, 60.0, 50.5, 94.0]]),
    ]
    labels = [torch.tensor([0, 16, 2]), torch.tensor([89, 0])]
    theirs, ours = [], []
    for own, label in zip(boxes, labels, strict=True):
        masks = ellipses(own) if with_masks else None
        theirs.append({"boxes": own, "labels": label + 1} | ({} if masks is None else {"masks": masks.byte()}))
        ours.append(BoxTargets(own, label, torch.zeros(len(label), dtype=torch.bool), masks))
    return theirs, ours


def largest_difference(pair: Pair, num_steps: int) -> float:
    """Train both for some steps on one batch; the largest difference of any loss term at any step."""
    key, theirs, ours = pair[0], *(copy.deepcopy(model).train() for model in pair[1:])
    freeze_stages(ours.backbone, 3 if "mobilenet" in key[1] else 2)  # what torchvision freezes, unless asked
    images, (their_targets, our_targets) = random_images(1), training_targets(key[0] == "mask_rcnn")
    trained = ([p for p in model.parameters() if p.requires_grad] for model in (theirs, ours))
    optimizers = [torch.optim.SGD(parameters, lr=5e-4, momentum=0.9, weight_decay=1e-4) for parameters in trained]
    worst, totals = 0.0, []
    for step in range(num_steps):
        torch.manual_seed(step)  # both sample anchors and proposals
        expected = theirs(list(images), their_targets)
        torch.manual_seed(step)
        terms = ours.losses(images, our_targets)
        assert {TERMS[name] for name in terms} == set(expected)
        worst = max(worst, *(abs(float(terms[name].detach() - expected[TERMS[name]].detach())) for name in terms))
        for optimizer, losses in zip(optimizers, (expected, terms), strict=True):
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
        totals.append(sum(float(term.detach()) for term in terms.values()))
    assert abs(totals[-1] - totals[0]) > 0.01 * totals[0]  # the steps moved something
    return worst


@pytest.mark.parametrize("num_steps", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_the_same_losses(pair: Pair, num_steps: int) -> None:
    if num_steps == 3 and pair[0] not in {LIGHT, ("mask_rcnn", "resnet50_fpn")}:
        pytest.skip("the slow test has all five")
    assert largest_difference(pair, num_steps) < 1e-4
