"""Anchors fitted to a data set: k-means over box sizes with the distance 1 - IoU.

Redmon, Farhadi, "YOLO9000", 2017, section 2 ("Dimension Clusters"); seeds after Arthur, Vassilvitskii, "k-means++",
2007.
Letters: N boxes, K anchors.  Sizes are widths and heights in input pixels; IoU is that of boxes with one centre.

A cluster's anchor is the median of its widths and of its heights, not their mean: 1 - IoU is at most
|log w - log w'| + |log h - log h'|, which the median minimises, while the mean is drawn to large boxes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.structures import FloatArray, IntArray

NUM_STARTS = 5
"""k-means ends in the nearest local optimum; of several starts the best one counts."""

MIN_GAIN = 1e-4
"""k-means stops when a step adds less to the mean IoU: no detector feels it, and large sets would take minutes."""


def fit_anchors(sizes: npt.ArrayLike, num_anchors: int, seed: int) -> FloatArray:
    """The anchors that overlap the boxes of a data set best, as far as k-means finds them.

    Args:
        sizes: (N, 2) widths and heights of boxes in input pixels.
        num_anchors: K, at least 1.
        seed: the same seed and sizes give the same anchors.

    Returns:
        (K, 2) float64 widths and heights in input pixels, by growing area.

    Raises:
        DataError: a side is not a positive number, or the boxes have fewer different sizes than K.
        ValueError: wrong shape or K.
    """
    checked = _check_sizes(sizes)
    if num_anchors < 1:
        raise ValueError(f"num_anchors: expected at least 1, got {num_anchors}")
    num_distinct = len(np.unique(checked, axis=0))
    if num_distinct < num_anchors:
        raise DataError(
            f"cannot fit {num_anchors} anchors: the {len(checked)} training boxes have {num_distinct} different sizes;"
            " ask for fewer anchors a level (model.head.anchors_per_level), list model.head.anchors, or add boxes"
        )
    rng = np.random.default_rng(seed)
    best = max(
        (_run_k_means(checked, _seed_anchors(checked, num_anchors, rng)) for _ in range(NUM_STARTS)),
        key=lambda anchors: mean_best_iou(checked, anchors),
    )
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def mean_best_iou(sizes: npt.ArrayLike, anchors: npt.ArrayLike) -> float:
    """Mean over (N, 2) sizes of the IoU with the best of (K, 2) anchors, in [0, 1]; what YOLO9000's table 1 reports."""
    return float(_shape_iou(_check_sizes(sizes), _check_sizes(anchors)).max(axis=1).mean())


def refine_anchors(sizes: FloatArray, iou: FloatArray) -> FloatArray:
    """One step of k-means: each anchor becomes the median of the boxes nearest to it.

    An anchor that no box is nearest to becomes the worst covered box instead (several: the next worst ones).

    Args:
        sizes: (N, 2) float64 box sizes.
        iou: (N, K) float64 IoU of each box with each anchor.

    Returns:
        (K, 2) float64 new anchors.
    """
    nearest: IntArray = iou.argmax(axis=1)
    clusters = [sizes[nearest == k] for k in range(iou.shape[1])]
    refined = np.array([np.median(cluster, axis=0) if len(cluster) else (0, 0) for cluster in clusters])
    empty = [k for k, cluster in enumerate(clusters) if len(cluster) == 0]
    if empty:
        worst, first = np.unique(sizes[np.argsort(iou.max(axis=1), kind="stable")], axis=0, return_index=True)
        refined[empty] = worst[np.argsort(first)][: len(empty)]
    return refined


def _run_k_means(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """Refine until the mean IoU hardly grows; the median of a cluster need not be its optimum, so it may fall."""
    iou = _shape_iou(sizes, anchors)
    while True:
        refined = refine_anchors(sizes, iou)
        refined_iou = _shape_iou(sizes, refined)
        if refined_iou.max(axis=1).mean() < iou.max(axis=1).mean() + MIN_GAIN:
            return anchors
        anchors, iou = refined, refined_iou


def _seed_anchors(sizes: FloatArray, num_anchors: int, rng: np.random.Generator) -> FloatArray:
    """Boxes drawn one after the other with a probability that grows with the squared distance to those drawn."""
    chosen = [int(rng.integers(len(sizes)))]
    distance = 1 - _shape_iou(sizes, sizes[chosen])[:, 0]
    while len(chosen) < num_anchors:
        weight = distance**2
        chosen.append(int(rng.choice(len(sizes), p=weight / weight.sum())))
        distance = np.minimum(distance, 1 - _shape_iou(sizes, sizes[chosen[-1:]])[:, 0])
    return sizes[chosen]


def _shape_iou(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """(N, 2) and (K, 2) → (N, K)."""
    width = np.minimum(sizes[:, None, 0], anchors[None, :, 0])
    intersection: FloatArray = width * np.minimum(sizes[:, None, 1], anchors[None, :, 1])
    union: FloatArray = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - intersection
    return np.divide(intersection, union)


def _check_sizes(sizes: npt.ArrayLike) -> FloatArray:
    checked: FloatArray = np.asarray(sizes, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] != 2:
        raise ValueError(f"sizes: expected shape (N, 2), got {checked.shape}")
    wrong = np.flatnonzero(~(np.isfinite(checked) & (checked > 0)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"box {wrong[0]} is {checked[wrong[0], 0]} wide and {checked[wrong[0], 1]} high"
            f" ({len(wrong)} such boxes); anchors need positive sizes: leave boxes without area out"
        )
    return checked
