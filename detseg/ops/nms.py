"""Exact class-wise non-maximum suppression; never bounded by a clock or by a number of candidates.

Boxes of different classes are never compared, and no offset is added to them: the usual trick of shifting each class
to its own region rounds the coordinates, and with them the overlaps near the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def classwise_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Positions of the boxes that remain, best score first.

    Going down the ranking of each class, a box is dropped when it overlaps a kept box of its class by more than
    ``iou_threshold``.  Equal scores keep their input order.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float.
        labels: (N,) int64.
        iou_threshold: in [0, 1].

    Returns:
        (K,) int64 positions into the input.
    """
    # Overlaps are rounded to the boxes' precision: so is the limit, or else one equal to it could count as above.
    limit = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    kept = []
    for label in torch.unique(labels).tolist():
        members = torch.nonzero(labels == label).flatten()
        kept.append(members[nms(boxes[members], scores[members], limit)])
    if not kept:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    survivors = torch.cat(kept).sort().values
    return survivors[scores[survivors].argsort(descending=True, stable=True)]
