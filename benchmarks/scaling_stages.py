"""The stages whose growth is measured: each function makes the work of one size."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detseg.config.schema.data import AugmentationConfig
from detseg.config.schema.model import YoloConfig
from detseg.data.formats.coco import read_coco
from detseg.data.loading.loader import train_loader
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.factory.yolo import build_detector
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.segmentation import pair_counts
from detseg.models.yolo.detector import NmsLimits, YoloDetector, best_detections
from detseg.structures import BoxTargets, ClassTable, DetectorOutput, ImageAnnotations

Work = Callable[[], object]

_SIDE = 320
_CLASSES = 20
_BATCH = 4
_AUGMENTED = AugmentationConfig.model_validate(
    {"affine": {"probability": 1.0}, "color": {"probability": 1.0}, "mosaic": 0.0, "min_box_size": 1}
)


def coco_index(folder: Path, num_images: int, num_objects: int = 7) -> Work:
    """Reading an annotation file of so many images for the first time; image files are empty."""
    root = folder / f"coco{num_images}x{num_objects}"
    file = _write_coco(root, num_images, num_objects)

    return lambda: read_coco(root, file)


def coco_objects(folder: Path, num_objects: int) -> Work:
    """The same for 2000 images with so many objects each."""
    return coco_index(folder, 2000, num_objects)


def epoch_order(num_images: int) -> Work:
    """Dealing out an epoch of so many images."""
    sampler = EpochBatchSampler(num_images, 16, 0, (_SIDE, _SIDE))
    return lambda: list(sampler)


def loading(folder: Path, side: int) -> Work:
    """Sixteen training samples at this input size from images of 480×640."""
    return _loading(folder, side, num_objects=20)


def loading_objects(folder: Path, num_objects: int) -> Work:
    """Sixteen training samples with so many objects each."""
    return _loading(folder, _SIDE, num_objects)


def network(side: int) -> Work:
    """One forward pass of the nano model over a square image."""
    return partial(_forward, _detector(_CLASSES), torch.rand(1, 3, side, side))


def network_batch(num_images: int) -> Work:
    """One forward pass over so many images."""
    return partial(_forward, _detector(_CLASSES), torch.rand(num_images, 3, _SIDE, _SIDE))


def loss(num_objects: int) -> Work:
    """Assignment and loss of a batch whose images hold so many objects each, without the network."""
    return _loss(num_objects, _CLASSES)


def loss_classes(num_classes: int) -> Work:
    """The same with twenty objects an image and so many classes."""
    return _loss(20, num_classes)


def suppression(num_candidates: int) -> Work:
    """From raw maps of 640×640 pixels and 20 classes to detections; so many scores of the image are above threshold."""
    return _suppression(_CLASSES, num_candidates)


def suppression_classes(num_classes: int) -> Work:
    """The same with half of all scores above threshold."""
    return _suppression(num_classes, 8400 * num_classes // 2)


def evaluation(num_images: int) -> Work:
    """COCO's numbers of so many images."""
    return _evaluator(num_images, 50, _CLASSES).compute


def evaluation_detections(num_detections: int) -> Work:
    """COCO's numbers of 300 images with so many detections each."""
    return _evaluator(300, num_detections, _CLASSES).compute


def evaluation_classes(num_classes: int) -> Work:
    """COCO's numbers of 500 images and so many classes."""
    return _evaluator(500, 50, num_classes).compute


def confusion(num_pixels: int) -> Work:
    """Counting so many pixels of 20 classes."""
    return _confusion(num_pixels, _CLASSES)


def confusion_classes(num_classes: int) -> Work:
    """Counting a million pixels of so many classes."""
    return _confusion(2**20, num_classes)


def _detector(num_classes: int) -> YoloDetector:
    torch.manual_seed(0)
    return build_detector(YoloConfig(), num_classes).eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def _forward(model: YoloDetector, images: torch.Tensor) -> list[torch.Tensor]:
    return model.forward(images)


def _loss(num_objects: int, num_classes: int) -> Work:
    scheme = _detector(num_classes).scheme
    maps = [torch.randn(_BATCH, 64 + num_classes, _SIDE // s, _SIDE // s) for s in (8, 16, 32)]
    targets = [_targets(num_objects, num_classes) for _ in range(_BATCH)]
    return lambda: scheme.losses([raw.requires_grad_() for raw in maps], targets)


def _targets(num_objects: int, num_classes: int) -> BoxTargets:
    corners = torch.rand(num_objects, 2) * (_SIDE - 40)
    boxes = torch.cat([corners, corners + 8 + torch.rand(num_objects, 2) * 32], dim=1)
    labels = torch.randint(num_classes, (num_objects,))
    return BoxTargets(boxes, labels, torch.zeros(num_objects, dtype=torch.bool))


def _suppression(num_classes: int, num_candidates: int) -> Work:
    scheme = _detector(num_classes).scheme
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, 64 + num_classes, 640 // s, 640 // s, generator=generator) for s in (8, 16, 32)]
    for raw in maps:  # a share of the scores above threshold, the others far below
        chosen = torch.rand(raw[:, 64:].shape, generator=generator) < num_candidates / (8400 * num_classes)
        raw[:, 64:] = torch.where(chosen, raw[:, 64:], -20.0)
    wanted = NmsLimits(0.001, 0.65, 300)
    return lambda: best_detections(scheme, maps, (640, 640), wanted)


def _evaluator(num_images: int, num_detections: int, num_classes: int) -> DetectionEvaluator:
    rng = np.random.default_rng(0)
    evaluator = DetectionEvaluator(ClassTable(tuple(f"class {k}" for k in range(num_classes))))
    for image_id in range(num_images):
        true, labels = _boxes(rng, 7), rng.integers(0, num_classes, 7)
        pick = rng.integers(0, 7, num_detections)
        moved = true[pick] + rng.normal(0, 8, (num_detections, 1))
        detections = DetectorOutput(
            torch.from_numpy(moved).float(),
            torch.from_numpy(rng.random(num_detections)).float(),
            torch.from_numpy(labels[pick]),
        )
        flags = np.zeros(7, dtype=np.bool_)
        area = np.prod(true[:, 2:] - true[:, :2], axis=1)
        evaluator.update(image_id, detections, ImageAnnotations(true, labels, flags, flags, flags, area))
    return evaluator


def _boxes(rng: np.random.Generator, num: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    corners = rng.random((num, 2)) * 500
    return np.concatenate([corners, corners + 10 + rng.random((num, 2)) * 130], axis=1)


def _confusion(num_pixels: int, num_classes: int) -> Work:
    predicted, truth = (torch.randint(num_classes, (num_pixels,), dtype=torch.uint8) for _ in range(2))
    return lambda: pair_counts(predicted, truth)


def _loading(folder: Path, side: int, num_objects: int) -> Work:
    root = folder / f"pictures{num_objects}"
    num_images = 16
    file = _write_coco(root, num_images, num_objects, pictures=True)
    loader = train_loader(
        read_coco(root, file),
        _AUGMENTED,
        input_hw=(side, side),
        batch_size=num_images,
        num_workers=0,
        seed=0,
        max_epochs=1,
    )
    return lambda: list(loader)


def _write_coco(root: Path, num_images: int, num_objects: int, pictures: bool = False) -> Path:
    """An annotation file of boxes with polygons, and its images of 480×640: photographs of noise, or empty files."""
    file = root / "instances.json"
    if file.exists():
        return file
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for number in range(1, num_images + 1):
        path = root / f"{number}.jpg"
        if pictures:
            noise = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), (9, 9), 3)
            cv2.imwrite(str(path), noise)
        else:
            path.touch()
        for x1, y1, x2, y2 in np.clip(_boxes(rng, num_objects), 0, 479).round(2).tolist():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                }
            )
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 480, "width": 640} for n in range(1, num_images + 1)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file
