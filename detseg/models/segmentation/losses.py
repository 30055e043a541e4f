"""Losses of semantic segmentation: cross-entropy, focal (Lin et al. 2017), Dice (Milletari et al. 2016) and Tversky
(Salehi et al. 2017), weighted and summed.  Pixels to ignore count in none.

Letters: B images, C classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import LossTerms
from detseg.ops.processes import num_processes, total_over_processes
from detseg.structures import IGNORE_LABEL

_TINY = 1e-6
"""Keeps roots and quotients of next to nothing, and their gradients, finite."""


class SegmentationLoss(nn.Module):
    """The weighted terms of the loss of a batch; a term of weight 0 is not computed.

    Args:
        num_classes: C.
        cross_entropy: weight of the cross-entropy.
        label_smoothing: fraction of its target that is spread over all classes.
        focal: weight of the focal loss.
        gamma: its exponent of one minus the probability of the right class; 0: cross-entropy.
        dice: weight of one minus the Dice overlap.
        tversky: weight of one minus the Tversky overlap.
        alpha: what a false positive counts in it.
        beta: what a false negative counts in it.
        class_weights: C weights of the pixels of each class in cross-entropy and focal loss; None: all 1.
        excluded_classes: labels that are not in the mean over the classes of Dice and Tversky.

    Raises:
        ValueError: no term has a weight, or numbers that do not fit the classes.
    """

    table: Tensor
    averaged: Tensor

    def __init__(
        self,
        num_classes: int,
        cross_entropy: float = 1.0,
        label_smoothing: float = 0.0,
        focal: float = 0.0,
        gamma: float = 2.0,
        dice: float = 0.0,
        tversky: float = 0.0,
        alpha: float = 0.3,
        beta: float = 0.7,
        class_weights: Sequence[float] | None = None,
        excluded_classes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not any((cross_entropy, focal, dice, tversky)):
            raise ValueError("the weights of cross_entropy, focal, dice and tversky are all 0; set one of them")
        if class_weights is not None and (len(class_weights) != num_classes or not any(class_weights)):
            raise ValueError(f"class_weights: expected {num_classes}, not all 0, got {list(class_weights)}")
        if not all(0 <= label < num_classes for label in excluded_classes) or len(set(excluded_classes)) >= num_classes:
            raise ValueError(
                f"excluded_classes: expected some of the labels 0 to {num_classes - 1}, got {list(excluded_classes)}"
            )
        if tversky and not alpha + beta:
            raise ValueError("tversky: alpha and beta are both 0, so that no error would count")
        self.num_classes = num_classes
        self.cross_entropy, self.label_smoothing = cross_entropy, label_smoothing
        self.focal, self.gamma = focal, gamma
        self.dice, self.tversky, self.alpha, self.beta = dice, tversky, alpha, beta
        self.weighted = class_weights is not None
        # Weight of each value of a map.  Both buffers belong to the settings: a checkpoint need not hold them.
        table = torch.zeros(IGNORE_LABEL + 1)
        table[:num_classes] = torch.tensor(class_weights or [1.0] * num_classes)
        self.register_buffer("table", table, persistent=False)
        averaged = torch.tensor([label not in excluded_classes for label in range(num_classes)])
        self.register_buffer("averaged", averaged, persistent=False)

    def forward(self, logits: Tensor, semantic: Tensor) -> LossTerms:
        """The terms by name, times their weights; all 0, with gradients of 0, where no pixel counts.

        Args:
            logits: (B, C, H, W) float.
            semantic: (B, H, W) uint8 labels, ``IGNORE_LABEL`` where none counts.
        """
        terms: LossTerms = {}
        if self.cross_entropy or self.focal:
            target = semantic.long()  # (B, H, W)
            total_weight = total_over_processes(self.table[target].sum(), self.training)
            total_weight = torch.where(total_weight > 0, total_weight, 1) / num_processes(self.training)
            if self.cross_entropy:
                terms["cross_entropy"] = self.cross_entropy * self._cross_entropy(logits, target) / total_weight
            if self.focal:
                terms["focal"] = self.focal * self._focal(logits, target) / total_weight
        if self.dice or self.tversky:
            hit, predicted, true = total_over_processes(torch.stack(overlap_sums(logits, semantic)), self.training)
            if self.dice:
                terms["dice"] = self.dice * self._overlap_loss(hit, predicted, true, 0.5, 0.5)
            if self.tversky:
                terms["tversky"] = self.tversky * self._overlap_loss(hit, predicted, true, self.alpha, self.beta)
        return terms

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            logits,
            target,
            weight=self.table[: self.num_classes] if self.weighted else None,
            ignore_index=IGNORE_LABEL,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def _focal(self, logits: Tensor, target: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, target, ignore_index=IGNORE_LABEL, reduction="none")  # (B, H, W)
        # 1 - p = 1 - exp(-x) without cancellation; at 0 a root of it has no slope.
        error = (-torch.expm1(-entropy)).clamp(min=_TINY)
        return (error**self.gamma * entropy * self.table[target]).sum()

    def _overlap_loss(self, hit: Tensor, predicted: Tensor, true: Tensor, alpha: float, beta: float) -> Tensor:
        """One minus the Tversky index, averaged over the classes that occur; so no denominator is 0, and no smoothing
        constant is needed, which would draw rare classes towards nothing."""
        errors = alpha * (predicted - hit) + beta * (true - hit)  # (C,)
        loss = 1 - hit / (hit + errors).clamp(min=_TINY)
        averaged = self.averaged & (true > 0)
        return torch.where(averaged, loss, 0).sum() / averaged.sum().clamp(min=1)


def overlap_sums(logits: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of which overlaps of probabilities with labels consist, over all pixels of a batch that count.

    Args:
        logits: (B, C, H, W) float.
        semantic: (B, H, W) uint8 labels.

    Returns:
        For each class, (C,) float: the probability on its own pixels, on all pixels, and the number of its pixels.
    """
    probabilities = logits.softmax(dim=1)  # (B, C, H, W)
    semantic = semantic[:, None]  # (B, 1, H, W)
    labels = torch.arange(logits.shape[1], dtype=torch.uint8, device=logits.device)
    is_own = semantic == labels[:, None, None]  # (B, C, H, W) in bytes, not in int64
    over_pixels = (0, 2, 3)
    hit = torch.where(is_own, probabilities, 0).sum(over_pixels)
    predicted = torch.where(semantic != IGNORE_LABEL, probabilities, 0).sum(over_pixels)
    return hit, predicted, is_own.sum(over_pixels).to(hit.dtype)
