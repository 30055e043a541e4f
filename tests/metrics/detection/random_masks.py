"""Random contents of COCO files with masks: of an annotation file in all three forms, and of a result file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as referee_masks

IDS = [17, 3, 40, 8]  # neither sorted nor contiguous; the last one is detected but has no objects


def blob(rng: np.random.Generator, hw: tuple[int, int]) -> NDArray[np.uint8]:
    """An ellipse of any size, perhaps with a hole, perhaps cut by the border."""
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    center, radius = rng.uniform((0, 0), hw), rng.choice([5, 12, 40, 90]) * rng.uniform(0.6, 1.4, 2)
    distance = ((rows - center[0]) / radius[0]) ** 2 + ((columns - center[1]) / radius[1]) ** 2
    mask: NDArray[np.uint8] = ((distance <= 1) & (distance >= rng.choice([0, 0.2]))).astype(np.uint8)
    return mask


def compressed(mask: NDArray[np.uint8]) -> dict[str, Any]:
    rle = referee_masks.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def segmentation(rng: np.random.Generator, mask: NDArray[np.uint8], box: list[float]) -> object:
    """One of the three forms that COCO knows; the polygons are two triangles in the mask's box."""
    kind = rng.integers(3)
    if kind == 0:
        return compressed(mask)
    if kind == 1:
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=0, append=flat[-1]))
        return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0, append=flat.size).tolist()}
    x, y, width, height = box
    right, bottom = x + width, y + height
    return [[x, y, right, y, x, y + height / 2], [right, bottom, x, bottom, right, y + height / 2]]


def random_coco_masks(seed: int, num_images: int, most_detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects and detections near them, crowds, images without either, empty masks; scores tie often."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in rng.permutation(num_images).tolist():
        hw = (int(rng.integers(60, 200)), int(rng.integers(60, 200)))
        images.append({"id": image_id, "height": hw[0], "width": hw[1]})
        blobs = [blob(rng, hw) for _ in range(int(rng.integers(0, 6)))]
        for mask in blobs:
            box = referee_masks.toBbox(referee_masks.encode(np.asfortranarray(mask))).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(IDS[:3])),
                    "bbox": box,
                    "segmentation": segmentation(rng, mask, box),
                    "area": float(mask.sum() * rng.choice([0.5, 1.0])),
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
        for _ in range(int(rng.integers(0, most_detections)) if rng.random() < 0.85 else 0):
            base = blobs[rng.integers(len(blobs))] if blobs else blob(rng, hw)
            mask = np.roll(base, rng.integers(-3, 4, 2), (0, 1)) if rng.random() < 0.9 else np.zeros_like(base)
            box = referee_masks.toBbox(referee_masks.encode(np.asfortranarray(mask)))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice(IDS)),
                    "bbox": (box + rng.integers(0, 9, 4) / 8).tolist(),
                    "segmentation": compressed(mask),
                    "score": float(rng.integers(1, 64) / 64),
                }
            )
    categories = [{"id": source_id, "name": f"class {source_id}"} for source_id in IDS]
    return {"images": images, "categories": categories, "annotations": annotations}, results
