"""The anchor-free scheme: points, task-aligned assignment, CIoU and distribution focal loss.

Sources: Feng et al. 2021 (TOOD; assignment and IoU-weighted classes), Zheng et al. 2020 (CIoU), Li et al. 2020
("Generalized Focal Loss"; the distribution of a side's distance, section 3.3).

Letters: B images, A points, C classes, P positives, R bins of a distance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import LossTerms
from detseg.models.yolo.assign_task_aligned import TaskAlignedAssigner, TaskAlignedAssignment
from detseg.models.yolo.priors import Points, cell_points, flatten_maps
from detseg.models.yolo.scheme import Candidates
from detseg.ops.boxes import matched_ciou
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

_AREA_OF_AN_OBJECT = 200.0**2
"""Square pixels of image to one object: COCO's 860 000 objects in 118 000 images of about 640 × 480 pixels."""


class TaskAlignedScheme(nn.Module):
    """Every cell predicts C class scores and, for each side of a box, a distribution of its distance in cells.

    Args:
        num_classes: C.
        strides: strides of the raw maps.
        assigner: decides which points are positive.
        bins: R; the distances 0, 1, ... R - 1 cells.
        box_weight, class_weight, dfl_weight: weights of the three losses.
    """

    distances: Tensor

    def __init__(
        self,
        num_classes: int,
        strides: tuple[int, ...],
        assigner: TaskAlignedAssigner,
        bins: int = 16,
        box_weight: float = 10.0,
        class_weight: float = 1.0,
        dfl_weight: float = 2.0,
    ) -> None:
        super().__init__()
        self.strides = strides
        self.bins = bins
        self.box_outputs = 4 * bins
        self.class_outputs = num_classes
        self.assigner = assigner
        self.box_weight = box_weight
        self.class_weight = class_weight
        self.dfl_weight = dfl_weight
        self.register_buffer("distances", torch.arange(bins, dtype=torch.float32), persistent=False)

    def initial_bias(self, stride: int) -> Tensor:
        """Uniform distances; class scores at the share of cells that will be positive, so that the many negatives do
        not drown the start (Lin et al. 2017, "Focal Loss", section 3.3, where the share is a flat 0.01).

        An object has m positives (the assigner's ``top_candidates``), shared by the strides, and one of C classes.
        """
        positives = self.assigner.top_candidates / len(self.strides)
        prior = min(positives * stride**2 / _AREA_OF_AN_OBJECT / self.class_outputs, 0.01)
        return torch.cat(
            [torch.zeros(self.box_outputs), torch.full((self.class_outputs,), math.log(prior / (1 - prior)))]
        )

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """(B, 4R + C, H / s, W / s) raw maps and B targets → ``box``, ``class`` and ``dfl``."""
        points = cell_points(maps, self.strides)
        box_logits, class_logits = self._split(maps)
        assignments = self._assign(points, box_logits, class_logits, targets)

        # Flat over the batch from here: positions (B, A) of the positives, and the object of each.
        target_index = torch.stack([assignment.target_index for assignment in assignments])
        alignment = torch.stack([assignment.alignment for assignment in assignments])
        ignored = torch.stack([assignment.ignored for assignment in assignments])
        image, prior = torch.nonzero(target_index >= 0, as_tuple=True)
        counted = [target.counted for target in targets]
        starts = torch.tensor([0, *(len(target) for target in counted[:-1])], device=image.device).cumsum(0)
        objects = starts[image] + target_index[image, prior]
        boxes = torch.cat([target.boxes for target in counted])[objects]  # (P, 4)
        labels = torch.cat([target.labels for target in counted])[objects]  # (P,)

        weight = alignment[image, prior]  # (P,)
        normaliser = shared_normaliser(weight.sum(), self.training, weight)
        class_targets = torch.zeros_like(class_logits)
        class_targets[image, prior, labels] = weight
        entropy = F.binary_cross_entropy_with_logits(class_logits, class_targets, reduction="none")
        class_loss = (entropy * ~ignored[..., None]).sum() / normaliser

        side_logits = box_logits[image, prior].view(-1, 4, self.bins)  # (P, 4, R)
        centres, cells = points.centres[prior], points.strides[prior, None]
        predicted = _boxes_from_distances(centres, self._expected(side_logits) * cells)
        box_loss = ((1 - matched_ciou(predicted, boxes)) * weight).sum() / normaliser
        side_targets = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], dim=1) / cells
        dfl_loss = (distribution_focal_loss(side_logits, side_targets) * weight).sum() / normaliser
        return {
            "box": self.box_weight * box_loss,
            "class": self.class_weight * class_loss,
            "dfl": self.dfl_weight * dfl_loss,
        }

    def decode(self, maps: list[Tensor]) -> Candidates:
        """(B, 4R + C, H / s, W / s) raw maps → (B, A, 4) boxes and (B, A, C) scores."""
        points = cell_points(maps, self.strides)
        box_logits, class_logits = self._split(maps)
        return Candidates(self._decode_boxes(points, box_logits), class_logits.sigmoid())

    @torch.no_grad()
    def _assign(
        self, points: Points, box_logits: Tensor, class_logits: Tensor, targets: list[BoxTargets]
    ) -> list[TaskAlignedAssignment]:
        boxes, scores = self._decode_boxes(points, box_logits), class_logits.sigmoid()
        return [
            self.assigner.assign(image_scores, image_boxes, points, target)
            for image_scores, image_boxes, target in zip(scores, boxes, targets, strict=True)
        ]

    def _decode_boxes(self, points: Points, box_logits: Tensor) -> Tensor:
        sides = self._expected(box_logits.view(*box_logits.shape[:2], 4, self.bins))  # (B, A, 4) in cells
        return _boxes_from_distances(points.centres, sides * points.strides[:, None])

    def _split(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Raw maps → (B, A, 4R) and (B, A, C) logits."""
        boxes, classes = torch.split(flatten_maps(maps), [self.box_outputs, self.class_outputs], dim=-1)
        return boxes, classes

    def _expected(self, side_logits: Tensor) -> Tensor:
        """(..., R) logits → (...) mean distance in cells."""
        return side_logits.softmax(dim=-1) @ self.distances


def distribution_focal_loss(side_logits: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy with the two bins around the true distance (Li et al. 2020, eq. 6), mean over the four sides.

    Args:
        side_logits: (P, 4, R) float.
        distances: (P, 4) float, in cells; those beyond the last bin count as just below it.

    Returns:
        (P,) float.
    """
    bins = side_logits.shape[-1]
    distances = distances.clamp(0, bins - 1 - 0.01)
    lower = distances.floor()
    upper_share = distances - lower
    log_probabilities = side_logits.log_softmax(dim=-1)
    index = lower.long()[..., None]
    at_lower = log_probabilities.gather(2, index)[..., 0]
    at_upper = log_probabilities.gather(2, index + 1)[..., 0]
    return -(at_lower * (1 - upper_share) + at_upper * upper_share).mean(dim=1)


def _boxes_from_distances(centres: Tensor, distances: Tensor) -> Tensor:
    """(A, 2) points and (..., A, 4) distances to left, top, right, bottom in pixels → (..., A, 4) xyxy."""
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
