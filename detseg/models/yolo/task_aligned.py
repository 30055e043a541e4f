"""The anchor-free scheme: points, task-aligned assignment, CIoU and distribution focal loss.

Sources: Feng et al. 2021 (TOOD; assignment and IoU-weighted classes), Zheng et al. 2020 (CIoU), Li et al. 2020
("Generalized Focal Loss"; the distribution of a side's distance, section 3.3).

Letters: B images, A points, C classes, P pairs of an object and a point that may be its positive, R bins of a distance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import LossTerms
from detseg.models.yolo.assign_task_aligned import TaskAlignedAssigner
from detseg.models.yolo.objects import batch_objects
from detseg.models.yolo.priors import Points, cell_points, flatten_maps, outputs_at
from detseg.models.yolo.scheme import Candidates, Chosen
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
        class_logits = class_logits.contiguous()  # a copy of 1 ms, which halves the 10 ms of softplus
        with torch.no_grad():
            predicted = self._decode_boxes(points, box_logits)
        objects = batch_objects(targets)
        found = self.assigner(class_logits, predicted, points, objects)

        # Flat from here, P candidates of all objects; those that are no positives have a weight of 0.  To drop them, a
        # GPU would have to be waited for, and nearly all are positives.
        prior, weight = found.prior.flatten(), found.weight.flatten()
        row = torch.arange(len(prior), device=prior.device) // found.prior.shape[1]
        image, boxes, label = objects.image[row], objects.boxes[row], objects.label[row]
        normaliser = shared_normaliser(weight.sum(), self.training, weight)

        side_logits = box_logits[image, prior].view(-1, 4, self.bins)  # (P, 4, R)
        centres, cells = points.centres[prior], points.strides[prior, None]
        placed = _boxes_from_distances(centres, self._expected(side_logits) * cells)
        box_loss = ((1 - matched_ciou(placed, boxes)) * weight).sum() / normaliser
        side_targets = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], dim=1) / cells
        dfl_loss = (distribution_focal_loss(side_logits, side_targets) * weight).sum() / normaliser

        # Binary cross-entropy is softplus(x) - x · t, and the target t is 0 but for the class of a positive: the sum of
        # the first part over all classes of a prior, less the few second ones, takes half of the time of both in full.
        entropy = F.softplus(class_logits).sum(dim=-1).flatten()  # (B A)
        aimed = class_logits[image, prior, label] * weight  # (P,)
        entropy = entropy.index_add(0, image * class_logits.shape[1] + prior, aimed, alpha=-1)
        # Where all classes are learned perfectly, rounding can leave less than nothing.
        class_loss = (entropy.clamp(min=0) * ~found.ignored.flatten()).sum() / normaliser
        return {
            "box": self.box_weight * box_loss,
            "class": self.class_weight * class_loss,
            "dfl": self.dfl_weight * dfl_loss,
        }

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """(B, 4R + C, H / s, W / s) raw maps → (B, A) the best class score of each point."""
        return torch.cat([raw[:, self.box_outputs :].amax(dim=1).flatten(1) for raw in maps], dim=1).sigmoid()

    def decode(self, maps: list[Tensor], chosen: Chosen | None = None) -> Candidates:
        """(B, 4R + C, H / s, W / s) raw maps → (B, A, 4) boxes and (B, A, C) scores, or (P, 4) and (P, C)."""
        points = cell_points(maps, self.strides)
        if chosen is not None:
            points = Points(points.centres[chosen.prior], points.strides[chosen.prior])
        outputs = flatten_maps(maps) if chosen is None else outputs_at(maps, *chosen)
        return Candidates(
            self._decode_boxes(points, outputs[..., : self.box_outputs]), outputs[..., self.box_outputs :].sigmoid()
        )

    def _decode_boxes(self, points: Points, box_logits: Tensor) -> Tensor:
        sides = self._expected(box_logits.reshape(*box_logits.shape[:-1], 4, self.bins))  # (..., A, 4) in cells
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
