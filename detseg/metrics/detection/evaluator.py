"""The one evaluator of detections: in training, in ``tools/evaluate.py`` and for exported models.

It collects detections and ground truth image by image and scores them by COCO's rules (pycocotools), by VOC's, and at
the best threshold of each class; with masks, also those by COCO's rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.metrics.detection.coco import CocoNumbers, coco_mask_numbers, coco_numbers
from detseg.metrics.detection.diagnosis import gather_evidence
from detseg.metrics.detection.records import DetectionRecords, MaskRecords
from detseg.metrics.detection.result import ClassResult, DetectionResult, MaskNumbers
from detseg.metrics.detection.voc_matching import (
    BestMatches,
    best_matches,
    best_operating_point,
    match_at_iou,
    rank_classes,
    voc07_average_precision,
    voc10_average_precision,
)
from detseg.metrics.nan_values import mean_defined
from detseg.structures import Batch, ClassTable, Detections, FloatArray, ImageAnnotations, IntArray

_VOC_IOU = 0.5


class DetectionEvaluator:
    """Collects detections and ground truth; an image counts once, however often it comes.

    A distributed sampler repeats images to fill the last batches.  The first detections of an image are kept; later
    ones may differ in the last bits, when the image was computed in another batch.

    Args:
        classes: of the ground truth and the detections.
        max_detections: how many detections of a class in an image the COCO numbers count; COCO's rule is 100.
        operating_iou: IoU in (0, 1] from which a detection is right in precision, recall and F1, which are judged by
            VOC's matching rule.
        masks: score the masks of the detections too; all other numbers are of boxes.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, classes: ClassTable, max_detections: int = 100, operating_iou: float = 0.5, masks: bool = False
    ) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections: expected 1 or more, got {max_detections}")
        if not 0 < operating_iou <= 1:
            raise ValueError(f"operating_iou: expected a number above 0 and up to 1, got {operating_iou}")
        self.classes = classes
        self.max_detections = max_detections
        self.operating_iou = operating_iou
        self.masks = masks
        self._kind: type[DetectionRecords] = MaskRecords if masks else DetectionRecords
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._parts: list[DetectionRecords] = []
        self._seen: set[int] = set()

    def update(self, image_id: int, detections: Detections, truth: ImageAnnotations) -> None:
        """Add one image, unless it is there already.

        Args:
            image_id: unique in the data set.
            detections: in pixels of the original image.
            truth: the objects of the image as its annotations state them.

        Raises:
            ValueError: a label outside the class table, another class table, a box or score that is not finite, or,
                where masks are scored, no masks or masks of different image sizes.
        """
        if image_id in self._seen:
            return
        if len(detections.classes) and detections.classes.names != self.classes.names:
            raise ValueError(
                f"image {image_id}: the detections' classes {list(detections.classes.names)} are not the evaluator's "
                f"{list(self.classes.names)}"
            )
        part = self._kind.of_image(image_id, detections, truth)
        self._check_labels(f"image {image_id}: detections", part.detection_labels)
        self._check_labels(f"image {image_id}: ground truth", part.object_labels)
        _check_finite(f"image {image_id}: boxes of detections", part.detection_boxes)
        _check_finite(f"image {image_id}: scores of detections", part.detection_scores)
        _check_finite(f"image {image_id}: boxes of the ground truth", part.object_boxes)
        self._parts.append(part)
        self._seen.add(image_id)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All images as plain arrays by name, for another process to ``merge``."""
        return self._kind.concatenate(self._parts).to_state()

    def merge(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add the images of another evaluator's ``state`` that are not there yet."""
        seen = np.array(sorted(self._seen), dtype=np.int64)
        part = self._kind.from_state(state).without_images(seen)
        self._parts.append(part)
        self._seen.update(part.image_ids.tolist())

    def update_batch(self, batch: Batch, detections: Sequence[Detections]) -> None:
        """Add the images of an evaluation batch; ``detections`` are in pixels of its network input."""
        for image_id, truth, found in zip(
            batch.image_ids, batch.annotations, batch.to_original(detections), strict=True
        ):
            self.update(image_id, found, truth)

    def compute(self) -> DetectionResult:
        """Score everything collected so far; the state stays."""
        records = self._kind.concatenate(self._parts)
        coco = coco_numbers(records, self.classes, self.max_detections)
        overlaps = best_matches(records)
        rows = self._class_results(records, overlaps, coco)
        return DetectionResult(
            coco=coco.summary,
            voc07_ap50=mean_defined([row.voc07_ap50 for row in rows]),
            voc10_ap50=mean_defined([row.voc10_ap50 for row in rows]),
            classes=rows,
            num_images=len(records.image_ids),
            num_objects=int(np.count_nonzero(~records.object_ignore)),
            num_ignored=int(np.count_nonzero(records.object_ignore)),
            num_detections=len(records.detection_scores),
            max_detections=self.max_detections,
            operating_iou=self.operating_iou,
            evidence=gather_evidence(records, overlaps),
            masks=self._mask_numbers(records),
        )

    def _mask_numbers(self, records: DetectionRecords) -> MaskNumbers | None:
        if not isinstance(records, MaskRecords):
            return None
        numbers = coco_mask_numbers(records, self.classes, self.max_detections)
        return MaskNumbers(numbers.summary, tuple(numbers.class_ap.tolist()), tuple(numbers.class_ap50.tolist()))

    def _class_results(
        self, records: DetectionRecords, overlaps: BestMatches, coco: CocoNumbers
    ) -> tuple[ClassResult, ...]:
        num_classes = len(self.classes)
        by_voc = rank_classes(records, match_at_iou(records, overlaps, _VOC_IOU), num_classes)
        by_operation = rank_classes(records, match_at_iou(records, overlaps, self.operating_iou), num_classes)
        num_detections = np.bincount(records.detection_labels, minlength=num_classes).tolist()
        rows = []
        for label, (name, ranking) in enumerate(zip(self.classes.names, by_voc, strict=True)):
            point = best_operating_point(by_operation[label])
            rows.append(
                ClassResult(
                    name=name,
                    num_objects=ranking.num_objects,
                    num_detections=num_detections[label],
                    ap=float(coco.class_ap[label]),
                    ap50=float(coco.class_ap50[label]),
                    voc07_ap50=voc07_average_precision(ranking),
                    voc10_ap50=voc10_average_precision(ranking),
                    precision=point.precision,
                    recall=point.recall,
                    f1=point.f1,
                    threshold=point.threshold,
                )
            )
        return tuple(rows)

    def _check_labels(self, where: str, labels: IntArray) -> None:
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(f"{where}: expected labels from 0 to {len(self.classes) - 1}, got {wrong[0]}")


def _check_finite(where: str, values: FloatArray) -> None:
    num_wrong = int(np.count_nonzero(~np.isfinite(values)))
    if num_wrong:
        raise ValueError(f"{where}: {num_wrong} of {values.size} numbers are NaN or infinite; has training diverged?")
