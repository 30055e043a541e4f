"""Overlaps of axis-aligned boxes: (..., 4) float tensors, xyxy, in any unit.

``pairwise_iou`` compares all pairs of boxes, ``matched_*`` compare row with row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7  # smallest divisor, so that quotients of boxes without area are finite


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy → (...) area, 0 for swapped corners."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(..., N, 4) and (..., M, 4) xyxy → (..., N, M) intersection over union in [0, 1]."""
    return matched_iou(boxes1[..., :, None, :], boxes2[..., None, :, :])


def matched_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(..., 4) and (..., 4) xyxy → (...) intersection over union of each pair of rows, in [0, 1]."""
    inter, union = _intersection_and_union(boxes1, boxes2)
    return inter / union.clamp(min=EPSILON)


def matched_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of each pair of rows, in (-1, 1] (Rezatofighi et al. 2019, eq. 1)."""
    inter, union = _intersection_and_union(boxes1, boxes2)
    hull = _hull_sides(boxes1, boxes2).prod(dim=-1)
    return inter / union.clamp(min=EPSILON) - (hull - union) / hull.clamp(min=EPSILON)


def matched_ciou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Complete IoU of each pair of rows (Zheng et al. 2020, eqs. 8-11): IoU minus the distance of the centres minus
    the difference of the aspect ratios. The trade-off weight has no gradient, as in the paper."""
    iou = matched_iou(boxes1, boxes2)
    centre1 = (boxes1[..., :2] + boxes1[..., 2:]) / 2
    centre2 = (boxes2[..., :2] + boxes2[..., 2:]) / 2
    distance = ((centre1 - centre2) ** 2).sum(dim=-1)
    diagonal = (_hull_sides(boxes1, boxes2) ** 2).sum(dim=-1)
    side1 = (boxes1[..., 2:] - boxes1[..., :2]).clamp(min=EPSILON)
    side2 = (boxes2[..., 2:] - boxes2[..., :2]).clamp(min=EPSILON)
    angle = torch.atan(side1[..., 0] / side1[..., 1]) - torch.atan(side2[..., 0] / side2[..., 1])
    aspect = (4 / math.pi**2) * angle**2
    with torch.no_grad():
        trade_off = aspect / (1 - iou + aspect + EPSILON)
    return iou - distance / diagonal.clamp(min=EPSILON) - trade_off * aspect


def _intersection_and_union(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    high = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    sides = (high - low).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    return inter, box_area(boxes1) + box_area(boxes2) - inter


def _hull_sides(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    low = torch.minimum(boxes1[..., :2], boxes2[..., :2])
    high = torch.maximum(boxes1[..., 2:], boxes2[..., 2:])
    return (high - low).clamp(min=0)
