"""The anchor scheme of YOLOv2 and YOLOv3: boxes are refined from anchors, each with an objectness and its own classes.

Redmon, Farhadi, "YOLO9000: Better, Faster, Stronger", 2017, section 2; "YOLOv3: An Incremental Improvement", 2018,
section 2.  Letters: B images, L levels, K anchors a level, A priors (level by level, row by row, the anchors of a cell
side by side), C classes, P positives.

Where this differs from the papers:
- The boxes are learned by complete IoU (Zheng et al. 2020) of the decoded box instead of squared errors of
  tx, ty, tw, th: it is what AP measures, and weighs small and large objects alike.
- The target of objectness is the current IoU, as in YOLO9000; YOLOv3 has 1.  So well placed boxes rank first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.models.interface import LossTerms
from detseg.models.yolo.assign_anchor import AnchorAssigner
from detseg.models.yolo.priors import outputs_at
from detseg.models.yolo.scheme import Candidates, Chosen
from detseg.ops.boxes import cxcywh_to_xyxy, matched_ciou, matched_iou
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

INITIAL_OBJECTNESS = 0.01
"""Objectness of an untrained network: nearly all priors are empty, and at 0.5 their loss would drown the rest
(Lin et al. 2017, "Focal Loss", section 3.3)."""

MAX_LOG_SCALE = 6.0
"""tw and th are clamped to ± this, so a box is at most 400 times its anchor: the exponential of a wild output would
overflow to infinity and turn the losses into NaN."""


class AnchorScheme(nn.Module):
    """Losses and decoding of YOLOv2 and YOLOv3.

    A raw map holds K times (tx, ty, tw, th, objectness), then K times C classes.  The anchors are a buffer, so that
    they travel in the state dict.

    Args:
        num_classes: C.
        strides: L strides in input pixels, finest first.
        anchors: L lists of K (width, height) in input pixels.
        ignore_iou: a prior whose predicted box overlaps an object by more than this, and that is not responsible, is
            not a negative.
        box_weight: weight of the box loss.
        objectness_weight: weight of the objectness loss.
        class_weight: weight of the class loss.

    Raises:
        ValueError: the anchors do not fit the strides, or a side of one is not positive.
    """

    anchors: Tensor

    def __init__(
        self,
        num_classes: int,
        strides: tuple[int, ...],
        anchors: Sequence[Sequence[tuple[float, float]]],
        ignore_iou: float = 0.5,
        box_weight: float = 5.0,
        objectness_weight: float = 1.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        counts = [len(level) for level in anchors]
        if len(counts) != len(strides) or len(set(counts)) != 1 or counts[0] == 0:
            raise ValueError(f"anchors: expected as many for each of the {len(strides)} strides, got {counts}")
        if any(not (math.isfinite(side) and side > 0) for level in anchors for size in level for side in size):
            raise ValueError(f"anchors: expected positive widths and heights in pixels, got {anchors}")
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32))  # (L, K, 2)
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.anchors_per_level = counts[0]
        self.box_outputs = 5 * counts[0]
        self.class_outputs = num_classes * counts[0]
        self.box_weight = box_weight
        self.objectness_weight = objectness_weight
        self.class_weight = class_weight
        self.assigner = AnchorAssigner(self.strides, ignore_iou)

    def initial_bias(self, stride: int) -> Tensor:
        """(5 K + K C,) biases: boxes start as the anchors, with little objectness, and classes at 1 / (C + 1)."""
        box = torch.zeros(self.anchors_per_level, 5)
        box[:, 4] = math.log(INITIAL_OBJECTNESS / (1 - INITIAL_OBJECTNESS))
        return torch.cat([box.flatten(), torch.full((self.class_outputs,), -math.log(self.num_classes))])

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """Box, objectness and class loss, each summed over the batch and divided by the number of positives.

        Where there are fewer positives than images, by the number of images, so that a batch of empty images does not
        take a huge step.

        Args:
            maps: L raw maps, (B, 5 K + K C, H / s, W / s) float32.
            targets: B targets in input pixels.

        Returns:
            ``box`` (1 - complete IoU) and ``class`` (binary cross-entropy summed over C, multi-label as in YOLOv3) of
            the positives, ``objectness`` (binary cross-entropy) of all priors not left alone; all weighted.
        """
        outputs, logits = self._flatten(maps)
        boxes = self._boxes(outputs, maps)
        found = self.assigner(targets, self.anchors, [(m.shape[2], m.shape[3]) for m in maps], boxes.detach())
        if found.num_displaced:
            # The text is constant, so that Python shows it once.
            warnings.warn(
                "more objects have their centre in one place than there are anchors; those that fit no free anchor are"
                " not learned; more anchors a level or a finer stride learns them",
                stacklevel=2,
            )
        positive = boxes[found.image, found.prior]  # (P, 4)
        objectness = torch.zeros_like(outputs[..., 4])
        objectness[found.image, found.prior] = matched_iou(positive.detach(), found.boxes)
        object_loss = F.binary_cross_entropy_with_logits(outputs[..., 4], objectness, reduction="none")
        one_hot = F.one_hot(found.labels, self.num_classes).to(logits.dtype)
        class_loss = F.binary_cross_entropy_with_logits(logits[found.image, found.prior], one_hot, reduction="sum")
        positives = shared_normaliser(len(found.labels), self.training, logits)
        normaliser = torch.maximum(positives, shared_normaliser(len(targets), self.training, logits))
        return {
            "box": self.box_weight * (1 - matched_ciou(positive, found.boxes)).sum() / normaliser,
            "objectness": self.objectness_weight * (object_loss * ~found.left_alone).sum() / normaliser,
            "class": self.class_weight * class_loss / normaliser,
        }

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """L raw maps, (B, 5 K + K C, H / s, W / s) float32 → (B, A) the best class score of each prior."""
        objectness, best = [], []
        for raw in maps:
            classes = torch.split(raw[:, self.box_outputs :], self.num_classes, dim=1)
            by_anchor = torch.stack([logits.amax(dim=1) for logits in classes], dim=-1)  # (B, H, W, K)
            best.append(by_anchor.flatten(1))
            objectness.append(raw[:, 4 : self.box_outputs : 5].permute(0, 2, 3, 1).flatten(1))
        return torch.cat(objectness, dim=1).sigmoid() * torch.cat(best, dim=1).sigmoid()

    def decode(self, maps: list[Tensor], chosen: Chosen | None = None) -> Candidates:
        """L raw maps, (B, 5 K + K C, H / s, W / s) float32 → B times A candidates, or P; scores are objectness ×
        class."""
        if chosen is None:
            outputs, logits = self._flatten(maps)
            boxes = self._boxes(outputs, maps)
        else:
            outputs, logits = self._outputs_of(chosen, maps)
            boxes = self._boxes(outputs, maps, chosen.prior)
        return Candidates(boxes, outputs[..., 4:].sigmoid() * logits.sigmoid())

    def _outputs_of(self, chosen: Chosen, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(P, 5) and (P, C), as ``_flatten`` gives them for all."""
        anchor = chosen.prior % self.anchors_per_level
        rows = outputs_at(maps, chosen.image, chosen.prior // self.anchors_per_level)
        row = torch.arange(len(rows), device=rows.device)
        outputs = rows[:, : self.box_outputs].reshape(len(rows), self.anchors_per_level, 5)
        logits = rows[:, self.box_outputs :].reshape(len(rows), self.anchors_per_level, self.num_classes)
        return outputs[row, anchor], logits[row, anchor]

    def _flatten(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """L raw maps → (B, A, 5) tx, ty, tw, th, objectness and (B, A, C) classes, all logits."""
        outputs, logits = [], []
        for raw in maps:
            raw = raw.permute(0, 2, 3, 1)
            outputs.append(raw[..., : self.box_outputs].reshape(len(raw), -1, 5))
            logits.append(raw[..., self.box_outputs :].reshape(len(raw), -1, self.num_classes))
        return torch.cat(outputs, dim=1), torch.cat(logits, dim=1)

    def _boxes(self, outputs: Tensor, maps: list[Tensor], prior: Tensor | None = None) -> Tensor:
        """(B, A, 5) outputs → (B, A, 4) xyxy in input pixels (YOLOv3, section 2.1); or (P, 5) of P priors."""
        corners, strides, sizes = [], [], []
        for raw, stride, anchors in zip(maps, self.strides, self.anchors, strict=True):
            rows, columns = raw.shape[2:]
            y, x = torch.meshgrid(
                torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
            )
            corner = torch.stack([x, y], dim=-1).view(-1, 1, 2).expand(-1, self.anchors_per_level, 2)
            corners.append(corner.reshape(-1, 2))
            strides.append(torch.full((len(corners[-1]), 1), stride, device=raw.device))
            sizes.append(anchors.repeat(rows * columns, 1))
        corner, cell, size = (torch.cat(column) for column in (corners, strides, sizes))
        if prior is not None:
            corner, cell, size = corner[prior], cell[prior], size[prior]
        centre = (outputs[..., :2].sigmoid() + corner) * cell
        sides = size * outputs[..., 2:4].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
        return cxcywh_to_xyxy(torch.cat([centre, sides], dim=-1))
