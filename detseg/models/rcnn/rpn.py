"""The first stage: the region proposal network (Ren et al. 2015, sec. 3) on a pyramid (Lin et al. 2017, sec. 4.1).

Letters: B images, A anchors of a cell, R anchors of an image, levels one after the other, K proposals, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from detseg.models.interface import LossTerms
from detseg.models.rcnn.regions import BoxCoder, BoxLoss, RegionAssigner, RegionSampler
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

_SMALLEST_SIDE = 1e-3
"""Shorter proposals are dropped, pixels: what lies outside of the image has no side left after clipping."""


@dataclass(frozen=True, eq=False)
class AnchorOutputs:
    """What the network predicts for each anchor."""

    anchors: Tensor  # (R, 4) float32 xyxy, the same for all images; may reach beyond the images
    logits: Tensor  # (B, R) float32, whether there is an object
    deltas: Tensor  # (B, R, 4) float32, the object's differences from the anchor
    level_sizes: list[int]  # anchors of each level; they sum to R


class RegionProposalNetwork(nn.Module):
    """Predicts at every anchor whether there is an object, of whatever class, and where.

    Args:
        in_channels: channels of every feature map.
        anchor_sizes: sides of the square anchors of each level in input pixels, finest level first.
        aspect_ratios: heights over widths of the anchors.
        convolutions: 3×3 convolutions of the head.
        positive_iou, negative_iou: see ``RegionAssigner``.
        batch_size_per_image, positive_fraction: see ``RegionSampler``.
        nms_iou: of two proposals of a level that overlap by more than this, the worse one is dropped.
        pre_nms_top_n: best anchors of each level that are decoded, in training and in prediction.
        post_nms_top_n: most proposals of an image after NMS, in training and in prediction.
        score_threshold: proposals with a lower score are dropped.
        box_loss: the loss of the boxes.

    Raises:
        ValueError: no aspect ratio, or levels without sizes or with different numbers of them.
    """

    def __init__(
        self,
        in_channels: int,
        anchor_sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[float],
        *,
        convolutions: int = 1,
        positive_iou: float = 0.7,
        negative_iou: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        nms_iou: float = 0.7,
        pre_nms_top_n: tuple[int, int] = (2000, 1000),
        post_nms_top_n: tuple[int, int] = (2000, 1000),
        score_threshold: float = 0.0,
        box_loss: BoxLoss | None = None,
    ) -> None:
        super().__init__()
        sizes = tuple(tuple(level) for level in anchor_sizes)
        numbers = {len(level) for level in sizes}
        if len(numbers) != 1 or 0 in numbers:  # one head serves all levels
            raise ValueError(f"anchor_sizes: expected one or more, as many for each level, got {list(sizes)}")
        if not aspect_ratios:
            raise ValueError("aspect_ratios: expected one or more, got none")
        self.anchor_generator = AnchorGenerator(sizes, (tuple(aspect_ratios),) * len(sizes))
        self.anchors_per_cell = len(sizes[0]) * len(aspect_ratios)
        self.head = RPNHead(in_channels, self.anchors_per_cell, convolutions)
        self.assigner = RegionAssigner(positive_iou, negative_iou, allow_low_quality_matches=True)
        self.sampler = RegionSampler(batch_size_per_image, positive_fraction)
        self.coder = BoxCoder()
        self.nms_iou = nms_iou
        self.pre_nms_top_n = pre_nms_top_n
        self.post_nms_top_n = post_nms_top_n
        self.score_threshold = score_threshold
        self.box_loss = box_loss or BoxLoss()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """(B, C, h, w) maps → (B, 5A, h, w) raw maps: A objectness logits, then 4 differences for each anchor."""
        logits, deltas = self.head(features)
        return [torch.cat(level, dim=1) for level in zip(logits, deltas, strict=True)]

    def read(self, maps: list[Tensor], hw: tuple[int, int]) -> AnchorOutputs:
        """Raw maps, finest first, of images of ``hw`` pixels → float32 outputs anchor by anchor. ValueError: not one
        map for each level of anchors."""
        if len(maps) != len(self.anchor_generator.sizes):
            num_levels = len(self.anchor_generator.sizes)
            raise ValueError(f"expected {num_levels} levels, one for each of the anchors' sizes, got {len(maps)}")
        maps = [raw.float() for raw in maps]  # anchors take the maps' precision
        images = ImageList(maps[0].new_empty(0, 3, *hw), [hw])
        (anchors,) = self.anchor_generator(images, maps)
        num, num_images = self.anchors_per_cell, len(maps[0])
        logits = [raw[:, :num].permute(0, 2, 3, 1).flatten(1) for raw in maps]
        deltas = [raw[:, num:].reshape(num_images, num, 4, *raw.shape[2:]).permute(0, 3, 4, 1, 2) for raw in maps]
        return AnchorOutputs(
            anchors,
            torch.cat(logits, dim=1),
            torch.cat([level.reshape(num_images, -1, 4) for level in deltas], dim=1),
            [level.shape[1] for level in logits],
        )

    def losses(self, outputs: AnchorOutputs, targets: list[BoxTargets]) -> LossTerms:
        """``objectness`` and ``proposal_box`` of a batch."""
        num_anchors = len(outputs.anchors)
        sampled, positives, boxes = [], [], []
        for i, target in enumerate(targets):
            assignment = self.assigner.assign(outputs.anchors, target)
            chosen = self.sampler(assignment, target.draw_seed)
            positive = chosen[assignment.positive[chosen]]
            sampled.append(chosen + i * num_anchors)
            positives.append(positive + i * num_anchors)
            boxes.append(target.boxes[assignment.objects[positive]])
        at, positive_at = torch.cat(sampled), torch.cat(positives)

        is_object = torch.zeros(outputs.logits.numel(), device=at.device).index_fill_(0, positive_at, 1.0)
        entropy = F.binary_cross_entropy_with_logits(outputs.logits.flatten()[at], is_object[at], reduction="sum")
        deltas = outputs.deltas.flatten(0, 1)[positive_at]  # P 4
        anchors = outputs.anchors[positive_at % num_anchors]
        normaliser = shared_normaliser(len(at), self.training, entropy)
        return {
            "objectness": entropy / normaliser,
            "proposal_box": self.box_loss(deltas, anchors, torch.cat(boxes), self.coder, normaliser),
        }

    @torch.no_grad()
    def propose(self, outputs: AnchorOutputs, hw: tuple[int, int], training: bool) -> list[Tensor]:
        """The proposals of each image, best first: (K, 4) xyxy inside it; as many as for training or for prediction."""
        pre_nms_top_n, post_nms_top_n = (n[0 if training else 1] for n in (self.pre_nms_top_n, self.post_nms_top_n))
        best, levels, start = [], [], 0
        for level, logits in enumerate(torch.split(outputs.logits, outputs.level_sizes, dim=1)):
            top = logits.topk(min(pre_nms_top_n, logits.shape[1]), dim=1).indices
            best.append(top + start)
            levels.append(torch.full((top.shape[1],), level, device=top.device))
            start += logits.shape[1]
        at, level_of = torch.cat(best, dim=1), torch.cat(levels)
        scores = outputs.logits.gather(1, at).sigmoid()
        deltas = outputs.deltas.gather(1, at[..., None].expand(-1, -1, 4))
        boxes = self.coder.decode(deltas, outputs.anchors[at])
        images = zip(boxes, scores, strict=True)
        return [self._suppress(clip_boxes_to_image(own, hw), score, level_of)[:post_nms_top_n] for own, score in images]

    def _suppress(self, boxes: Tensor, scores: Tensor, levels: Tensor) -> Tensor:
        """Boxes, best first, after NMS within each level, as scores of different levels are hardly comparable."""
        keep = remove_small_boxes(boxes, _SMALLEST_SIDE)
        keep = keep[scores[keep] >= self.score_threshold]
        boxes, scores, levels = boxes[keep], scores[keep], levels[keep]
        return boxes[batched_nms(boxes, scores, levels, self.nms_iou)]
