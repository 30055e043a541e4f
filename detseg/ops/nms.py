"""Exact class-wise non-maximum suppression, without limits on time or candidates.

Overlaps are computed in float64 by torchvision's kernel on the CPU, for boxes on any device: all devices keep the same
boxes, and for a few thousand boxes this is faster than one GPU call for each class.
"""

from __future__ import annotations

from itertools import accumulate
from typing import cast

import torch
from torch import Tensor
from torchvision.ops import nms

_TRIED = 2  # candidates that are tried first, per box that may be kept
_MORE = 4  # factor of their number when they were not enough
_PAIRS_A_CLASS = 25_000  # N² of N boxes whose comparison takes as long as one more call of the kernel


def classwise_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, max_kept: int | None = None
) -> Tensor:
    """(K,) int64 positions of the kept boxes, best score first; equal scores keep their input order.

    In descending order of scores, a box is dropped if its IoU with a kept box of its class exceeds ``iou_threshold``.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float.
        labels: (N,) int64.
        iou_threshold: in [0, 1].
        max_kept: largest number of boxes to return, over all classes; None: all that are kept.
    """
    order = scores.argsort(descending=True, stable=True)
    num = len(order)
    # Whether a box is kept depends only on boxes with higher scores, so a prefix of the ranking suffices if it yields
    # enough of them.
    num_tried = num if max_kept is None else min(num, _TRIED * max_kept)
    while True:
        first = order[:num_tried]
        kept = _kept(boxes[first].cpu().double(), labels[first].cpu(), iou_threshold)
        if num_tried == num or (max_kept is not None and len(kept) >= max_kept):
            return order[kept[:max_kept].to(order.device)]
        num_tried = min(num, _MORE * num_tried)


def _kept(boxes: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """(N, 4) float64 boxes, best first, and their labels → ascending positions of the kept ones."""
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
    parts = torch.split(boxes[by_class], sizes)
    starts = accumulate([0, *sizes[:-1]])
    kept = [nms(part, falling[: len(part)], iou_threshold) + start for part, start in zip(parts, starts, strict=True)]
    return by_class[torch.cat(kept)].sort().values


def _moved_apart(boxes: Tensor, labels: Tensor) -> Tensor | None:
    """Boxes shifted so that those of different classes cannot overlap; None if that would round a corner, and with it
    an overlap."""
    least, most = boxes.aminmax()
    moves = labels[:, None] * (most - least + 1)
    moved = boxes + moves
    return moved if torch.equal(moved - moves, boxes) else None
