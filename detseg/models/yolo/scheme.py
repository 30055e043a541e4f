"""What the generations of YOLO share: the ``Scheme`` contract, points as priors, and the objects of a batch.

Letters: B images, A priors (cells times boxes of a cell; finest stride first, row by row), P of them that are indexed,
C classes, K outputs of a cell, N objects of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detseg.models.interface import LossTerms
from detseg.structures import BoxTargets


@dataclass(frozen=True, eq=False)
class Candidates:
    """Box and class scores of every prior (B, A), or of P indexed ones, before NMS."""

    boxes: Tensor  # (B, A, 4) or (P, 4) float32 xyxy in input pixels, not clipped
    scores: Tensor  # (B, A, C) or (P, C) float32 in [0, 1]


@dataclass(frozen=True, eq=False)
class PriorIndex:
    """Some priors of a batch: (P,) int64, which image and which of its priors."""

    image: Tensor
    prior: Tensor


class Scheme(Protocol):
    """Priors, assignment, losses and decoding of one generation; an ``nn.Module`` without trained weights."""

    strides: tuple[int, ...]  # input pixels per cell of each raw map
    box_outputs: int  # channels of a raw map that describe boxes; they come first
    class_outputs: int  # channels that describe classes; they follow

    def initial_bias(self, stride: int) -> Tensor:
        """(box_outputs + class_outputs,) biases of the last layer at the start of training."""

    def losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        """(B, K, H / s, W / s) raw maps, one a stride, and B targets in input pixels → weighted scalar terms."""

    def best_scores(self, maps: list[Tensor]) -> Tensor:
        """(B, K, H / s, W / s) float32 raw maps → (B, A) the best class score of each prior, up to a few units in the
        last place: what tells which priors are worth decoding."""

    def decode(self, maps: list[Tensor], index: PriorIndex | None = None) -> Candidates:
        """(B, K, H / s, W / s) float32 raw maps → candidates of the whole batch, or of the indexed priors alone."""


@dataclass(frozen=True, eq=False)
class Points:
    """The priors of anchor-free schemes: the centre of every cell."""

    centres: Tensor  # (A, 2) float32 x, y in input pixels
    strides: Tensor  # (A,) float32 width of each point's cell in pixels


def cell_points(maps: list[Tensor], strides: tuple[int, ...]) -> Points:
    """The cell centres of (B, K, H / s, W / s) maps, one map a stride; cached, so they must not be changed."""
    # What an exporter traces are no tensors that anybody else could use.
    points = _points.__wrapped__ if torch.compiler.is_compiling() else _points
    return points(tuple((raw.shape[-2], raw.shape[-1]) for raw in maps), strides, maps[0].device)


@lru_cache(maxsize=32)
def _points(sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device) -> Points:
    # The first caller may be in inference mode, whose tensors no training may use.
    with torch.inference_mode(False):
        centres, widths = [], []
        for hw, stride in zip(sizes, strides, strict=True):
            y, x = ((torch.arange(num, device=device, dtype=torch.float32) + 0.5) * stride for num in hw)
            centres.append(torch.cartesian_prod(y, x).flip(1))
            # Not len(): of an input of any size, an exporter would make it a constant.
            widths.append(torch.full((centres[-1].shape[0],), float(stride), device=device))
        return Points(torch.cat(centres), torch.cat(widths))


def flatten_maps(maps: list[Tensor]) -> Tensor:
    """(B, K, H / s, W / s) maps → (B, A, K), in the order of ``cell_points``."""
    # The outputs of a prior side by side: that is how channels-last maps lie in memory, and how softmax is fast.
    return torch.cat([raw.permute(0, 2, 3, 1).flatten(1, 2) for raw in maps], dim=1)


def gather_outputs(maps: list[Tensor], image: Tensor, cell: Tensor) -> Tensor:
    """(P, K): ``flatten_maps(maps)[image, cell]`` of (P,) int64 images and cells, for which no large map is moved."""
    # Up to 2 MB, moving all outputs is quicker than finding the ones that are asked for.
    if sum(raw.numel() for raw in maps) <= 2**19:
        return flatten_maps(maps)[image, cell]
    outputs = maps[0].new_empty(len(image), maps[0].shape[1])
    start = 0
    for raw in maps:
        height, width = raw.shape[-2:]
        here = torch.nonzero((cell >= start) & (cell < start + height * width)).flatten()
        own = cell[here] - start
        outputs[here] = raw[image[here], :, own // width, own % width]
        start += height * width
    return outputs


@dataclass(frozen=True, eq=False)
class BatchObjects:
    """The objects of all images of a batch side by side, so that no image is padded to the fullest one."""

    image: Tensor  # (N,) int64, position of the object's image in the batch
    boxes: Tensor  # (N, 4) float32 xyxy in input pixels
    labels: Tensor  # (N,) int64
    ignore: Tensor  # (N,) bool

    def __getitem__(self, rows: Tensor | slice) -> BatchObjects:
        return BatchObjects(self.image[rows], self.boxes[rows], self.labels[rows], self.ignore[rows])


def batch_objects(targets: list[BoxTargets]) -> BatchObjects:
    """The objects of B images in the order of the targets, those to be ignored included."""
    boxes = torch.cat([target.boxes for target in targets])
    # Counted on the host, where the lengths are, and sent without waiting for the device.
    image = torch.tensor([i for i, target in enumerate(targets) for _ in range(len(target))], dtype=torch.int64)
    return BatchObjects(
        image.to(boxes.device, non_blocking=True),
        boxes,
        torch.cat([target.labels for target in targets]),
        torch.cat([target.ignore for target in targets]),
    )


@dataclass(frozen=True, eq=False)
class Assignment:
    """The P positives of a batch, one for each object that has one, and the priors that are ignored."""

    image: Tensor  # (P,) int64, position of the image in the batch
    prior: Tensor  # (P,) int64, index into the A priors; no (image, prior) occurs twice
    boxes: Tensor  # (P, 4) float32 xyxy in input pixels, the objects to learn
    labels: Tensor  # (P,) int64
    objects: Tensor  # (P,) int64, their positions among the objects of the batch, as ``batch_objects`` has them
    ignored: Tensor  # (B, A) bool, priors that are neither positive nor negative
    num_unassigned: int  # counted objects without a prior, since other objects have those that they could get


def centre_cells(boxes: Tensor, stride: int, grid_hw: tuple[int, int]) -> Tensor:
    """(N, 4) float xyxy in input pixels → (N,) int64, row * columns + column of the cell of each centre.

    A centre on the border of two cells belongs to the right or lower one, a centre on the right or lower border of the
    image to the last one.
    """
    rows, columns = grid_hw
    cell: Tensor = (box_convert(boxes, "xyxy", "cxcywh")[:, :2] / stride).floor().long()
    return cell[:, 1].clamp(0, rows - 1) * columns + cell[:, 0].clamp(0, columns - 1)


def is_first(keys: Tensor) -> Tensor:
    """(N,) int64 keys → (N,) bool, true where a key occurs for the first time."""
    position = torch.arange(len(keys), device=keys.device)
    distinct, inverse = torch.unique(keys, return_inverse=True)
    first = position.new_full((len(distinct),), len(keys)).scatter_reduce(0, inverse, position, "amin")
    return first[inverse] == position
