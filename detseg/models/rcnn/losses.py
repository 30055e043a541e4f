"""The loss of boxes, for both stages.

Sources: Girshick 2015 ("Fast R-CNN", eq. 3: smooth L1), Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (CIoU).

Letters: P positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.rcnn.coder import BoxCoder
from detseg.ops.boxes import matched_ciou, matched_giou


@dataclass(frozen=True)
class BoxLoss:
    """How far predicted boxes are from their objects.

    Args:
        name: ``smooth_l1`` of the encoded differences, ``giou`` or ``ciou`` of the boxes themselves.
        beta: where smooth L1 turns from square to straight; 1/9 is the sigma of 3 of Ren et al. 2015.
        weight: multiplies the loss.
    """

    name: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    beta: float = 1 / 9
    weight: float = 1.0

    def __call__(
        self, deltas: Tensor, references: Tensor, boxes: Tensor, coder: BoxCoder, normaliser: Tensor
    ) -> Tensor:
        """The weighted loss of the positives, over the number of samples, negatives included, so that every sample
        weighs the same however few of them are positive (torchvision's normalisation).

        Args:
            deltas: (P, 4) float32 differences that the network predicts.
            references: (P, 4) float32 xyxy, the anchors or proposals that they start from.
            boxes: (P, 4) float32 xyxy, the objects.
            coder: what the differences mean.
            normaliser: number of samples, positives and negatives, at least 1 (``shared_normaliser``).

        Returns:
            a scalar; 0 without positives.
        """
        if self.name == "smooth_l1":
            target = coder.encode(boxes, references)
            loss = F.smooth_l1_loss(deltas, target, beta=self.beta, reduction="sum")
        else:
            overlap = matched_giou if self.name == "giou" else matched_ciou
            loss = (1 - overlap(coder.decode(deltas, references), boxes)).sum()
        return self.weight * loss / normaliser


def zero_loss(*modules: nn.Module, like: Tensor) -> Tensor:
    """A scalar 0 that gives every parameter of some modules a gradient of 0.

    For modules that a batch has no work for: distributed training waits for all gradients, and batch normalisation must
    not see an empty batch.
    """
    zero = like.sum() * 0
    for module in modules:
        for parameter in module.parameters():
            zero = zero + parameter.sum() * 0
    return zero
