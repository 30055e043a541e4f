"""From raw maps to detections, without decoding what cannot be among them.

A prior whose best class score is below the threshold has no candidate: of thousands a few hundred are decoded.  And
where nearly all have one, only the best are: whether a candidate is kept depends on better ones alone, so that enough
kept ones of the upper part of the ranking are the answer.  Both are exact; nothing is dropped that could have been
found.

Letters: B images, A priors, P of them that are decoded, C classes, N candidates (a prior and one of its classes).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detseg.models.yolo.scheme import Chosen, Scheme
from detseg.ops.boxes import clip_boxes
from detseg.ops.nms import classwise_nms
from detseg.structures import DetectorOutput

_PRIORS_A_DETECTION = 4
"""Priors that are decoded first, at most, for each detection that is wanted: some overlap, so it takes a few."""

_MORE = 8
"""How many times as many are decoded for images where these do not give enough detections."""

_ROUNDING = 1e-6
"""A prior's best score and the score of its best class are computed apart, and differ by less than this share."""

_TINIEST = 1e-30
"""... or by less than this, where numbers are too small for a share of them to be a number."""


class Wanted(NamedTuple):
    """Which candidates are detections.

    Attributes:
        score_threshold: those with a lower score are dropped.
        nms_iou: overlap above which the worse of two of a class is dropped.
        max_detections: the best so many of an image are kept.
    """

    score_threshold: float
    nms_iou: float
    max_detections: int


@torch.no_grad()
def best_detections(
    scheme: Scheme, maps: list[Tensor], hw: tuple[int, int], wanted: Wanted, num_priors: int | None = None
) -> list[DetectorOutput]:
    """The detections of each of B images, best first; a prior may speak for several classes.

    Args:
        scheme: what the maps mean.
        maps: (B, K, H / s, W / s) float32 raw maps, one a stride.
        hw: height and width of the images, pixels; boxes are clipped to them.
        wanted: which candidates are detections.
        num_priors: how many of an image are decoded at most, if they give enough; None: by ``max_detections``.
    """
    num_priors = num_priors or _PRIORS_A_DETECTION * wanted.max_detections
    # What is no number may hide a score; it is looked at.
    best = scheme.best_scores(maps).nan_to_num(nan=1.0)
    floor: float | Tensor = wanted.score_threshold
    chosen = _at_least(floor, best)
    if len(chosen.prior) > num_priors and int(torch.bincount(chosen.image).max()) > num_priors:
        floor = best.kthvalue(best.shape[1] - num_priors + 1, dim=1, keepdim=True).values
        floor = floor.clamp(min=wanted.score_threshold)  # (B, 1)
        chosen = _at_least(floor, best)
    boxes, scores = scheme.decode(maps, chosen)  # (P, 4), (P, C)
    boxes = clip_boxes(boxes, hw)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    high = scores >= (floor[chosen.image] if isinstance(floor, Tensor) else floor)
    row, label = torch.nonzero(high & has_area, as_tuple=True)
    # Of the batch, image after image.
    sizes = torch.bincount(chosen.image[row], minlength=len(best)).tolist()
    candidates = zip(
        torch.split(boxes[row], sizes),
        torch.split(scores[row, label], sizes),
        torch.split(label, sizes),
        strict=True,
    )
    found = [_suppressed(*columns, wanted=wanted) for columns in candidates]
    if isinstance(floor, Tensor):
        raised = (floor > floor.new_tensor(wanted.score_threshold)).tolist()
        short = [i for i, (above,) in enumerate(raised) if above and len(found[i]) < wanted.max_detections]
        again = best_detections(scheme, [raw[short] for raw in maps], hw, wanted, _MORE * num_priors) if short else []
        for i, detections in zip(short, again, strict=True):
            found[i] = detections
    return found


def _at_least(floor: float | Tensor, best: Tensor) -> Chosen:
    """The priors that may have a score of at least ``floor``, a number or (B, 1), by their (B, A) best scores."""
    return Chosen(*torch.nonzero(best >= floor * (1 - _ROUNDING) - _TINIEST, as_tuple=True))


def _suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, *, wanted: Wanted) -> DetectorOutput:
    """The detections among the candidates of one image."""
    keep = classwise_nms(boxes, scores, labels, wanted.nms_iou, wanted.max_detections)
    return DetectorOutput(boxes[keep], scores[keep], labels[keep])
