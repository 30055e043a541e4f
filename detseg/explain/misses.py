"""Why a detector did not find an object: the stage that lost it, with the numbers of that stage.

An object is missed where COCO's matching (`detseg.tasks.detection.outcomes`) gives it no detection of its class with an
IoU of at least 0.5 and a score of at least the predictor's threshold; crowd and difficult objects are never missed.
The stages are gone through from the last to the first: the cause is the last one that still had something of it.

Letters: N objects of an image, K decoded boxes of it, C classes, L boxes above the threshold (before NMS), R those of
one class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from detseg.data.checks.sizes import SIZE_BOUNDS
from detseg.explain.trace import Trace
from detseg.ops.boxes import matched_iou, pairwise_iou
from detseg.ops.letterbox import Letterbox
from detseg.ops.nms import classwise_nms
from detseg.structures import BoxTargets, ClassTable, DetectorOutput, FloatArray
from detseg.tasks.detection import outcomes

MIN_IOU = 0.5
"""From this IoU on a box counts as one of the object."""

SMALL_SIDE = SIZE_BOUNDS[0]
"""Objects are too small if the root of their area is less than this, input pixels: the bound of `detseg check`."""

FAINT_SCORE = 0.05
"""Below this score a box does not tell that the object was seen: much of the background scores as high."""

_LARGEST_NMS_IOU = 0.8
"""Boxes that overlap by more are one object to the network: NMS that keeps both would keep duplicates of everything."""

_BESIDE_IOU = 0.1
"""From this IoU on a box lies beside the object, not somewhere else (Bolya et al. 2020, "TIDE")."""


class Cause(StrEnum):
    """Which stage lost an object, from the last stage to the first."""

    CUT = "over the limit"  # more detections than an image may have, and better ones
    SUPPRESSED = "suppressed"  # NMS dropped its box for a better one
    SHARED = "shared box"  # its box fits another object as well, which has it
    CONFUSED = "other class"  # found, as another class
    SMALL = "too small"  # in the network input
    LOW_SCORE = "low score"  # a well placed box scores below the threshold
    MISPLACED = "misplaced"  # a box of its class lies beside it
    PROPOSAL_NMS = "proposal suppressed"  # this and the next four: of the first of two stages
    PROPOSAL_CUT = "proposals over the limit"
    ANCHOR_CUT = "anchors over the limit"
    NO_ANCHOR = "no anchor fits"
    NOT_PROPOSED = "not proposed"
    UNASSIGNED = "not learned"  # training would assign no prior to such an object
    UNSEEN = "not seen"  # no stage is known to have lost it: the network does not see it


@dataclass(frozen=True)
class Place:
    """A box on an object."""

    name: str  # class
    score: float
    iou: float  # with the object


@dataclass(frozen=True)
class Miss:
    """An object that was missed.

    Attributes:
        index: its position among the annotations of its image.
        name: its class.
        box: xyxy in pixels of the image.
        width, height: in pixels of the network input.
        stride: of the finest map, input pixels.
        priors: what could match it, with the number.
        num_assigned: priors that training would assign to it.
        anchor_iou: of the anchor that fits it best; None without anchors.
        proposal_iou: of the proposal that overlaps it most; None of a one-stage detector.
        own: the best of all boxes for its class with an IoU of at least 0.5, before NMS; None: there is none.
        best: the same for any class.
        cause: the stage that lost it.
        detail: what happened there.
        measure: how far a setting must go, by the cause: the score that it has, the IoU with the box that suppressed
            it, its rank among detections, the root of its area in input pixels; else 0.
    """

    index: int
    name: str
    box: tuple[float, float, float, float]
    width: float
    height: float
    stride: int
    priors: str
    num_assigned: int
    anchor_iou: float | None
    proposal_iou: float | None
    own: Place | None
    best: Place | None
    cause: Cause
    detail: str
    measure: float = 0.0

    def lines(self) -> list[str]:
        """What is known about it, a few lines."""
        x1, y1, x2, y2 = (round(value) for value in self.box)
        cells = f"{self.width / self.stride:.1f} x {self.height / self.stride:.1f} cells of {self.stride}"
        learned = f"{self.priors}; training would assign {self.num_assigned}"
        if self.anchor_iou is not None:
            learned += f" (best IoU of an anchor {self.anchor_iou:.2f})"
        there = [f"own class {self.own.score:.3f} (IoU {self.own.iou:.2f})" if self.own else "no box on it"]
        if self.best and self.best.name != self.name:
            there.append(f"{self.best.name} {self.best.score:.3f} (IoU {self.best.iou:.2f})")
        if self.proposal_iou is not None:
            there.append(f"best IoU of a proposal {self.proposal_iou:.2f}")
        return [
            f"object {self.index}, {self.name}, at ({x1}, {y1}) to ({x2}, {y2}): {self.cause}; {self.detail}",
            f"  after resizing {self.width:.1f} x {self.height:.1f} px, {cells} px",
            f"  priors: {learned}",
            f"  before NMS: {', '.join(there)}",
        ]


@dataclass(frozen=True, eq=False)
class ImageMisses:
    """What became of the objects of an image, by their positions among its annotations."""

    found: dict[int, Place]  # object → a detection that covers it
    misses: tuple[Miss, ...]
    ignored: tuple[int, ...]  # crowd and difficult objects
    right: FloatArray  # (R,) scores of the detections that are right, of all from `FAINT_SCORE` on
    wrong: FloatArray  # (W,) scores of those that are wrong


@torch.no_grad()
def explain_misses(
    trace: Trace, truth: BoxTargets, letterbox: Letterbox, classes: ClassTable, score_threshold: float
) -> ImageMisses:
    """Find the missed objects of an image, and what lost each.

    Args:
        trace: of the image.
        truth: its N objects, in pixels of the image, in the order of the trace's priors.
        letterbox: the place of the image in the network input.
        classes: of the labels.
        score_threshold: the predictor's, in [0, 1].
    """
    threshold = max(score_threshold, trace.limits.score_threshold)
    ranked = _Ranked.of(trace, letterbox, threshold)
    kept = ranked.detections(trace.limits.max_detections)
    missed = outcomes(kept, truth, MIN_IOU)[2].tolist()
    ious = pairwise_iou(truth.boxes, kept.boxes) * (truth.labels[:, None] == kept.labels)  # N, detections
    found = {}
    for i in torch.nonzero(~torch.tensor(missed, dtype=torch.bool) & ~truth.ignore).flatten().tolist():
        best = int(ious[i].argmax())
        found[i] = Place(classes.names[int(truth.labels[i])], float(kept.scores[best]), float(ious[i, best]))
    search = _Search(trace, truth, letterbox, classes, ranked)
    misses = tuple(search.miss(i) for i, is_missed in enumerate(missed) if is_missed)
    least = min(threshold, max(FAINT_SCORE, trace.limits.score_threshold))
    more = _Ranked.of(trace, letterbox, least).detections(trace.limits.max_detections)
    right, wrong = (more.scores[chosen].double().numpy() for chosen in outcomes(more, truth, MIN_IOU)[:2])
    return ImageMisses(found, misses, tuple(torch.nonzero(truth.ignore).flatten().tolist()), right, wrong)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The L boxes above the threshold, each of one class, and what NMS makes of them."""

    threshold: float
    input_boxes: Tensor  # (L, 4) float32 xyxy in input pixels
    boxes: Tensor  # (L, 4) in pixels of the image, clipped to it
    scores: Tensor  # (L,)
    labels: Tensor  # (L,)
    rank: Tensor  # (L,) int64, among those that NMS keeps, 0 the best; -1 where it drops the box

    @classmethod
    def of(cls, trace: Trace, letterbox: Letterbox, threshold: float) -> _Ranked:
        row, labels = torch.nonzero(trace.scores >= threshold, as_tuple=True)
        boxes = trace.boxes.expand(-1, trace.scores.shape[1], -1)[row, labels]
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        row, labels, boxes = row[has_area], labels[has_area], boxes[has_area]
        scores = trace.scores[row, labels]
        kept = classwise_nms(boxes, scores, labels, trace.limits.nms_iou)
        rank = torch.full((len(boxes),), -1)
        rank[kept] = torch.arange(len(kept))
        return cls(threshold, boxes, letterbox.boxes_to_original(boxes), scores, labels, rank)

    def detections(self, max_detections: int) -> DetectorOutput:
        """As predictors return them: in pixels of the image, without those that lie in the padding."""
        rows = torch.nonzero((self.rank >= 0) & (self.rank < max_detections)).flatten()
        rows = rows[self.rank[rows].argsort()]
        rows = rows[(self.boxes[rows, 2:] > self.boxes[rows, :2]).all(dim=1)]
        return DetectorOutput(self.boxes[rows], self.scores[rows], self.labels[rows])


_Lost = tuple[Cause, str, float]
"""Cause, detail and measure of a miss."""


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for the cause of each miss of an image."""

    trace: Trace
    truth: BoxTargets
    letterbox: Letterbox
    classes: ClassTable
    ranked: _Ranked

    def miss(self, i: int) -> Miss:
        trace, box, label = self.trace, self.truth.boxes[i], int(self.truth.labels[i])
        in_input = self.letterbox.to_input(box[None])
        width, height = (in_input[0, 2:] - in_input[0, :2]).tolist()
        decoded = self.letterbox.boxes_to_original(trace.boxes.flatten(0, 1)).view_as(trace.boxes)
        iou = matched_iou(box, decoded).expand_as(trace.scores)  # K C
        on_it = trace.scores.where(iou >= MIN_IOU, -1.0)
        own = self._best_place(on_it[:, label : label + 1], iou[:, label : label + 1], label)
        cause, detail, measure = (
            self._behind_the_threshold(i)
            or self._at_the_threshold(i, own, math.sqrt(width * height))
            or self._in_the_first_stage(i, in_input)
            or self._in_training(i)
        )
        priors, stage = trace.priors, trace.first_stage
        return Miss(
            index=i,
            name=self.classes.names[label],
            box=tuple(box.tolist()),
            width=width,
            height=height,
            stride=trace.stride,
            priors=f"{int(priors.possible[i])} {priors.what}",
            num_assigned=int(priors.assigned[i]),
            anchor_iou=None if priors.anchor_iou is None else float(priors.anchor_iou[i]),
            proposal_iou=None if stage is None else _largest(pairwise_iou(in_input, stage.proposals)),
            own=own,
            best=self._best_place(on_it, iou, 0),
            cause=cause,
            detail=detail,
            measure=measure,
        )

    def _best_place(self, scores: Tensor, iou: Tensor, first_label: int) -> Place | None:
        """(K, D) scores of D labels, below 0 where a box is not on the object → the best."""
        if not scores.numel() or scores.amax() < 0:
            return None
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        return Place(self.classes.names[first_label + column], float(scores[row, column]), float(iou[row, column]))

    def _of_class(self, i: int) -> tuple[Tensor, Tensor]:
        """(R,) the ranked boxes of the object's class, and (R, N) their IoU with the objects of that class, else 0."""
        rows = torch.nonzero(self.ranked.labels == self.truth.labels[i]).flatten()
        same = self.truth.labels == self.truth.labels[i]
        return rows, pairwise_iou(self.ranked.boxes[rows], self.truth.boxes) * same

    def _behind_the_threshold(self, i: int) -> _Lost | None:
        """A box of its class is on the object and scores enough."""
        ranked, most = self.ranked, self.trace.limits.max_detections
        rows, ious = self._of_class(i)
        rows, ious = rows[ious[:, i] >= MIN_IOU], ious[ious[:, i] >= MIN_IOU]
        if not len(rows):
            return None
        ranks, scores = ranked.rank[rows], ranked.scores[rows]
        if (cut := ranks >= most).any():
            k = int(scores.where(cut, -1.0).argmax())
            place = int(ranks[k]) + 1
            return Cause.CUT, f"its box (score {scores[k]:.2f}) is number {place}, and {most} are kept", float(place)
        dropped, fits = ranks < 0, ious[:, i] >= ious.amax(dim=1)  # on no other object better
        if (dropped & fits).any() and (lost := self._suppressed(i, rows[dropped & fits])) is not None:
            return lost
        if not dropped.all():  # what is kept belongs to others
            k = int(scores.where(~dropped, -1.0).argmax())
            detail = f"its box (score {scores[k]:.2f}) is on {_neighbour(ious[k], i)}, too, which has it"
            return Cause.SHARED, detail, 0.0
        k = int(ious[:, i].argmax())
        detail = f"NMS dropped its box (IoU {ious[k, i]:.2f}, score {scores[k]:.2f}) for a better one beside it"
        return Cause.MISPLACED, detail, 0.0

    def _suppressed(self, i: int, dropped: Tensor) -> _Lost | None:
        """Of the boxes on the object that NMS dropped, the one that overlaps better ones least; None where that is so
        much that no sensible NMS would keep it."""
        ranked = self.ranked
        rows, ious = self._of_class(i)
        is_better = (ranked.rank[rows] >= 0) & (ranked.scores[rows] >= ranked.scores[dropped, None])  # dropped, R
        overlap = pairwise_iou(ranked.input_boxes[dropped], ranked.input_boxes[rows]).where(is_better, 0.0)
        k = int(overlap.amax(dim=1).argmin())
        better, most = int(overlap[k].argmax()), float(overlap[k].amax())
        if most > _LARGEST_NMS_IOU:
            return None
        detail = (
            f"NMS dropped its box (score {ranked.scores[dropped[k]]:.2f}) for one on {_neighbour(ious[better], i)} "
            f"(score {ranked.scores[rows[better]]:.2f}): their IoU is {most:.2f}, above {self.trace.limits.nms_iou:g}"
        )
        return Cause.SUPPRESSED, detail, most

    def _at_the_threshold(self, i: int, own: Place | None, side: float) -> _Lost | None:
        """Nothing of its class is on the object, or not with the score."""
        ranked, threshold, score = self.ranked, self.ranked.threshold, own.score if own else 0.0
        ious = pairwise_iou(ranked.boxes, self.truth.boxes)  # L N
        right = (ious >= MIN_IOU) & (ranked.labels[:, None] == self.truth.labels)
        other = (ious[:, i] >= MIN_IOU) & ~right.any(dim=1)  # and is on no object of its own class
        if other.any():
            k = int(ranked.scores.where(other, -1.0).argmax())
            name = self.classes.names[int(ranked.labels[k])]
            detail = f"found as {name} (score {ranked.scores[k]:.2f}); its own class has {score:.3f} there"
            return Cause.CONFUSED, detail, 0.0
        if 0 < side < SMALL_SIDE:
            return Cause.SMALL, f"it is {side:.1f} px after resizing (root of its area), below {SMALL_SIDE}", side
        if score >= FAINT_SCORE:
            whose = "model.score_threshold" if threshold <= self.trace.limits.score_threshold else "the predictor's"
            return Cause.LOW_SCORE, f"its box has a score of {score:.3f}, below {threshold:g} ({whose})", score
        rows, ious = self._of_class(i)
        beside = (ious[:, i] >= _BESIDE_IOU) & (ious[:, i] >= ious.amax(dim=1))
        if beside.any():
            k = int(ious[:, i].where(beside, -1.0).argmax())
            detail = f"a box of its class (score {ranked.scores[rows[k]]:.2f}) lies beside it: IoU {ious[k, i]:.2f}"
            return Cause.MISPLACED, detail, 0.0
        return None

    def _in_the_first_stage(self, i: int, in_input: Tensor) -> _Lost | None:
        """No proposal is on the object."""
        stage = self.trace.first_stage
        if stage is None or _largest(pairwise_iou(in_input, stage.proposals)) >= MIN_IOU:
            return None
        rpn, anchor_iou = stage.rpn, self.trace.priors.anchor_iou
        num_anchors, num_proposals = rpn.pre_nms_top_n[1], rpn.post_nms_top_n[1]
        on_it = (pairwise_iou(in_input, stage.boxes)[0] >= MIN_IOU) & (stage.scores >= rpn.score_threshold)
        if not on_it.any():
            if anchor_iou is not None and anchor_iou[i] < rpn.assigner.positive_iou:
                side = float((in_input[0, 2:] - in_input[0, :2]).prod().sqrt())
                wanted = rpn.assigner.positive_iou
                return Cause.NO_ANCHOR, f"no anchor overlaps it by {wanted:g}, the best by {anchor_iou[i]:.2f}", side
            return Cause.NOT_PROPOSED, f"anchors fit it, but none of their boxes overlaps it by {MIN_IOU}", 0.0
        levels = zip(*(torch.split(column, stage.level_sizes) for column in (stage.scores, on_it)), strict=True)
        if not any(on[score.topk(min(num_anchors, len(score))).indices].any() for score, on in levels):
            return Cause.ANCHOR_CUT, f"its anchor is not among the best {num_anchors} of its level", 0.0
        if len(stage.proposals) >= num_proposals:
            return Cause.PROPOSAL_CUT, f"its proposal is not among the best {num_proposals}", 0.0
        return Cause.PROPOSAL_NMS, f"NMS dropped its proposal (IoU above {rpn.nms_iou:g})", 0.0

    def _in_training(self, i: int) -> _Lost:
        if not self.trace.priors.assigned[i]:
            return Cause.UNASSIGNED, "training would assign no prior to it: other objects have them", 0.0
        return Cause.UNSEEN, f"no box on it scores {FAINT_SCORE} for its class", 0.0


def _neighbour(ious: Tensor, i: int) -> str:
    """Of (N,) IoU of a box with the objects of its class, the other object that it is on, in words."""
    others = ious.clone()
    others[i] = 0
    return f"object {int(others.argmax())}" if others.amax() >= MIN_IOU else "the same object"


def _largest(values: Tensor) -> float:
    return float(values.amax()) if values.numel() else 0.0
