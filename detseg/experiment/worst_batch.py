"""The batch that takes the most memory of all that a training may meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from detseg.config.schema.experiment import DetectorConfig, ExperimentConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.loading.sampling import SIZE_STEP
from detseg.structures import Batch, BoxTargets, ClassTable

_MOSAIC_TILES, _MIXUP_IMAGES = 4, 2
_SIDES = (1 / 16, 1 / 2)
"""Shortest and longest side of the objects, as shares of the image's."""


@dataclass(frozen=True)
class WorstImage:
    """An image as large and as full as the data and the augmentation can make one.

    Attributes:
        hw: height and width, pixels.
        num_objects: of the image.
    """

    hw: tuple[int, int]
    num_objects: int

    def __str__(self) -> str:
        size = f"{self.hw[0]} x {self.hw[1]} pixels"
        return f"{size} and {self.num_objects} objects" if self.num_objects else size

    @classmethod
    def of(cls, config: ExperimentConfig, train_set: DetectionDataset | SegmentationDataset) -> WorstImage:
        """That of a training.

        The size is the largest of ``multi_scale``, and at least ``image_size``, in which validation runs.  The objects
        are those of the fullest training image, four times where there are mosaics, twice more where there is mixup:
        the same image may be drawn each time.  A two-stage detector that has learnt finds a positive for each place
        among its samples, so that it always gets as many objects as those.
        """
        if not isinstance(train_set, DetectionDataset):
            return cls(_largest_hw(config), 0)
        objects = int(np.diff(train_set.packed.offsets).max(initial=0))
        augmentation = config.data.augmentation
        if augmentation.no_mosaic_last_epochs < config.trainer.max_epochs:
            objects *= _MOSAIC_TILES if augmentation.mosaic else 1
            objects *= _MIXUP_IMAGES if augmentation.mixup else 1
        if isinstance(config.model, FasterRcnnConfig | MaskRcnnConfig) and objects:
            regions = config.model.roi_heads
            objects = max(objects, int(regions.batch_size_per_image * regions.positive_fraction))
        return cls(_largest_hw(config), objects)

    def batch(self, num_images: int, config: ExperimentConfig, classes: ClassTable) -> Batch:
        """So many of it, of noise, with the targets that the model learns from."""
        height, width = self.hw
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (num_images, 3, height, width), dtype=torch.uint8, generator=generator)
        targets = [self._objects(config, classes, generator) for _ in range(num_images)]
        semantic = None
        if not isinstance(config.model, DetectorConfig):
            shape = (num_images, height, width)
            semantic = torch.randint(0, len(classes), shape, dtype=torch.uint8, generator=generator)
        return Batch(images, targets, list(range(num_images)), semantic=semantic)

    def _objects(self, config: ExperimentConfig, classes: ClassTable, generator: torch.Generator) -> BoxTargets:
        height, width = self.hw
        size = torch.tensor([width, height])
        low, high = _SIDES
        sides = (low + (high - low) * torch.rand(self.num_objects, 2, generator=generator)) * size
        corners = torch.rand(self.num_objects, 2, generator=generator) * (size - sides)
        boxes = torch.cat([corners, corners + sides], dim=1)
        masks = None
        if isinstance(config.model, MaskRcnnConfig):
            masks = torch.zeros(self.num_objects, height, width, dtype=torch.bool)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = True
        labels = torch.randint(0, len(classes), (self.num_objects,), generator=generator)
        return BoxTargets(boxes, labels, torch.zeros(self.num_objects, dtype=torch.bool), masks)


def _largest_hw(config: ExperimentConfig) -> tuple[int, int]:
    """The largest height and width of ``EpochBatchSampler.batch_hw``, and no less than those of validation."""
    height, width = config.data.input_hw
    if config.data.augmentation.multi_scale is None:
        return height, width
    factor = config.data.augmentation.multi_scale[1]
    scaled = [max(round(side * factor / SIZE_STEP), 1) * SIZE_STEP for side in (height, width)]
    return max(height, scaled[0]), max(width, scaled[1])
