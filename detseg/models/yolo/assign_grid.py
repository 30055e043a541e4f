"""Which cell and which of its boxes answers for which object in YOLOv1.

Redmon, Divvala, Girshick, Farhadi, "You Only Look Once", 2016, section 2: the cell that holds the centre of an object
is responsible for it; section 2.2: of the boxes of that cell the one with the highest current IoU is.

Letters: B images, H and W rows and columns of cells, N boxes a cell, P responsible boxes of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detseg.models.yolo.objects import centre_cells, first_claims, gather_objects
from detseg.ops.boxes import box_area, matched_iou
from detseg.structures import BoxTargets


@dataclass(frozen=True)
class GridAssignment:
    """The responsible boxes of a batch and the cells that are left out.

    Attributes:
        image: (P,) int64, position of the image in the batch.
        cell: (P,) int64, row * W + column; no (image, cell) occurs twice.
        slot: (P,) int64, which of the N boxes of the cell.
        iou: (P,) float32, current IoU of the responsible box with its object.
        boxes: (P, 4) float32 xyxy in input pixels, the objects to learn.
        labels: (P,) int64.
        excluded: (B, H * W) bool, cells that lie on ignored objects: their boxes are not punished for confidence.
        num_displaced: counted objects that nobody answers for, since a larger one has its centre in the same cell.
    """

    image: Tensor
    cell: Tensor
    slot: Tensor
    iou: Tensor
    boxes: Tensor
    labels: Tensor
    excluded: Tensor
    num_displaced: int


class GridAssigner:
    """Assigns each counted object to the cell of its centre and there to the box of best current IoU.

    The paper allows one object a cell.  Where several centres fall into one, the largest object (by area; of equals
    the first in the targets) keeps the cell; ``num_displaced`` counts the others.  A cell is excluded from the
    punishment of confidence where its centre lies inside an ignored object or where it holds the centre of one (which
    also covers ignored objects between the centres of the cells); a counted object still gets its box there.

    Args:
        stride: side of a cell in input pixels.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride

    @torch.no_grad()
    def __call__(self, targets: list[BoxTargets], predicted: Tensor) -> GridAssignment:
        """Assign the objects of a batch.

        Args:
            targets: B targets in input pixels.
            predicted: (B, H, W, N, 4) float32 xyxy in input pixels, the boxes that the network predicts now.
        """
        grid_hw = (predicted.shape[1], predicted.shape[2])
        predicted = predicted.flatten(1, 2)  # (B, H * W, N, 4)
        objects = gather_objects(targets, ignored=False)
        cell = centre_cells(objects.boxes, self.stride, grid_hw)
        largest_first = torch.argsort(box_area(objects.boxes), descending=True, stable=True)
        claims = (objects.image * predicted.shape[1] + cell)[largest_first]
        kept = largest_first[first_claims(claims)].sort().values
        image, cell, boxes = objects.image[kept], cell[kept], objects.boxes[kept]
        iou, slot = matched_iou(predicted[image, cell], boxes[:, None]).max(dim=1)  # of equals the first slot
        return GridAssignment(
            image=image,
            cell=cell,
            slot=slot,
            iou=iou,
            boxes=boxes,
            labels=objects.labels[kept],
            excluded=self._excluded_cells(targets, grid_hw),
            num_displaced=len(objects.image) - len(kept),
        )

    def _excluded_cells(self, targets: list[BoxTargets], grid_hw: tuple[int, int]) -> Tensor:
        rows, columns = grid_hw
        image, boxes, _ = gather_objects(targets, ignored=True)
        y = (torch.arange(rows, device=boxes.device) + 0.5) * self.stride
        x = (torch.arange(columns, device=boxes.device) + 0.5) * self.stride
        in_rows = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
        in_columns = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
        covered = (in_rows[:, :, None] & in_columns[:, None, :]).flatten(1)  # (ignored objects, H * W)
        covered[torch.arange(len(boxes), device=boxes.device), centre_cells(boxes, self.stride, grid_hw)] = True
        counts = torch.zeros(len(targets), rows * columns, dtype=torch.int64, device=boxes.device)
        return counts.index_add(0, image, covered.long()) > 0
