"""Detection: boxes with classes and scores; and instance segmentation, which has masks with them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from detseg.config.schema.data import DataConfig
from detseg.config.schema.experiment import EvaluationConfig, ExperimentConfig
from detseg.config.schema.model import AnchorHeadConfig, DetectorConfig, YoloConfig
from detseg.draw import draw_boxes, draw_detection_errors
from detseg.errors import ConfigError
from detseg.factory.yolo import head_strides
from detseg.models.yolo.anchor import fit_anchors, mean_best_iou
from detseg.ops.boxes import pairwise_iou
from detseg.ops.letterbox import Letterbox
from detseg.ops.random_streams import Stream, random_stream
from detseg.ops.tensors import to_arrays, to_float
from detseg.structures import (
    SCORE_THRESHOLD,
    Batch,
    BoxTargets,
    ClassTable,
    DetectorOutput,
    FloatArray,
    InstanceMasks,
    UInt8Array,
)
from detseg.tasks.kind import AnyDataset, TaskKind, logged_weights

if TYPE_CHECKING:
    from detseg.data.build import Split
    from detseg.data.datasets.contract import EvalSource
    from detseg.data.datasets.detection import DetectionDataset
    from detseg.metrics.detection import DetectionEvaluator
    from detseg.predict.predictor import Predictor

logger = logging.getLogger("detseg")


class Detection(TaskKind):
    """Of models that keep the ``Detector`` contract."""

    metrics: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75", "F1")
    shown = ("AP50", "AP")

    def open_dataset(self, data: DataConfig, split: Split, classes: ClassTable | None = None) -> AnyDataset:
        """A data set of boxes, with masks where the kind finds them; see ``TaskKind``."""
        from detseg.data.build import open_split  # needs the training libraries

        return open_split(data, split, classes, self.finds_masks)

    def settings_from_data(self, config: ExperimentConfig, train_set: EvalSource) -> ExperimentConfig:
        """Fits anchors to the training boxes, where a YOLO's head wants anchors and has none, and weighs the classes by
        the numbers of their objects, where that is asked for; see ``TaskKind``."""
        model = config.model
        if isinstance(model, YoloConfig) and isinstance(model.head, AnchorHeadConfig) and not model.head.anchors:
            model = _with_anchors(config, model, model.head, train_set)
        if isinstance(model, DetectorConfig) and model.class_weights == "inverse_sqrt_frequency":
            model = model.model_copy(update={"class_weights": _class_weights(train_set)})
        return config if model is config.model else config.model_copy(update={"model": model})

    def targets(self, batch: Batch, seed_and_epoch: tuple[int, int] | None = None) -> list[BoxTargets]:
        """The objects of each image; in training with the seed of what the model draws for it, which follows from where
        in the run the image is, not from its place in a batch or the process that has it."""
        if seed_and_epoch is None:
            return batch.targets
        streams = [random_stream(Stream.MODEL, *seed_and_epoch, index) for index in batch.indices]
        return [
            replace(target, draw_seed=int(stream.integers(2**62)))
            for target, stream in zip(batch.targets, streams, strict=True)
        ]

    def evaluator(self, classes: ClassTable, settings: EvaluationConfig) -> DetectionEvaluator:
        """COCO AP of boxes (and of masks, where the kind finds them), and VOC AP of boxes."""
        from detseg.metrics.detection import DetectionEvaluator  # needs the training libraries

        return DetectionEvaluator(
            classes, settings.max_detections, settings.f1_iou, self.finds_masks, settings.class_weights
        )

    def draw_targets(self, batch: Batch, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """Objects, those to ignore included; see ``TaskKind``."""
        drawn = []
        images = to_arrays(batch.images[:limit])
        for image, target, window in zip(images, batch.targets[:limit], batch.windows()[:limit], strict=True):
            masks = None
            if target.masks is not None:
                masks = InstanceMasks.from_dense(np.ascontiguousarray(target.masks.cpu().numpy()[:, *window]))
            boxes = target.boxes.cpu() - _corner(window)
            drawn.append(draw_boxes(_cut(image, window), boxes, target.labels.cpu(), classes.names, masks=masks))
        return drawn

    def draw_predictions(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """The better detections; see ``TaskKind``."""
        images = batch.images[:limit]
        drawn = []
        for whole, found, window in zip(
            to_arrays(images), model.predict(to_float(images)), batch.windows()[:limit], strict=True
        ):
            shown, image = found[found.scores >= SCORE_THRESHOLD].cpu(), _cut(whole, window)
            boxes, (height, width) = shown.boxes - _corner(window), image.shape[:2]
            inside = (boxes[:, 2:] > 0).all(dim=1) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
            shown, boxes, masks = shown[inside], boxes[inside], None
            if shown.grids is not None:
                masks = replace(shown.grids, regions=shown.grids.regions - _corner(window)).paste((height, width))
            drawn.append(draw_boxes(image, boxes, shown.labels, classes.names, shown.scores, masks))
        return drawn

    def draw_errors(self, batch: Batch, model: Any, classes: ClassTable, limit: int) -> list[UInt8Array]:
        """By the better detections and an IoU of 0.5; see ``TaskKind``."""
        images, names, drawn = batch.images[:limit], classes.names, []
        rows = zip(to_arrays(images), model.predict(to_float(images)), batch.targets, batch.windows(), strict=False)
        for image, found, target, window in rows:
            shown, corner = found[found.scores >= SCORE_THRESHOLD].cpu(), _corner(window)
            truth = BoxTargets(target.boxes.cpu(), target.labels.cpu(), target.ignore.cpu())
            is_right, is_false, is_missed = outcomes(shown, truth)
            scored = zip(shown.labels[is_false].tolist(), shown.scores[is_false].tolist(), strict=True)
            texts = [f"{names[label]} {score:.2f}" for label, score in scored]
            texts += [names[label] for label in truth.labels[is_missed].tolist()]
            right, false = shown.boxes[is_right] - corner, shown.boxes[is_false] - corner
            missed = truth.boxes[is_missed] - corner
            drawn.append(draw_detection_errors(_cut(image, window), right, false, missed, texts))
        return drawn

    def predictor(self) -> type[Predictor]:
        """See ``TaskKind``."""
        from detseg.predict.predictor import Predictor  # the package `predict` asks for kinds itself

        return Predictor


class InstanceSegmentation(Detection):
    """Of models that keep the ``Detector`` contract and whose detections have masks; they learn from masks."""

    metrics: ClassVar[tuple[str, ...]] = ("mask_AP", "mask_AP50", "mask_AP75", "AP", "AP50", "AP75", "F1")
    shown = ("mask_AP50", "mask_AP")
    finds_masks = True


def outcomes(found: DetectorOutput, truth: BoxTargets, min_iou: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Which detections are right, which are false (the others lie on objects to ignore), and which objects are missed:
    (N,), (N,) and (G,) bool. By COCO's rule: the best score chooses first, of the free objects of its class that it
    overlaps by ``min_iou`` the one that it overlaps most."""
    ious = pairwise_iou(found.boxes, truth.boxes) * (found.labels[:, None] == truth.labels)
    is_right, is_false = torch.zeros(2, len(found.scores), dtype=torch.bool)
    is_free = ~truth.ignore
    for number in found.scores.argsort(descending=True, stable=True).tolist():
        free = ious[number] * is_free
        if len(free) and free.max() >= min_iou:
            is_right[number], is_free[free.argmax()] = True, False
        else:
            is_false[number] = not bool((ious[number][truth.ignore] >= min_iou).any())
    return is_right, is_false, is_free


def _cut(image: UInt8Array, window: tuple[slice, slice]) -> UInt8Array:
    return np.ascontiguousarray(image[window])


def _corner(window: tuple[slice, slice]) -> Tensor:
    """(4,) what to take from xyxy of an input for those of its window."""
    return torch.tensor([window[1].start, window[0].start] * 2, dtype=torch.float32)


def _with_anchors(
    config: ExperimentConfig, model: YoloConfig, head: AnchorHeadConfig, train_set: EvalSource
) -> YoloConfig:
    from detseg.data.datasets.detection import DetectionDataset

    if not isinstance(train_set, DetectionDataset):
        raise ConfigError(f"model.head.anchors: cannot be fitted to a {type(train_set).__name__}; set them")
    sizes = box_sizes(train_set, config.data.input_hw)
    num_anchors = head.anchors_per_level * len(head_strides(head))
    anchors = fit_anchors(sizes, num_anchors, config.seed)
    overlap = mean_best_iou(sizes, anchors)
    logger.info(f"anchors: {num_anchors} fitted to {len(sizes)} boxes, mean best IoU {overlap:.3f}")
    rounded = tuple((round(float(width), 1), round(float(height), 1)) for width, height in anchors)
    return model.model_copy(update={"head": head.model_copy(update={"anchors": rounded})})


def _class_weights(train_set: EvalSource) -> tuple[float, ...]:
    from detseg.data.datasets.detection import DetectionDataset, inverse_sqrt_frequency_weights

    if not isinstance(train_set, DetectionDataset):
        name = type(train_set).__name__
        raise ConfigError(f"model.class_weights: cannot be found from a {name}; set numbers, or null")
    found = inverse_sqrt_frequency_weights(train_set)
    return logged_weights(found, train_set.classes, "inverse square root of frequency")


def box_sizes(dataset: DetectionDataset, input_hw: tuple[int, int]) -> FloatArray:
    """(T, 2) widths and heights, in input pixels, of the boxes that count."""
    sizes = [np.zeros((0, 2))]
    for index in range(len(dataset)):
        truth = dataset.annotations(index)
        boxes = truth.boxes[~truth.ignore]
        scale = Letterbox.fit(dataset.hw(index), input_hw).scale_xy
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * np.array(scale))
    together = np.concatenate(sizes)
    return together[(together > 0).all(axis=1)]
