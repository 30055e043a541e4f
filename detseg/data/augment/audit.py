"""The audit of the augmentation: what each step of the loader's own pipeline did to the objects of the images it made.

The pipeline tells it what was drawn and what came of it; it changes nothing, and draws no random number. Steps are
measured by boxes before these are rounded to whole pixels, also of objects with masks, whose boxes there are the bounds
that they had in their image; the last row is what the network gets, exactly, by the masks where there are any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.geometry import AugmentItem, BoxArray, Motion, Warp, visible_boxes, visible_masks
from detseg.ops.letterbox import Letterbox
from detseg.structures import BoolArray

ALL = "all steps"
"""The row of what the network gets."""

_ORDER: tuple[str, ...] = (
    *("multi_scale", "crop", "letterbox", "mosaic", "mixup", "horizontal_flip", "vertical_flip", "scale_jitter"),
    *("affine", "elastic", "copy_paste", "albumentations"),
    *("color", "clahe", "blur", "noise", "salt_and_pepper", "jpeg", "cutout", ALL),
)


@dataclass
class AuditRow:
    """What one step did. Objects are those that the drop rule would have left before it."""

    images: int = 0  # that it was applied to
    objects: int = 0
    dropped: int = 0  # more than came back into the image
    area_kept: float = 0.0  # sum over the objects of the fraction that is kept of what was visible of them
    below_pixel: int = 0  # objects with a side below a pixel of the input after it, if anything of them is visible
    below_min: int = 0  # likewise below `min_box_size`

    @property
    def fraction_kept(self) -> float:
        """Mean over the objects of the fraction of their visible area that is kept; NaN without objects."""
        return self.area_kept / self.objects if self.objects else float("nan")


@dataclass(frozen=True, eq=False)
class _Seen:
    """The N objects of an image on their way, in pixels of the input."""

    full: BoxArray  # (N, 4) xyxy, not clipped
    visible: BoxArray  # (N, 4) xyxy, clipped
    kept: BoolArray  # (N,) by the drop rule, if this were the end

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """(N,) what is visible of the area of each."""
        return _areas(self.visible) / np.maximum(_areas(self.full), 1e-9)


def _areas(boxes: BoxArray) -> npt.NDArray[np.float64]:
    areas: npt.NDArray[np.float64] = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64).prod(axis=1)
    return areas


class AugmentationAudit:
    """Counts by the name of a step, ``rows``; `names` are in the order of the pipeline.

    Args:
        config: of the augmentation: its drop rule.
        input_hw: height and width of the network input, pixels; batches of another size are counted.
    """

    def __init__(self, config: AugmentationConfig, input_hw: tuple[int, int]) -> None:
        self._config, self._input_hw = config, input_hw
        self.rows: dict[str, AuditRow] = {}
        self._num_left = 0  # objects that the network got

    @property
    def names(self) -> list[str]:
        """The steps that were applied, in the order of the pipeline; `ALL` comes last."""
        return sorted(self.rows, key=lambda name: _ORDER.index(name.partition(":")[0]))

    @property
    def num_images(self) -> int:
        """Samples that the network got."""
        return self.row(ALL).images

    def row(self, name: str) -> AuditRow:
        """The row of a step; a new one is empty."""
        return self.rows.setdefault(name, AuditRow())

    def applied(self, name: str) -> None:
        """A step was applied to an image, and moved no object, or is measured in another row."""
        self.row(name).images += 1

    def sized(self, input_hw: tuple[int, int]) -> None:
        """A sample of height and width ``input_hw`` is going to be made."""
        if input_hw != self._input_hw:
            self.applied("multi_scale")

    def read(self, item: AugmentItem) -> None:
        """An image was read, to become a sample or a part of one."""
        self.row(ALL).objects += len(item.boxes)

    def dropped(self, name: str, num_before: int, num_dropped: int) -> None:
        """A step that cannot be looked into had so many objects, and dropped some."""
        row = self.row(name)
        row.images += 1
        row.objects += num_before
        row.dropped += num_dropped
        row.area_kept = float("nan")

    def moved(self, item: AugmentItem, motion: Motion, hw: tuple[int, int], letterbox: bool = True) -> None:
        """An image is letterboxed to ``hw``, unless it is a mosaic or a mixup already, and moved."""
        seen = self._seen(item.boxes, hw)
        if letterbox:
            boxes = Warp(Letterbox.fit(item.hw, hw).matrix, hw).boxes(item.boxes)
            seen = self._step("letterbox", _Seen(boxes, boxes, np.ones(len(boxes), dtype=np.bool_)), boxes, hw)
        for name, matrix in motion.steps:
            seen = self._step(name, seen, Warp(matrix, hw).boxes(seen.full), hw)
        if motion.displacements is not None:
            self.applied("elastic")

    def tile(self, boxes: BoxArray, clipped: BoxArray, placed: BoxArray, kept: BoolArray) -> None:
        """An image became a tile of a mosaic.

        Args:
            boxes: (N, 4) xyxy of its objects, pixels of the image.
            clipped: (N, 4) what the mosaic shows of each, in the same pixels.
            placed: (N, 4) the same in pixels of the input.
            kept: (N,) whether it stays in the mosaic.
        """
        row = self.row("mosaic")
        row.objects += len(boxes)
        large = (placed[:, 2:] - placed[:, :2] >= self._config.min_box_size).all(axis=1)
        row.dropped += int((~(kept & large)).sum())
        row.area_kept += float((_areas(clipped) / np.maximum(_areas(boxes), 1e-9)).sum())
        self._count_small(row, placed)

    def pasted(self, item: AugmentItem, result: AugmentItem) -> None:
        """Objects of another image, the last ones of ``result``, were pasted over those of ``item``; by their masks."""
        assert item.masks is not None
        assert result.masks is not None
        rule, num = (self._config.min_visibility, self._config.min_box_size), len(item.masks)
        areas, _, there = visible_masks(item.masks, *rule)
        areas_left, boxes, kept = visible_masks(result.masks, *rule)
        row = self.row("copy_paste")
        row.images += 1
        row.objects += int(there.sum())
        row.dropped += int(there.sum()) - int(kept[:num].sum())
        row.area_kept += float((areas_left[:num] / np.maximum(areas, 1))[there].sum())
        self._count_small(row, boxes)
        self.row(ALL).objects += len(result.masks) - num

    def finished(self, item: AugmentItem) -> None:
        """The drop rule was applied to a sample."""
        row = self.row(ALL)
        row.images += 1
        self._num_left += len(item.boxes)
        row.dropped = row.objects - self._num_left
        self._count_small(row, item.boxes)

    def _seen(self, boxes: BoxArray, hw: tuple[int, int]) -> _Seen:
        rule = self._config.min_visibility, self._config.min_box_size
        visible, kept = visible_boxes(boxes, (0, 0, hw[1], hw[0]), *rule)
        return _Seen(boxes, visible, kept)

    def _step(self, name: str, before: _Seen, boxes: BoxArray, hw: tuple[int, int]) -> _Seen:
        row, after, there = self.row(name), self._seen(boxes, hw), before.kept
        row.images += 1
        row.objects += int(there.sum())
        row.dropped += int(there.sum()) - int(after.kept.sum())
        row.area_kept += float((after.fractions / np.maximum(before.fractions, 1e-9))[there].sum())
        self._count_small(row, after.visible)
        return after

    def _count_small(self, row: AuditRow, boxes: BoxArray) -> None:
        sides = boxes[:, 2:] - boxes[:, :2]
        there = (sides > 0).all(axis=1)
        row.below_pixel += int((there & (sides < 1).any(axis=1)).sum())
        row.below_min += int((there & (sides < self._config.min_box_size).any(axis=1)).sum())
