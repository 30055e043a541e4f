"""The evaluator of detections: COCO AP of boxes and masks, VOC AP, precision and recall at the best F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.metrics.coco import CocoNumbers, coco_numbers
from detseg.metrics.detection_result import ClassResult, DetectionResult, diagnosis_inputs
from detseg.metrics.interface import class_weights_of, mean_defined
from detseg.metrics.records import DetectionRecords, FoundObjects, MaskRecords
from detseg.metrics.voc import BestMatches, average_precisions, best_f1, best_matches, rank_classes
from detseg.structures import Batch, ClassTable, DetectorOutput, FloatArray, ImageAnnotations

_VOC_IOU = 0.5


class DetectionEvaluator:
    """Collects detections and ground truth; an image counts once, by the detections that were added first.

    Args:
        classes: of the ground truth and the detections.
        max_detections: detections of a class in an image that the COCO numbers count; COCO's rule is 100.
        f1_iou: IoU in (0, 1] from which a detection is right in precision, recall and F1, by VOC's matching rule.
        masks: score the masks of the detections too, by COCO's rules; all other numbers are of boxes.
        class_weights: by name, 1 for the classes that it leaves out, for a weighted mean of AP; None: there is none.

    Raises:
        ValueError: a number is out of its range; a ConfigError if a weight is for a class that there is not.
    """

    def __init__(
        self,
        classes: ClassTable,
        max_detections: int = 100,
        f1_iou: float = 0.5,
        masks: bool = False,
        class_weights: Mapping[str, float] | None = None,
    ) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections: expected 1 or more, got {max_detections}")
        if not 0 < f1_iou <= 1:
            raise ValueError(f"f1_iou: expected a number above 0 and up to 1, got {f1_iou}")
        self.classes = classes
        self.max_detections = max_detections
        self.f1_iou = f1_iou
        self.masks = masks
        self.class_weights = class_weights_of(classes.names, class_weights)
        self._records_type: type[DetectionRecords] = MaskRecords if masks else DetectionRecords
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._parts: list[DetectionRecords] = []
        self._seen: set[int] = set()

    def update(self, image_id: int, detections: FoundObjects, truth: ImageAnnotations) -> None:
        """Add one image, unless it was added before.

        Args:
            image_id: unique in the data set.
            detections: in pixels of the original image: of a predictor with ``score_threshold=0``, or a detector's, in
                main memory.
            truth: the objects of the image as its annotations state them.

        Raises:
            ValueError: a label outside the class table, another class table, a box or score that is not finite, or,
                where masks are scored, missing masks or masks of different image sizes.
        """
        if image_id in self._seen:
            return
        own: ClassTable | None = getattr(detections, "classes", None)  # a predictor's results name their classes
        if own and own.names != self.classes.names:
            names = list(own.names), list(self.classes.names)
            raise ValueError(f"image {image_id}: the detections' classes {names[0]} are not the evaluator's {names[1]}")
        part = self._records_type.of_image(image_id, detections, truth)
        for where, labels in (("detections", part.detection_labels), ("ground truth", part.object_labels)):
            wrong = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(wrong):
                highest = len(self.classes) - 1
                raise ValueError(f"image {image_id}: {where}: expected labels from 0 to {highest}, got {wrong[0]}")
        _check_finite(f"image {image_id}: boxes of detections", part.detection_boxes)
        _check_finite(f"image {image_id}: scores of detections", part.detection_scores)
        _check_finite(f"image {image_id}: boxes of the ground truth", part.object_boxes)
        self._parts.append(part)
        self._seen.add(image_id)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All images as plain arrays by name, for another process to ``merge``."""
        return self._records_type.concatenate(self._parts).to_state()

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add the images of another evaluator's ``state`` that are not there yet."""
        seen = np.array(sorted(self._seen), dtype=np.int64)
        part = self._records_type.from_state(state).without_images(seen)
        self._parts.append(part)
        self._seen.update(part.image_ids.tolist())

    def update_batch(self, batch: Batch, detections: Sequence[DetectorOutput]) -> None:
        """Add the images of an evaluation batch; ``detections`` are in pixels of its network input."""
        originals = batch.to_original(detections)
        for image_id, truth, found in zip(batch.image_ids, batch.annotations, originals, strict=True):
            self.update(image_id, found.cpu(), truth)

    @property
    def records(self) -> DetectionRecords:
        """Everything collected so far, by image id."""
        return self._records_type.concatenate(self._parts)

    def compute(self) -> DetectionResult:
        """Score everything collected so far; the state stays."""
        records = self.records
        coco = coco_numbers(records, self.classes, self.max_detections)
        matches = best_matches(records)
        classes = self._class_results(records, matches, coco)
        num_ignored = int(np.count_nonzero(records.object_ignore))
        return DetectionResult(
            coco=coco.summary,
            voc07_ap50=mean_defined([row.voc07_ap50 for row in classes]),
            voc10_ap50=mean_defined([row.voc10_ap50 for row in classes]),
            classes=classes,
            num_images=len(records.image_ids),
            num_objects=len(records.object_ignore) - num_ignored,
            num_ignored=num_ignored,
            num_detections=len(records.detection_scores),
            max_detections=self.max_detections,
            f1_iou=self.f1_iou,
            evidence=diagnosis_inputs(records, matches, self.max_detections),
            masks=coco_numbers(records, self.classes, self.max_detections, "segm") if self.masks else None,
            class_weights=self.class_weights,
        )

    def _class_results(
        self, records: DetectionRecords, matches: BestMatches, coco: CocoNumbers
    ) -> tuple[ClassResult, ...]:
        num_classes = len(self.classes)
        for_ap = rank_classes(records, matches, _VOC_IOU, num_classes)
        for_f1 = rank_classes(records, matches, self.f1_iou, num_classes)
        num_detections = np.bincount(records.detection_labels, minlength=num_classes).tolist()
        rows = zip(self.classes.names, for_ap, num_detections, coco.class_ap, coco.class_ap50, for_f1, strict=True)
        return tuple(
            ClassResult(
                name, ranked.num_objects, num, ap, ap50, *average_precisions(ranked), **best_f1(other)._asdict()
            )
            for name, ranked, num, ap, ap50, other in rows
        )


def _check_finite(where: str, values: FloatArray) -> None:
    num_wrong = int(np.count_nonzero(~np.isfinite(values)))
    if num_wrong:
        raise ValueError(f"{where}: {num_wrong} of {values.size} numbers are NaN or infinite; has training diverged?")
