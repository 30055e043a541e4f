"""Training of detectors."""

from __future__ import annotations

from dataclasses import replace

from detseg.config.schema.training import EvaluationConfig
from detseg.draw import draw_boxes
from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.ops.images import to_arrays, to_float
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import SCORE_THRESHOLD, Batch, BoxTargets, InstanceMasks, UInt8Array
from detseg.training.task import Task


class DetectionTask(Task):
    """Trains anything that satisfies the ``Detector`` contract. Arguments: see ``Task``."""

    criterion = "AP"
    shown = ("AP50", "AP")

    def build_evaluator(self, settings: EvaluationConfig) -> DetectionEvaluator:
        """COCO and VOC AP."""
        return DetectionEvaluator(self.classes, settings.max_detections, settings.f1_iou)

    def targets(self, batch: Batch) -> list[BoxTargets]:
        """The objects of each image; in training with the seed of what the model draws for it, which follows from where
        in the run the image is, not from its place in a batch or the process that has it."""
        if not self.training:
            return batch.targets
        streams = [random_stream(Stream.MODEL, self.seed, self.current_epoch, index) for index in batch.indices]
        return [
            replace(target, draw_seed=int(stream.integers(2**62)))
            for target, stream in zip(batch.targets, streams, strict=True)
        ]

    def draw_targets(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with their objects, those to ignore included."""
        return [
            draw_boxes(
                image,
                target.boxes.cpu(),
                target.labels.cpu(),
                self.classes.names,
                masks=None if target.masks is None else InstanceMasks.from_dense(target.masks.cpu().numpy()),
            )
            for image, target in zip(to_arrays(batch.images[:limit]), batch.targets[:limit], strict=True)
        ]

    def draw_predictions(self, batch: Batch, limit: int) -> list[UInt8Array]:
        """The first ``limit`` images of a batch with the better detections of the evaluated model."""
        images = batch.images[:limit]
        pictures = []
        for image, found in zip(to_arrays(images), self.evaluated_model.predict(to_float(images)), strict=True):
            shown = found.cpu()[found.cpu().scores >= SCORE_THRESHOLD]
            masks = None if shown.grids is None else shown.grids.paste((image.shape[0], image.shape[1]))
            pictures.append(draw_boxes(image, shown.boxes, shown.labels, self.classes.names, shown.scores, masks))
        return pictures
