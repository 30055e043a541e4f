"""The data set that an experiment's model learns from: objects for detectors, maps for segmenters."""

from __future__ import annotations

from detseg.config.rcnn import MaskRcnnConfig
from detseg.config.schema import DetectorConfig, ExperimentConfig
from detseg.data.dataset import DetectionDataset
from detseg.data.semantic_dataset import SegmentationDataset
from detseg.data.semantic_splits import open_semantic_split
from detseg.data.splits import Split, open_split
from detseg.structures import ClassTable


def open_dataset(
    config: ExperimentConfig, split: Split, classes: ClassTable | None = None
) -> DetectionDataset | SegmentationDataset:
    """The data set of a split.

    Args:
        config: the experiment; its model decides what is read, its ``data`` section from where.
        split: which one.
        classes: the table to label by; None: ``data.classes``, or what the training data holds.

    Raises:
        DataError: something is missing or wrong.
    """
    if isinstance(config.model, DetectorConfig):
        return open_split(config.data, split, classes, masks=isinstance(config.model, MaskRcnnConfig))
    return open_semantic_split(config.data, split, classes)
