"""A small two-stage detector, as ours and as torchvision's, of the same modules."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detseg.models.layers import Normalize
from detseg.models.rcnn.boxes import BoxLoss
from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.roi_heads import RoIHeads
from detseg.models.rcnn.rpn import RegionProposalNetwork

CHANNELS = 16
ANCHOR_SIZES = ((12.0,), (24.0,), (48.0,), (80.0,))
RATIOS = (0.5, 1.0, 2.0)
NUM_CANDIDATES = {"train": (60, 80), "predict": (40, 30)}
"""Of each level before NMS, of each image after it."""


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


class Pyramid(FeaturePyramidNetwork):
    """A neck with torchvision's names."""

    strides = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__([8, 12, 16], CHANNELS)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        named = OrderedDict((str(i), feature) for i, feature in enumerate(features))
        return list(super().forward(named).values())


class TorchvisionBackbone(nn.Module):
    """Body and pyramid as torchvision wants them."""

    out_channels = CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.fpn = FeaturePyramidNetwork([8, 12, 16], CHANNELS, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(OrderedDict((str(i), feature) for i, feature in enumerate(self.body(images))))


def region_parts(num_outputs: int, masks: bool) -> dict[str, nn.Module]:
    """What the second stage is made of, by torchvision's names of the arguments."""
    levels = ["0", "1", "2"]
    parts = {
        "box_roi_pool": MultiScaleRoIAlign(levels, 4, 2),
        "box_head": TwoMLPHead(CHANNELS * 16, 32),
        "box_predictor": FastRCNNPredictor(32, num_outputs),
    }
    if masks:
        parts |= {
            "mask_roi_pool": MultiScaleRoIAlign(levels, 14, 2),
            "mask_head": MaskRCNNHeads(CHANNELS, (CHANNELS,), 1),
            "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, num_outputs),
        }
    return parts


def torchvision_detector(num_outputs: int, masks: bool, side: int) -> Any:
    """Torchvision's detector of square images, which it neither resizes nor normalises."""
    model = (MaskRCNN if masks else FasterRCNN)(
        TorchvisionBackbone(),
        min_size=side,
        max_size=side,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(ANCHOR_SIZES, (RATIOS,) * len(ANCHOR_SIZES)),
        rpn_pre_nms_top_n_train=NUM_CANDIDATES["train"][0],
        rpn_post_nms_top_n_train=NUM_CANDIDATES["train"][1],
        rpn_pre_nms_top_n_test=NUM_CANDIDATES["predict"][0],
        rpn_post_nms_top_n_test=NUM_CANDIDATES["predict"][1],
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        box_score_thresh=0.1,
        box_detections_per_img=25,
        **region_parts(num_outputs, masks),
    )
    model.transform.torch_choice = lambda sizes: sizes[0]  # its own takes a random number for every image
    return model


def small_detector(
    num_outputs: int,
    masks: bool,
    box_loss: BoxLoss | None = None,
    output_of_label: tuple[int, ...] | None = None,
    **regions: Any,
) -> RCNNDetector:
    """The same detector of ours; ``regions`` are further arguments of the second stage."""
    parts = {name.replace("roi_", ""): part for name, part in region_parts(num_outputs, masks).items()}
    rpn = RegionProposalNetwork(
        CHANNELS,
        ANCHOR_SIZES,
        RATIOS,
        batch_size_per_image=64,
        pre_nms_top_n=(NUM_CANDIDATES["train"][0], NUM_CANDIDATES["predict"][0]),
        post_nms_top_n=(NUM_CANDIDATES["train"][1], NUM_CANDIDATES["predict"][1]),
        box_loss=box_loss,
    )
    settings = {"batch_size_per_image": 32, "score_threshold": 0.1, "max_detections": 25, "box_loss": box_loss}
    heads = RoIHeads(**parts, **(settings | regions))
    return RCNNDetector(Body(), Pyramid(), rpn, heads, Normalize((0.0,) * 3, (1.0,) * 3), output_of_label)


def copy_weights(source: nn.Module, target: RCNNDetector) -> None:
    """Torchvision's weights into ours, by name; nothing may be left over on either side."""
    names = {"backbone.body.": "backbone.", "backbone.fpn.": "neck."}
    weights = {}
    for key, value in source.state_dict().items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        weights[names.get(prefix, "") + key.removeprefix(prefix)] = value.clone()
    missing, unexpected = target.load_state_dict(weights, strict=False)
    assert set(missing) <= {"normalize.mean", "normalize.std"}
    assert not unexpected


def spread_outputs(model: nn.Module, seed: int = 0) -> None:
    """Weights under which outputs tell places apart: fresh ones score all places almost alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("cls_logits.weight", "cls_score.weight", "mask_fcn_logits.weight")):
                weight.normal_(std=0.5, generator=generator)
            elif name.endswith("bbox_pred.weight"):
                weight.normal_(std=0.05, generator=generator)
