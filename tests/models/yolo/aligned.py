"""The task-aligned assignment of one image as seen from its priors, for tests that think of priors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detseg.models.yolo.scheme import Points, batch_objects
from detseg.models.yolo.task_aligned import TaskAlignedAssigner
from detseg.structures import BoxTargets


class OfPriors(NamedTuple):
    """``target_index`` (A,): position among the counted objects, -1: negative; ``alignment`` (A,); ``ignored`` (A,)."""

    target_index: Tensor
    alignment: Tensor
    ignored: Tensor


def assign_one(
    assigner: TaskAlignedAssigner, scores: Tensor, boxes: Tensor, points: Points, target: BoxTargets
) -> OfPriors:
    """Assign (A, C) class probabilities and (A, 4) boxes of one image."""
    found = assigner(scores.logit()[None], boxes[None], points, batch_objects([target]))
    place = (~target.ignore).cumsum(0) - 1
    target_index = torch.full((len(scores),), -1)
    alignment = torch.zeros(len(scores))
    for row, column in found.positive.nonzero().tolist():
        prior = int(found.prior[row, column])
        assert target_index[prior] == -1, "a prior has two objects"
        target_index[prior] = place[row]
        alignment[prior] = found.weight[row, column]
    assert not found.weight[~found.positive].any()
    return OfPriors(target_index, alignment, found.ignored[0])
