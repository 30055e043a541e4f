"""The grid scheme of YOLOv1: each cell predicts a few boxes with a confidence, and the classes once.

Redmon, Divvala, Girshick, Farhadi, "You Only Look Once", 2016, section 2 and eqs. 1 and 3.  Letters: B images, H and W
rows and columns of cells, N boxes a cell (the paper's B), A = H W N priors, C classes, P responsible boxes of a batch.

Where this differs from the paper:
- The paper's last layer is linear.  Here the five numbers of a box go through a sigmoid and the classes of a cell
  through a softmax, so that boxes stay in the image, scores are probabilities, and the squared errors of an untrained
  network stay small; the losses are the paper's.
- As in the paper the network predicts the square roots of width and height; their square is at most the image.
- Any number of cells: the grid follows the size of the image, which must be divisible by the stride.
"""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from detseg.models.interface import LossTerms
from detseg.models.yolo.scheme import (
    Assignment,
    BatchObjects,
    Candidates,
    PriorIndex,
    batch_objects,
    centre_cells,
    is_first,
)
from detseg.ops.boxes import box_area, matched_iou
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

_INITIAL_CONFIDENCE = 0.1
"""Confidence of an untrained network: nearly every cell is empty, and in the paper their gradient made early training
diverge (section 2.2)."""


class GridAssigner:
    """Assigns each counted object to the cell of its centre (section 2) and there to the box of best current IoU
    (section 2.2).

    The paper allows one object a cell.  Where several centres fall into one, the largest object (by area; of equals
    the first in the targets) keeps the cell.  All boxes of a cell are ignored where its centre lies inside an ignored
    object or where it holds the centre of one (which also covers small ignored objects between the centres of the
    cells); a counted object still gets its box there.

    Args:
        stride: side of a cell in input pixels.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride

    @torch.no_grad()
    def __call__(self, targets: list[BoxTargets], predicted: Tensor) -> Assignment:
        """Assign the objects of B targets by the boxes that the network predicts now, (B, H, W, N, 4) float32 xyxy.

        Both are in input pixels.
        """
        grid_hw = (predicted.shape[1], predicted.shape[2])
        predicted = predicted.flatten(1, 2)  # (B, H W, N, 4)
        num_images, num_cells, num_boxes = predicted.shape[:3]
        every = batch_objects(targets)
        objects = every[~every.ignore]
        cell = centre_cells(objects.boxes, self.stride, grid_hw)
        largest_first = torch.argsort(box_area(objects.boxes), descending=True, stable=True)
        keys = (objects.image * num_cells + cell)[largest_first]
        kept = largest_first[is_first(keys)].sort().values
        image, cell, boxes = objects.image[kept], cell[kept], objects.boxes[kept]
        best = matched_iou(predicted[image, cell], boxes[:, None]).argmax(dim=1)  # of equals the first
        prior = cell * num_boxes + best
        ignored = self._ignored_cells(every[every.ignore], num_images, grid_hw).repeat_interleave(num_boxes, dim=1)
        ignored[image, prior] = False
        return Assignment(
            image=image,
            prior=prior,
            boxes=boxes,
            labels=objects.labels[kept],
            objects=torch.nonzero(~every.ignore).flatten()[kept],
            ignored=ignored,
            num_unassigned=len(objects.image) - len(kept),
        )

    def _ignored_cells(self, objects: BatchObjects, num_images: int, grid_hw: tuple[int, int]) -> Tensor:
        boxes = objects.boxes
        y, x = ((torch.arange(num, device=boxes.device) + 0.5) * self.stride for num in grid_hw)
        in_rows = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
        in_columns = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
        covered = (in_rows[:, :, None] & in_columns[:, None, :]).flatten(1)  # (ignored objects, H * W)
        covered[torch.arange(len(boxes), device=boxes.device), centre_cells(boxes, self.stride, grid_hw)] = True
        counts = torch.zeros(num_images, covered.shape[1], dtype=torch.int64, device=boxes.device)
        return counts.index_add(0, objects.image, covered.long()) > 0


class GridScheme(nn.Module):
    """Losses and decoding of YOLOv1.

    A raw map holds N times (x, y, sqrt w, sqrt h, confidence), then C classes that the boxes of the cell share.

    Args:
        num_classes: C.
        stride: side of a cell in input pixels.
        boxes_per_cell: N.
        coordinate_weight: lambda_coord of eq. 3.
        no_object_weight: lambda_noobj of eq. 3.
        class_weights: (C,) float32, how often the ``class`` loss of a positive counts by the class of its object; None:
            once.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        stride: int,
        boxes_per_cell: int = 2,
        coordinate_weight: float = 5.0,
        no_object_weight: float = 0.5,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.strides: tuple[int, ...] = (stride,)
        self.box_outputs = 5 * boxes_per_cell
        self.class_outputs = num_classes
        self.boxes_per_cell = boxes_per_cell
        self.coordinate_weight = coordinate_weight
        self.no_object_weight = no_object_weight
        self.assigner = GridAssigner(stride)

    def initial_bias(self, stride: int) -> Tensor:
        """(5 N + C,) biases: boxes start with a quarter of the image's sides, with little confidence, equal classes."""
        box = torch.zeros(self.boxes_per_cell, 5)
        box[:, 4] = math.log(_INITIAL_CONFIDENCE / (1 - _INITIAL_CONFIDENCE))
        return torch.cat([box.flatten(), torch.zeros(self.class_outputs)])

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """The five terms of eq. 3, each summed over cells and boxes and averaged over the images.

        Args:
            maps: one (B, 5 N + C, H, W) float32 raw map.
            targets: B targets in input pixels.

        Returns:
            ``centre`` and ``size`` of the responsible boxes, their ``confidence`` (whose target is the current IoU),
            ``no_object`` for the confidence of all other boxes but those on ignored objects, ``class`` of the
            responsible cells; all weighted.
        """
        box, classes = self._activate(maps)
        grid_hw = (box.shape[1], box.shape[2])
        predicted = self._boxes(box).detach()
        found = self.assigner(targets, predicted)
        if found.num_unassigned:
            # The text is constant, so that Python shows it once.
            warnings.warn(
                "several objects have their centre in one cell of the grid; YOLOv1 learns only the largest of each;"
                " a smaller stride or the anchor or task_aligned head learns more of them",
                stacklevel=2,
            )
        num_images = shared_normaliser(len(targets), self.training, box)
        box, classes, predicted = box.flatten(1, 2), classes.flatten(1, 2), predicted.flatten(1, 2)  # (B, H W, ...)
        cell, slot = found.prior // self.boxes_per_cell, found.prior % self.boxes_per_cell
        responsible = box[found.image, cell, slot]  # (P, 5)
        error = (responsible[:, :4] - self._encode(found.boxes, cell, grid_hw)) ** 2
        iou = matched_iou(predicted[found.image, cell, slot], found.boxes)
        confidence = (responsible[:, 4] - iou) ** 2
        penalised = ~found.ignored.view(box.shape[:3])  # (B, H W, N)
        penalised[found.image, cell, slot] = False
        no_object = box[..., 4] ** 2 * penalised
        one_hot = F.one_hot(found.labels, self.class_outputs)
        class_error = (classes[found.image, cell] - one_hot) ** 2  # (P, C)
        if self.class_weights is not None:
            class_error = class_error * self.class_weights[found.labels, None]
        return {
            "centre": self.coordinate_weight * error[:, :2].sum() / num_images,
            "size": self.coordinate_weight * error[:, 2:].sum() / num_images,
            "confidence": confidence.sum() / num_images,
            "no_object": self.no_object_weight * no_object.sum() / num_images,
            "class": class_error.sum() / num_images,
        }

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """One (B, 5 N + C, H, W) float32 raw map → (B, H W N) the best class score of each box."""
        box, classes = self._activate(maps)
        return (box[..., 4] * classes.amax(dim=-1, keepdim=True)).flatten(1)

    def decode(self, maps: list[Tensor], index: PriorIndex | None = None) -> Candidates:
        """One (B, 5 N + C, H, W) float32 raw map → B times H W N candidates, or P; scores are eq. 1: class ×
        confidence."""
        box, classes = self._activate(maps)
        scores = (box[..., 4:] * classes[..., None, :]).flatten(1, 3)  # (B, H W N, C)
        boxes = self._boxes(box).flatten(1, 3)
        # All are decoded in any case: there are a few hundred.
        at = ... if index is None else (index.image, index.prior)
        return Candidates(boxes[at], scores[at])

    def _activate(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, H, W, N, 5) in [0, 1]: x, y, sqrt w, sqrt h, confidence; (B, H, W, C) class probabilities."""
        (raw,) = maps
        raw = raw.permute(0, 2, 3, 1)
        box = raw[..., : self.box_outputs].reshape(*raw.shape[:3], self.boxes_per_cell, 5)
        return box.sigmoid(), raw[..., self.box_outputs :].softmax(dim=-1)

    def _boxes(self, box: Tensor) -> Tensor:
        """(B, H, W, N, 5) activated outputs → (B, H, W, N, 4) xyxy in input pixels."""
        stride = self.strides[0]
        rows, columns = box.shape[1:3]
        y, x = (torch.arange(num, device=box.device) for num in (rows, columns))
        corner = torch.cartesian_prod(y, x).flip(1).view(rows, columns, 1, 2)  # x, y
        centre = (corner + box[..., :2]) * stride
        # Not a tensor of both sides: of an input of any size, an exporter would make it a constant.
        width, height = box[..., 2:3] ** 2 * (columns * stride), box[..., 3:4] ** 2 * (rows * stride)
        boxes: Tensor = box_convert(torch.cat([centre, width, height], dim=-1), "cxcywh", "xyxy")
        return boxes

    def _encode(self, boxes: Tensor, cell: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """(P, 4) xyxy and (P,) cells → (P, 4): place in the cell, square roots of the fraction of the image."""
        rows, columns = grid_hw
        stride = self.strides[0]
        goal = box_convert(boxes, "xyxy", "cxcywh")
        corner = torch.stack([cell % columns, cell // columns], dim=-1)
        sides = goal[:, 2:] / goal.new_tensor([columns * stride, rows * stride])
        return torch.cat([goal[:, :2] / stride - corner, sides.sqrt()], dim=-1)
