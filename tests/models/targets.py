"""Targets of one image, written as rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detseg.structures import BoxTargets

Rows = Sequence[Sequence[float]]


def box_targets(rows: Rows, labels: Sequence[int] = (), ignore: Sequence[bool] = ()) -> BoxTargets:
    """Rows of x1, y1, x2, y2, where wanted with label and ignore behind them; these are 0 and False by default."""
    return BoxTargets(
        torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels or [int((*row, 0)[4]) for row in rows], dtype=torch.int64),
        torch.tensor(ignore or [bool((*row, 0, False)[5]) for row in rows], dtype=torch.bool),
    )


def logit(p: float) -> float:
    """The number whose sigmoid is ``p``."""
    return math.log(p / (1 - p))
