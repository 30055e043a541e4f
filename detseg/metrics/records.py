"""Detections and ground truth of many images as flat arrays: what every detection metric is computed from.

Letters: I images, D detections of all images, G ground-truth objects of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from detseg.structures import BoolArray, Detections, FloatArray, ImageAnnotations, IntArray


@dataclass(frozen=True)
class DetectionRecords:
    """Detections and objects of I images, in pixels of the original images; xyxy, 0-based, half-open.

    Attributes:
        image_ids: (I,) int64, all different.
        detection_image_ids: (D,) int64, the image of each detection.
        detection_boxes: (D, 4) float64 xyxy.
        detection_scores: (D,) float64 in [0, 1].
        detection_labels: (D,) int64.
        object_image_ids: (G,) int64, the image of each object.
        object_boxes: (G, 4) float64 xyxy.
        object_labels: (G,) int64.
        object_ignore: (G,) bool, crowd or difficult: neither right nor wrong to find.
        object_areas: (G,) float64, square pixels.
    """

    image_ids: IntArray
    detection_image_ids: IntArray
    detection_boxes: FloatArray
    detection_scores: FloatArray
    detection_labels: IntArray
    object_image_ids: IntArray
    object_boxes: FloatArray
    object_labels: IntArray
    object_ignore: BoolArray
    object_areas: FloatArray

    @classmethod
    def of_image(cls, image_id: int, detections: Detections, truth: ImageAnnotations) -> DetectionRecords:
        """The records of one image."""
        found = detections.cpu()
        return cls(
            image_ids=np.array([image_id], dtype=np.int64),
            detection_image_ids=np.full(len(found), image_id, dtype=np.int64),
            detection_boxes=found.boxes.detach().numpy().astype(np.float64),
            detection_scores=found.scores.detach().numpy().astype(np.float64),
            detection_labels=found.labels.numpy().astype(np.int64),
            object_image_ids=np.full(len(truth), image_id, dtype=np.int64),
            object_boxes=np.array(truth.boxes, dtype=np.float64).reshape(-1, 4),
            object_labels=np.array(truth.labels, dtype=np.int64),
            object_ignore=np.array(truth.ignore, dtype=np.bool_),
            object_areas=np.array(truth.area, dtype=np.float64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[DetectionRecords]) -> DetectionRecords:
        """The records of several sets of images, which must not overlap, in the order of their image ids.

        The order decides between detections of equal score; ascending ids are what pycocotools goes by.
        """
        parts = [_NO_RECORDS, *parts]
        every = cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))
        return every.picked(
            np.argsort(every.image_ids),
            np.argsort(every.detection_image_ids, kind="stable"),
            np.argsort(every.object_image_ids, kind="stable"),
        )

    def without_images(self, image_ids: IntArray) -> DetectionRecords:
        """The records of all images but the (K,) given ones."""
        return self.picked(
            np.flatnonzero(~np.isin(self.image_ids, image_ids)),
            np.flatnonzero(~np.isin(self.detection_image_ids, image_ids)),
            np.flatnonzero(~np.isin(self.object_image_ids, image_ids)),
        )

    def picked(self, images: IntArray, detections: IntArray, objects: IntArray) -> DetectionRecords:
        """The images, detections and objects at the given positions, in that order."""
        picks = {"image": images, "detection": detections, "object": objects}
        return DetectionRecords(
            *(getattr(self, field.name)[picks[field.name.split("_")[0]]] for field in fields(self)),
        )


_NO_RECORDS = DetectionRecords(
    image_ids=np.zeros(0, dtype=np.int64),
    detection_image_ids=np.zeros(0, dtype=np.int64),
    detection_boxes=np.zeros((0, 4)),
    detection_scores=np.zeros(0),
    detection_labels=np.zeros(0, dtype=np.int64),
    object_image_ids=np.zeros(0, dtype=np.int64),
    object_boxes=np.zeros((0, 4)),
    object_labels=np.zeros(0, dtype=np.int64),
    object_ignore=np.zeros(0, dtype=np.bool_),
    object_areas=np.zeros(0),
)
