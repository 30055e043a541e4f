"""Weighted boxes fusion (Solovyev, Wang and Gabruseva 2021, "Weighted boxes fusion: Ensembling boxes from different
object detection models", section 3), and the masks of what is fused.

Boxes of all members, best score first, join the cluster whose fused box they overlap most, or begin one. The fused box
of a cluster is the mean of its boxes, weighted by their scores; its score is their mean, times T / N where a cluster
has only T boxes from N members. So what one member alone finds scores less.

Letters for dimensions: N members, D boxes of all of them, K clusters, H and W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detseg.ops.masks import encode_part
from detseg.predict.results import Detections
from detseg.structures import ClassTable, FloatArray, InstanceMasks, IntArray

FUSION_IOU = 0.55
"""The overlap from which a box joins a cluster: the paper's best (its section 4.2)."""


@dataclass(frozen=True, eq=False)
class FusedBoxes:
    """K boxes, best score first.

    Attributes:
        boxes: (K, 4) float64 xyxy.
        scores: (K,) float64; with unequal weights some may be above 1.
        labels: (K,) int64.
        clusters: of each the positions of its boxes, in the order of all members' boxes.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    clusters: list[IntArray]


def fuse_boxes(
    boxes: FloatArray,
    scores: FloatArray,
    labels: IntArray,
    weights: FloatArray,
    num_members: int,
    total_weight: float,
    iou: float = FUSION_IOU,
) -> FusedBoxes:
    """Fuse the boxes of all members.

    Args:
        boxes: (D, 4) float64 xyxy, in any unit.
        scores: (D,) float64 above 0.
        labels: (D,) int64; boxes of different classes are not fused.
        weights: (D,) of the member that each is from.
        num_members: N, those that found nothing included.
        total_weight: of all members.
        iou: see ``FUSION_IOU``.
    """
    votes = scores * weights
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    own: list[list[int]] = []
    fused, sums, totals = np.zeros_like(boxes), np.zeros_like(boxes), np.zeros(len(boxes))
    fused_areas, fused_labels = np.zeros(len(boxes)), np.zeros(len(boxes), dtype=np.int64)
    for i in np.argsort(-votes, kind="stable").tolist():
        num = len(own)
        at = np.flatnonzero(fused_labels[:num] == labels[i])
        sides = np.minimum(fused[at, 2:], boxes[i, 2:]) - np.maximum(fused[at, :2], boxes[i, :2])
        inside = sides.clip(min=0).prod(axis=1)
        overlaps = inside / (fused_areas[at] + areas[i] - inside)
        best = int(overlaps.argmax()) if len(at) else -1
        if best >= 0 and overlaps[best] > iou:
            place = int(at[best])
            own[place].append(i)
        else:
            place = num
            own.append([i])
            fused_labels[place] = labels[i]
        sums[place] += votes[i] * boxes[i]
        totals[place] += votes[i]
        fused[place] = sums[place] / totals[place]
        fused_areas[place] = (fused[place, 2:] - fused[place, :2]).prod()
    sizes = np.array([len(members) for members in own], dtype=np.int64)
    num = len(own)
    means = totals[:num] / np.maximum(sizes, 1) * np.minimum(sizes, num_members) / total_weight
    order = np.argsort(-means, kind="stable")
    clusters = [np.array(own[i], dtype=np.int64) for i in order.tolist()]
    return FusedBoxes(fused[order], means[order], fused_labels[order], clusters)


def fuse_detections(
    members: Sequence[Detections], weights: Sequence[float], classes: ClassTable, score_threshold: float
) -> Detections:
    """The detections of N members in one image as one, best first.

    There are masks if all members give them: a pixel is inside where members with half of the votes of the cluster say
    so, each with its score times its weight.

    Args:
        members: what each found, in pixels of the image.
        weights: of each, above 0.
        classes: of all.
        score_threshold: fused objects below it are left out.
    """
    boxes = np.concatenate([found.boxes for found in members]).astype(np.float64)
    scores = np.concatenate([found.scores for found in members]).astype(np.float64)
    labels = np.concatenate([found.labels for found in members])
    of_box = np.repeat(np.array(weights, dtype=np.float64), [len(found) for found in members])
    there = np.flatnonzero(scores > 0)  # a score of 0 has no vote
    columns = boxes[there], scores[there], labels[there], of_box[there]
    fused = fuse_boxes(*columns, len(members), float(sum(weights)))
    final = np.minimum(fused.scores, 1.0).astype(np.float32)
    kept = np.flatnonzero(final >= score_threshold)
    masks = None
    given = [found.masks for found in members if found.masks is not None]
    if len(given) == len(members):
        counts, votes = [one for own in given for one in own.counts], scores * of_box
        clusters = [there[fused.clusters[i]] for i in kept.tolist()]
        hw = given[0].hw
        parts = [_majority(InstanceMasks(hw, tuple(counts[i] for i in own)), votes[own]) for own in clusters]
        masks = InstanceMasks(hw, tuple(parts))
    return Detections(fused.boxes[kept].astype(np.float32), final[kept], fused.labels[kept], classes, masks)


def _majority(masks: InstanceMasks, votes: FloatArray) -> bytes:
    """Run lengths of the pixels that masks with half of the votes or more have; counted where masks are."""
    if len(masks) == 1:
        return masks.counts[0]
    parts = [masks.part(i) for i in range(len(masks))]
    ends = [(top + part.shape[0], left + part.shape[1]) for part, (top, left) in parts if part.size]
    if not ends:
        return masks.counts[0]
    y = min(top for part, (top, _) in parts if part.size)
    x = min(left for part, (_, left) in parts if part.size)
    inside = np.zeros((max(end[0] for end in ends) - y, max(end[1] for end in ends) - x))
    for vote, (part, (top, left)) in zip(votes.tolist(), parts, strict=True):
        if part.size:
            inside[top - y : top - y + part.shape[0], left - x : left - x + part.shape[1]] += vote * part
    return encode_part(inside >= votes.sum() / 2, (y, x), masks.hw)
