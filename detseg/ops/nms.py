"""Exact class-wise non-maximum suppression; never bounded by a clock or by a number of candidates.

Overlaps are computed in float64, by torchvision's kernel on the CPU whatever device the boxes are on: a few thousand
boxes are there sooner than a GPU has been asked once for each class, and every device keeps the same boxes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torchvision.ops import nms

_LOOKED_AT = 2
"""Candidates that are looked at first for each box that may be kept."""

_MORE = 4
"""How many times as many are looked at where these are not enough."""

_PAIRS_A_CLASS = 25_000
"""N² of N boxes whose comparison in one call of the kernel takes as long as one more call (20 µs)."""


def classwise_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, max_kept: int | None = None
) -> Tensor:
    """Positions of the boxes that remain, best score first.

    Going down the ranking of each class, a box is dropped when it overlaps a kept box of its class by more than
    ``iou_threshold``.  Equal scores keep their input order.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float.
        labels: (N,) int64.
        iou_threshold: in [0, 1].
        max_kept: the best so many of those that remain, over all classes, are enough; None: all are wanted.

    Returns:
        (K,) int64 positions into the input.
    """
    order = scores.argsort(descending=True, stable=True)
    num = len(order)
    # Whether a box is kept depends on better ones alone: what remains of the first so many of the ranking is the
    # beginning of what remains of all.
    looked_at = num if max_kept is None else min(num, _LOOKED_AT * max_kept)
    while True:
        first = order[:looked_at]
        kept = _kept(boxes[first].cpu().double(), labels[first].cpu(), iou_threshold)
        if looked_at == num or (max_kept is not None and len(kept) >= max_kept):
            return order[kept[:max_kept].to(order.device)]
        looked_at = min(num, _MORE * looked_at)


def _kept(boxes: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """(N, 4) float64 boxes, best first, and their labels → ascending positions of those that remain."""
    num = len(boxes)
    if num == 0:
        return labels
    falling = torch.arange(num, 0, -1, dtype=torch.float64)
    if num * num <= _PAIRS_A_CLASS or num * num <= _PAIRS_A_CLASS * len(torch.unique(labels)):
        apart = _moved_apart(boxes, labels)
        if apart is not None:
            return cast(Tensor, nms(apart, falling, iou_threshold))
    by_class = labels.argsort(stable=True)
    sizes = torch.unique_consecutive(labels[by_class], return_counts=True)[1].tolist()
    grouped = boxes[by_class]
    kept, start = [], 0
    for size in sizes:
        kept.append(nms(grouped[start : start + size], falling[start : start + size], iou_threshold) + start)
        start += size
    return by_class[torch.cat(kept)].sort().values


def _moved_apart(boxes: Tensor, labels: Tensor) -> Tensor | None:
    """Boxes moved so that those of different classes cannot meet, or None where that would round a corner: sides and
    overlaps of moved boxes are then the same to the last bit."""
    least, most = boxes.aminmax()
    moves = labels[:, None] * (most - least + 1)
    moved = boxes + moves
    return moved if torch.equal(moved - moves, boxes) else None
