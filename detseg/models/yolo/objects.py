"""The objects of a batch side by side, as the assigners need them.

Letters: B images, N objects of the whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from detseg.ops.boxes import xyxy_to_cxcywh
from detseg.structures import BoxTargets


class ObjectBatch(NamedTuple):
    """Objects of all images of a batch.

    Attributes:
        image: (N,) int64, position of the object's image in the batch.
        boxes: (N, 4) float32 xyxy in input pixels.
        labels: (N,) int64.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


class BatchObjects(NamedTuple):
    """All objects of a batch, those to be ignored included; its shapes are known without a look at the values.

    Attributes:
        image: (N,) int64, position of the object's image in the batch.
        boxes: (N, 4) float32 xyxy in input pixels.
        label: (N,) int64.
        ignore: (N,) bool.
    """

    image: Tensor
    boxes: Tensor
    label: Tensor
    ignore: Tensor


def batch_objects(targets: list[BoxTargets]) -> BatchObjects:
    """The objects of B images in the order of the targets."""
    boxes = torch.cat([target.boxes for target in targets])
    # Counted on the host, where the lengths are, and sent without waiting for the device.
    image = torch.tensor([i for i, target in enumerate(targets) for _ in range(len(target))], dtype=torch.int64)
    return BatchObjects(
        image.to(boxes.device, non_blocking=True),
        boxes,
        torch.cat([target.labels for target in targets]),
        torch.cat([target.ignore for target in targets]),
    )


def gather_objects(targets: list[BoxTargets], *, ignored: bool) -> ObjectBatch:
    """The ignored objects of B images, or else the counted ones, in the order of the targets."""
    boxes = torch.cat([target.boxes for target in targets])
    lengths = torch.tensor([len(target) for target in targets], device=boxes.device)
    image = torch.repeat_interleave(torch.arange(len(targets), device=boxes.device), lengths)
    ignore = torch.cat([target.ignore for target in targets])
    keep = ignore if ignored else ~ignore
    return ObjectBatch(image[keep], boxes[keep], torch.cat([target.labels for target in targets])[keep])


def centre_cells(boxes: Tensor, stride: int, grid_hw: tuple[int, int]) -> Tensor:
    """The cell that holds the centre of each box.

    Args:
        boxes: (N, 4) float xyxy in input pixels.
        stride: side of a cell in input pixels.
        grid_hw: rows and columns of the grid.

    Returns:
        (N,) int64, row * columns + column.  A centre on the border of two cells belongs to the right or lower one, a
        centre on the right or lower border of the image to the last one.
    """
    rows, columns = grid_hw
    cell = (xyxy_to_cxcywh(boxes)[:, :2] / stride).floor().long()
    return cell[:, 1].clamp(0, rows - 1) * columns + cell[:, 0].clamp(0, columns - 1)


def first_claims(keys: Tensor) -> Tensor:
    """(N,) int64 keys → (N,) bool, true where a key occurs for the first time."""
    position = torch.arange(len(keys), device=keys.device)
    distinct, inverse = torch.unique(keys, return_inverse=True)
    first = position.new_full((len(distinct),), len(keys)).scatter_reduce(0, inverse, position, "amin")
    return first[inverse] == position
