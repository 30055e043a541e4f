"""What comes before the first step: the data sets are opened, and the settings that follow from the data filled in."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import AnchorHeadConfig, YoloConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig
from detseg.config.schema.segmentation import FcnConfig, UNetConfig
from detseg.data.build import open_dataset
from detseg.data.checks.small_boxes import small_boxes_line
from detseg.data.datasets.class_weights import median_frequency_weights
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.factory import head_strides
from detseg.models.yolo.anchors import fit_anchors, mean_best_iou
from detseg.ops.letterbox import Letterbox

logger = logging.getLogger("detseg")

AnyDataset = DetectionDataset | SegmentationDataset


def open_data(config: ExperimentConfig) -> tuple[AnyDataset, AnyDataset]:
    """The training and the validation set; their issues are printed once.

    Raises:
        DataError: something is missing or wrong.
    """
    train_set = open_training_set(config)
    _say(train_set, train_set.report.lines())
    if config.trainer.overfit_batches:
        val_set = train_set
    else:
        val_set = open_dataset(config, "val", train_set.classes)
        _say(val_set, val_set.report.lines())
    if isinstance(train_set, DetectionDataset):
        too_small = small_boxes_line(train_set.packed, config.data.input_hw, config.data.augmentation.min_box_size)
        _say(train_set, [too_small] if too_small else [])
    return train_set, val_set


def open_training_set(config: ExperimentConfig) -> AnyDataset:
    """The images that a run trains on.

    Raises:
        DataError: something is missing or wrong.
    """
    train_set = open_dataset(config, "train")
    overfit = config.trainer.overfit_batches
    return train_set.subset(range(min(overfit * config.data.num_images, len(train_set)))) if overfit else train_set


def settings_from_data(config: ExperimentConfig, train_set: AnyDataset) -> ExperimentConfig:
    """The settings with what they leave to the training set: anchors, class weights."""
    match config.model:
        case YoloConfig() as model if isinstance(train_set, DetectionDataset):
            return _with_anchors(config, model, train_set)
        case FasterRcnnConfig() | MaskRcnnConfig() if isinstance(train_set, DetectionDataset):
            return config
        case FcnConfig() | UNetConfig() as model if isinstance(train_set, SegmentationDataset):
            return _with_class_weights(config, model, train_set)
    raise TypeError(f"model {config.model.name} does not train on a {type(train_set).__name__}")


def _say(dataset: AnyDataset, lines: list[str]) -> None:
    for line in lines:
        logger.info(f"{dataset.name}: {line}")


def _with_class_weights(
    config: ExperimentConfig, model: FcnConfig | UNetConfig, train_set: SegmentationDataset
) -> ExperimentConfig:
    """The settings with the weights of the classes as numbers, where they are to follow from the training set."""
    if model.loss.class_weights != "median_frequency":
        return config
    weights_found = median_frequency_weights(train_set, skip_bad=config.data.on_bad_sample == "skip")
    # Four digits that count: the weight of a class that fills nearly all must not become 0, which switches it off.
    weights = tuple(float(f"{weight:.4g}") for weight in weights_found)
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(train_set.classes.names, weights, strict=True))
    logger.info(f"class weights by median frequency: {shown}")
    loss = model.loss.model_copy(update={"class_weights": weights})
    return config.model_copy(update={"model": model.model_copy(update={"loss": loss})})


def _with_anchors(config: ExperimentConfig, model: YoloConfig, train_set: DetectionDataset) -> ExperimentConfig:
    """The settings with anchors fitted to the training boxes, where the head wants anchors and has none."""
    head = model.head
    if not isinstance(head, AnchorHeadConfig) or head.anchors is not None:
        return config
    sizes = _box_sizes(train_set, config.data.input_hw)
    num_anchors = head.anchors_per_level * len(head_strides(head))
    anchors = fit_anchors(sizes, num_anchors, config.seed)
    logger.info(
        f"anchors: {num_anchors} fitted to {len(sizes)} boxes, mean best IoU {mean_best_iou(sizes, anchors):.3f}"
    )
    fitted = head.model_copy(update={"anchors": tuple((round(float(w), 1), round(float(h), 1)) for w, h in anchors)})
    return config.model_copy(update={"model": model.model_copy(update={"head": fitted})})


def _box_sizes(dataset: DetectionDataset, input_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(T, 2) widths and heights, in input pixels, of the boxes that count."""
    sizes = [np.zeros((0, 2))]
    for index in range(len(dataset)):
        truth = dataset.annotations(index)
        boxes = truth.boxes[~truth.ignore]
        scale = Letterbox.fit(dataset.hw(index), input_hw).scale_xy
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * np.array(scale))
    together = np.concatenate(sizes)
    return together[(together > 0).all(axis=1)]
