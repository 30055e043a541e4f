"""Objects and detections of a whole validation set, made up: what an evaluation works on."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as mask_api

from detseg.metrics.records import DetectionRecords, MaskColumn, MaskRecords
from detseg.structures import FloatArray, IntArray

WIDTH, HEIGHT = 640, 480
_NEAR = 0.35
"""Fraction of the detections that are near an object, mostly of its class; the others are anywhere."""


def synthetic_records(
    num_images: int, num_objects: int, num_detections: int, num_classes: int, seed: int = 0
) -> DetectionRecords:
    """Images that show up to three classes each, some of which are much more frequent than others.

    Sides are 8 to 400 pixels, 1.2 % of the objects are crowd regions; boxes near an object are off by 2, 6 or 15 % of
    its sides, closer ones with better scores; scores are float32 in steps of 1/4096, so that many tie.
    """
    rng = np.random.default_rng(seed)
    frequencies = np.arange(1, num_classes + 1) ** -0.8
    frequencies /= frequencies.sum()
    shown = rng.choice(num_classes, (num_images, 3), p=frequencies)
    object_images = np.sort(rng.integers(0, num_images, num_objects))
    object_labels = shown[object_images, rng.integers(0, 3, num_objects)]
    side, aspect = np.exp(rng.uniform(np.log(8), np.log(400), num_objects)), np.exp(rng.normal(0, 0.4, num_objects))
    sides = np.stack([side * aspect, side / aspect], axis=1).clip(2, (WIDTH, HEIGHT))
    corners = rng.random((num_objects, 2)) * ((WIDTH, HEIGHT) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1)

    like = rng.integers(0, num_objects, num_detections)
    near = rng.random(num_detections) < _NEAR
    images = np.where(near, object_images[like], rng.integers(0, num_images, num_detections))
    guessed = rng.choice(num_classes, num_detections, p=frequencies)
    others = np.where(rng.random(num_detections) < 0.5, shown[images, like % 3], guessed)
    labels = np.where(near & (rng.random(num_detections) < 0.85), object_labels[like], others)
    errors = rng.normal(0, 1, (num_detections, 4)) * rng.choice([0.02, 0.06, 0.15], (num_detections, 1))
    jittered = boxes[like] + errors * np.tile(sides[like], 2)
    found = np.where(near[:, None], jittered, boxes[rng.permutation(like)])
    good = 0.9 - np.abs(errors).max(axis=1) + rng.normal(0, 0.15, num_detections)
    scores = np.where(near, good.clip(0.01, 0.99), rng.beta(1, 6, num_detections))
    by_image = np.argsort(images, kind="stable")
    return DetectionRecords(
        image_ids=np.arange(num_images),
        detection_image_ids=images[by_image],
        detection_boxes=_ordered(found)[by_image].astype(np.float32).astype(np.float64),
        detection_scores=(np.round(scores * 4096) / 4096)[by_image],
        detection_labels=labels[by_image],
        object_image_ids=object_images,
        object_boxes=boxes,
        object_labels=object_labels,
        object_ignore=rng.random(num_objects) < 0.012,
        object_areas=sides.prod(axis=1) * rng.uniform(0.4, 1, num_objects),
    )


def with_ellipses(records: DetectionRecords) -> MaskRecords:
    """The same with the ellipse in each box (24 corners) for its mask."""
    sizes: IntArray = np.tile(np.array([HEIGHT, WIDTH], dtype=np.int64), (len(records.image_ids), 1))
    return MaskRecords(
        **vars(records),
        image_hw=sizes,
        detection_masks=_ellipses(records.detection_boxes),
        object_masks=_ellipses(records.object_boxes),
    )


def _ordered(xyxy: FloatArray) -> FloatArray:
    """Corners in order, inside the image, at least a pixel apart."""
    low = np.minimum(xyxy[:, :2], xyxy[:, 2:]).clip(0, (WIDTH - 2, HEIGHT - 2))
    high = np.maximum(xyxy[:, :2], xyxy[:, 2:]).clip(0, (WIDTH, HEIGHT))
    return np.concatenate([low, np.maximum(high, low + 1)], axis=1)


def _ellipses(xyxy: FloatArray) -> MaskColumn:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    centers, radii = (xyxy[:, :2] + xyxy[:, 2:]) / 2, (xyxy[:, 2:] - xyxy[:, :2]) / 2
    corners = centers[:, None] + radii[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    polygons = corners.reshape(len(xyxy), -1).tolist()
    return np.array([mask_api.frPyObjects([polygon], HEIGHT, WIDTH)[0]["counts"] for polygon in polygons], dtype=object)
