"""The grid scheme of YOLOv1: each cell predicts a few boxes with a confidence, and the classes once.

Redmon, Divvala, Girshick, Farhadi, "You Only Look Once", 2016, section 2 and eqs. 1 and 3.  Letters: B images, H and W
rows and columns of cells, N boxes a cell (the paper's B), C classes, P responsible boxes.

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

from detseg.models.interface import LossTerms
from detseg.models.yolo.assign_grid import GridAssigner, GridAssignment
from detseg.models.yolo.scheme import Candidates, Chosen
from detseg.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from detseg.ops.processes import shared_normaliser
from detseg.structures import BoxTargets

INITIAL_CONFIDENCE = 0.1
"""Confidence of an untrained network: nearly every cell is empty, and in the paper their gradient made early training
diverge (section 2.2)."""


class GridScheme(nn.Module):
    """Losses and decoding of YOLOv1.

    A raw map holds N times (x, y, sqrt w, sqrt h, confidence), then C classes that the boxes of the cell share.

    Args:
        num_classes: C.
        stride: side of a cell in input pixels.
        boxes_per_cell: N.
        coordinate_weight: lambda_coord of eq. 3.
        no_object_weight: lambda_noobj of eq. 3.
    """

    def __init__(
        self,
        num_classes: int,
        stride: int,
        boxes_per_cell: int = 2,
        coordinate_weight: float = 5.0,
        no_object_weight: float = 0.5,
    ) -> None:
        super().__init__()
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
        box[:, 4] = math.log(INITIAL_CONFIDENCE / (1 - INITIAL_CONFIDENCE))
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
        found = self.assigner(targets, self._boxes(box).detach())
        if found.num_displaced:
            # The text is constant, so that Python shows it once.
            warnings.warn(
                "several objects have their centre in one cell of the grid; YOLOv1 learns only the largest of each;"
                " a smaller stride or the anchor or task_aligned head learns more of them",
                stacklevel=2,
            )
        num_images = shared_normaliser(len(targets), self.training, box)
        box, classes = box.flatten(1, 2), classes.flatten(1, 2)  # (B, H * W, N, 5), (B, H * W, C)
        responsible = box[found.image, found.cell, found.slot]  # (P, 5)
        error = (responsible[:, :4] - self._encode(found, grid_hw)) ** 2
        confidence = (responsible[:, 4] - found.iou) ** 2
        punished = ~found.excluded[:, :, None].repeat(1, 1, self.boxes_per_cell)
        punished[found.image, found.cell, found.slot] = False
        no_object = box[..., 4] ** 2 * punished
        one_hot = F.one_hot(found.labels, self.class_outputs)
        class_error = (classes[found.image, found.cell] - one_hot) ** 2
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

    def decode(self, maps: list[Tensor], chosen: Chosen | None = None) -> Candidates:
        """One (B, 5 N + C, H, W) float32 raw map → B times H W N candidates, or P; scores are eq. 1: class ×
        confidence."""
        box, classes = self._activate(maps)
        scores = (box[..., 4:] * classes[..., None, :]).flatten(1, 3)  # (B, H W N, C)
        boxes = self._boxes(box).flatten(1, 3)
        # All in any case: there are a few hundred.
        return Candidates(boxes, scores) if chosen is None else Candidates(boxes[chosen], scores[chosen])

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
        y, x = torch.meshgrid(
            torch.arange(rows, device=box.device), torch.arange(columns, device=box.device), indexing="ij"
        )
        corner = torch.stack([x, y], dim=-1)[:, :, None]  # (H, W, 1, 2)
        centre = (corner + box[..., :2]) * stride
        sides = box[..., 2:4] ** 2 * box.new_tensor([columns * stride, rows * stride])
        return cxcywh_to_xyxy(torch.cat([centre, sides], dim=-1))

    def _encode(self, found: GridAssignment, grid_hw: tuple[int, int]) -> Tensor:
        """(P, 4) what the responsible boxes should say: place in the cell, square roots of the share of the image."""
        rows, columns = grid_hw
        stride = self.strides[0]
        goal = xyxy_to_cxcywh(found.boxes)
        corner = torch.stack([found.cell % columns, found.cell // columns], dim=-1)
        sides = goal[:, 2:] / goal.new_tensor([columns * stride, rows * stride])
        return torch.cat([goal[:, :2] / stride - corner, sides.sqrt()], dim=-1)
