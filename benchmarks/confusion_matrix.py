"""Counting pixels by true and predicted class, beside torchmetrics, on two threads.

    python -m benchmarks.confusion_matrix

Both ignore pixels of label 255 and refuse wrong labels: torchmetrics by default, where it looks for more different
labels than there are classes; a row more is without its check.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.metadata import version

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks.in_turn import Row, in_turn, timed
from benchmarks.row_program import run_rows
from detseg.metrics.segmentation import check_labels, pair_counts
from detseg.structures import IGNORE_LABEL

NUM_CLASSES = 21
BATCH, SIDE = 8, 512
UPDATES = 2
THREADS = 2


def rows(blocks: int) -> Iterator[Row]:
    """Labels of both types; maps of regions, with and without torchmetrics' check, and of noise without it."""
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    for name, (predicted, truth) in {"regions": regions(), "noise": noise()}.items():
        for dtype in (torch.uint8, torch.int64):
            for checked in (True, False) if name == "regions" else (False,):
                kind = f"{name}, {str(dtype).removeprefix('torch.')}"
                yield _row(kind, predicted.to(dtype), truth.to(dtype), checked, blocks)


def regions() -> tuple[Tensor, Tensor]:
    """Predicted and true: patches of about 40 pixels, their predictions shifted and partly of other classes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, NUM_CLASSES, (BATCH, 12, 12), dtype=np.uint8)
    truth = np.stack([cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for grid in coarse])
    wrong = np.stack([cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for grid in coarse[::-1]])
    predicted = np.where(rng.random((BATCH, SIDE, 1)) < 0.2, wrong, np.roll(truth, 5, axis=2))
    truth[:, :, ::40] = IGNORE_LABEL
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def noise() -> tuple[Tensor, Tensor]:
    """Predicted and true: every pixel on its own, 3 % ignored."""
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, NUM_CLASSES, (2, BATCH, SIDE, SIDE), dtype=np.uint8)
    truth[rng.random(truth.shape) < 0.03] = IGNORE_LABEL
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def _row(kind: str, predicted: Tensor, truth: Tensor, checked: bool, blocks: int) -> Row:
    ours = ConfusionMatrix()
    theirs = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_LABEL, validate_args=checked)
    mine, other = (timed(partial(_updates, side, predicted, truth), UPDATES, 1e3) for side in (ours, theirs))
    our_times, their_times = in_turn(mine, other, blocks)
    assert torch.equal(ours.counts[:NUM_CLASSES, :NUM_CLASSES], theirs.confmat)  # both saw as many updates
    return Row(
        stage="confusion matrix, update",
        work=f"{BATCH} × {SIDE} × {SIDE}, {NUM_CLASSES} classes, {kind}",
        peer=f"torchmetrics {version('torchmetrics')}{'' if checked else ', validate_args=False'}",
        ours=our_times,
        theirs=their_times,
        unit="ms",
        wanted=2,
        note=f"{THREADS} threads; counts compared",
    )


class ConfusionMatrix:
    """Counts as our evaluator does."""

    def __init__(self) -> None:
        self.counts = torch.zeros(256, 256, dtype=torch.int64)

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Count the pixels of label maps."""
        counts = pair_counts(predicted, truth)
        check_labels(counts, NUM_CLASSES)
        self.counts += counts


def _updates(matrix: ConfusionMatrix | MulticlassConfusionMatrix, predicted: Tensor, truth: Tensor) -> None:
    for _ in range(UPDATES):
        matrix.update(predicted, truth)


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=5)
