"""What of a training set and of the machine decides good settings."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch

from detseg.config.schema.experiment import TrainerConfig
from detseg.data.annotations.report import sizes_in_input
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.images.read import read_image_hw
from detseg.errors import DataError
from detseg.structures import IntArray

_MOST_LOOKED_AT = 200
"""Images whose size is read, where the annotations do not state it."""
_NEARLY_ALL = 0.9
_SAME_PROPORTIONS = 0.05
_UNIT = 1000
"""Side of the square in which objects are measured."""


@dataclass(frozen=True)
class DataFacts:
    """A training set in numbers.

    Attributes:
        num_images: of it.
        hw: height and width of an image with the median longer side and the median proportions, pixels.
        same_size: whether all images that were looked at have that size.
        same_proportions: whether nine of ten have its proportions, within a twentieth.
        small_object: side of the square as large as an object that only one in twenty is smaller than, as a fraction of
            the longer side of its image; None: there are no boxes.
        most_objects: of an image; 0 where there are no boxes.
        most_of_class: of one class in an image; likewise.
        class_names: in label order.
    """

    num_images: int
    hw: tuple[int, int]
    same_size: bool
    same_proportions: bool
    small_object: float | None
    most_objects: int
    most_of_class: int
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: DetectionDataset | SegmentationDataset) -> DataFacts:
        """Those of a data set. DataError: the header of an image is wrong."""
        sizes = dataset.packed.sizes_hw if isinstance(dataset, DetectionDataset) else _sizes(dataset)
        longer, logs = float(np.median(sizes.max(axis=1))), np.log(sizes[:, 1] / sizes[:, 0])
        ratio = math.exp(float(np.median(logs)))  # width over height
        height, width = round(longer / max(ratio, 1)), round(longer * min(ratio, 1))
        ratios = logs - math.log(ratio)
        small, most, of_class = _objects(dataset) if isinstance(dataset, DetectionDataset) else (None, 0, 0)
        return cls(
            len(dataset),
            (height, width),
            bool((sizes == (height, width)).all()),
            bool((np.abs(ratios) <= _SAME_PROPORTIONS).mean() >= _NEARLY_ALL),
            small,
            most,
            of_class,
            dataset.classes.names,
        )


def _sizes(dataset: SegmentationDataset) -> IntArray:
    chosen = np.unique(np.linspace(0, len(dataset) - 1, _MOST_LOOKED_AT).round().astype(int)).tolist()
    sizes = list[tuple[int, int]]()
    for index in chosen:
        try:
            sizes.append(read_image_hw(dataset.path(index)))
        except DataError:  # a training says so, or skips it
            continue
    return np.array(sizes or [(_UNIT, _UNIT)], dtype=np.int64)


def _objects(dataset: DetectionDataset) -> tuple[float | None, int, int]:
    packed = dataset.packed
    sides, rows = sizes_in_input(packed, (_UNIT, _UNIT))
    if not len(rows):
        return None, 0, 0
    of_class = np.unique(packed.image_of[rows] * len(dataset.classes) + packed.labels[rows], return_counts=True)[1]
    small = float(np.quantile(np.sqrt(sides.prod(axis=1)), 0.05)) / _UNIT
    return small, int(np.bincount(packed.image_of[rows]).max()), int(of_class.max())


def num_processes(settings: TrainerConfig) -> int:
    """Processes that a training with such settings has, of all nodes: one for each device."""
    on_gpu = settings.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    all_devices = torch.cuda.device_count() if on_gpu else 1
    return settings.num_nodes * (all_devices if settings.devices == "auto" else settings.devices)


@dataclass(frozen=True)
class Machine:
    """What a training computes on.

    Attributes:
        on_gpu: whether on a GPU.
        num_cores: that this process may use, shared out over its GPUs.
    """

    on_gpu: bool
    num_cores: int

    @classmethod
    def of(cls, trainer: TrainerConfig) -> Machine:
        """This one, for a training with such settings."""
        on_gpu = trainer.accelerator != "cpu" and (torch.cuda.is_available() or trainer.accelerator == "mps")
        affinity = getattr(os, "sched_getaffinity", None)
        num_cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
        num_gpus = torch.cuda.device_count() if trainer.devices == "auto" else trainer.devices
        return cls(on_gpu, max(1, num_cores // max(num_gpus, 1) if on_gpu else num_cores))
