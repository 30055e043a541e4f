"""A small two-stage detector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from detseg.models.backbones.torchvision import TorchvisionFPN
from detseg.models.layers import Normalize
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.regions import BoxLoss
from detseg.models.rcnn.roi_heads import RoIHeads, TwoLayerHead
from detseg.models.rcnn.rpn import RegionProposalNetwork

CHANNELS = 16
ANCHOR_SIZES = ((12.0,), (24.0,), (48.0,), (80.0,))
RATIOS = (0.5, 1.0, 2.0)


class Body(nn.Module):
    """Maps of strides 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.layer1 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.layer2 = nn.Conv2d(12, 16, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.stem(images).relu()
        middle = self.layer1(fine).relu()
        return [fine, middle, self.layer2(middle).relu()]


def small_detector(
    num_outputs: int,
    masks: bool,
    box_loss: BoxLoss | None = None,
    output_of_label: tuple[int, ...] | None = None,
    **regions: Any,
) -> RCNNDetector:
    """The detector; ``regions`` are further arguments of the second stage."""
    levels = ["0", "1", "2"]
    parts: dict[str, Any] = {
        "box_pool": MultiScaleRoIAlign(levels, 4, 2),
        "box_head": TwoLayerHead(CHANNELS * 16, 32),
        "box_predictor": FastRCNNPredictor(32, num_outputs),
    }
    if masks:
        parts |= {
            "mask_pool": MultiScaleRoIAlign(levels, 14, 2),
            "mask_head": MaskRCNNHeads(CHANNELS, (CHANNELS,), 1),
            "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, num_outputs),
        }
    limits: dict[str, Any] = {"batch_size_per_image": 64, "pre_nms_top_n": (60, 40), "post_nms_top_n": (80, 30)}
    rpn = RegionProposalNetwork(CHANNELS, ANCHOR_SIZES, RATIOS, box_loss=box_loss, **limits)
    settings = {"batch_size_per_image": 32, "score_threshold": 0.1, "max_detections": 25, "box_loss": box_loss}
    neck = TorchvisionFPN((8, 12, 16), (4, 8, 16), channels=CHANNELS)
    heads = RoIHeads(**parts, **(settings | regions))
    return RCNNDetector(Body(), neck, rpn, heads, Normalize((0.0,) * 3, (1.0,) * 3), output_of_label)


def spread_outputs(model: nn.Module, seed: int = 0) -> None:
    """Weights under which outputs tell places apart: fresh ones score all places almost alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("cls_logits.weight", "cls_score.weight", "mask_fcn_logits.weight")):
                weight.normal_(std=0.5, generator=generator)
            elif name.endswith("bbox_pred.weight"):
                weight.normal_(std=0.05, generator=generator)
