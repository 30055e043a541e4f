"""Writes the COCO layout (Lin et al. 2014): a folder of images and one ``annotations/instances_<split>.json`` a split.

Masks are written as uncompressed RLE: lengths of runs of 0 and 1 in turn, column by column, beginning with zeros.

Letters for dimensions: N objects, H and W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detseg.data.datasets.detection import DetectionDataset
from detseg.structures import BoolArray, FloatArray, InstanceMasks, IntArray, UInt8Array


class CocoWriter:
    """Writes images one by one; the layout is complete after ``finish``."""

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        """Make the folder of the annotations.

        Args:
            root: the folder that will hold the layout.
            classes: class names in the order of the labels; the category ids are 1 to C.
        """
        self.root = root
        self.categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
        self._splits: dict[str, dict[str, Any]] = {}
        (root / "annotations").mkdir(parents=True, exist_ok=True)

    def add(
        self, split: str, stem: str, image: UInt8Array, boxes: FloatArray, labels: IntArray, masks: BoolArray
    ) -> None:
        """Write one image to the folder of its split and take down its annotations.

        Args:
            split: name of the folder and of the annotation file.
            stem: name of the image without a suffix.
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xyxy pixels, 0-based and half-open.
            labels: (N,) positions in the class names.
            masks: (N, H, W) bool.

        Raises:
            ValueError: the arrays differ in N.
        """
        if split not in self._splits:
            (self.root / split).mkdir(exist_ok=True)
            self._splits[split] = {"images": [], "annotations": [], "categories": self.categories}
        images, annotations = self._splits[split]["images"], self._splits[split]["annotations"]
        height, width = image.shape[:2]
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width})
        for (x1, y1, x2, y2), label, mask in zip(boxes.tolist(), labels.tolist(), masks, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # not from 0, which pycocotools takes for "not matched"
                    "image_id": image_id,
                    "category_id": self.categories[label]["id"],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": rle_counts(mask)},
                    "iscrowd": 0,
                }
            )
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / split / f"{stem}.jpg", quality=95, subsampling=0)

    def finish(self) -> None:
        """Write the annotation files."""
        for split, content in self._splits.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.write_text(json.dumps(content), encoding="utf-8")


def rle_counts(mask: BoolArray) -> list[int]:
    """(H, W) mask → lengths of its runs in column-major order; the first run is of zeros and may be 0 long."""
    pixels = mask.ravel(order="F")
    if pixels.size == 0:
        return []
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts: list[int] = np.diff(starts, prepend=0, append=pixels.size).tolist()
    return [0, *counts] if pixels[0] else counts


MASK_RESULTS = "detections_masks.json"
"""Name of a file of results with masks and without boxes."""


def coco_ground_truth(dataset: DetectionDataset) -> dict[str, Any]:
    """The annotations of a data set in COCO's form; nothing is decoded.

    Args:
        dataset: from any reader.

    Returns:
        ``images``, ``annotations`` and ``categories`` of plain numbers and strings, ready for ``json.dump``: category
        ids are the source's, annotation ids count from 1 (pycocotools takes a match with id 0 for none), ``iscrowd`` is
        set for crowd and difficult objects, boxes are (x, y, width, height) in pixels; ``segmentation`` holds
        compressed run lengths where the data set has masks.
    """
    packed, source_ids = dataset.packed, dataset.classes.source_ids
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        height, width = packed.hw(index)
        image_id = dataset.image_id(index)
        images.append({"id": image_id, "file_name": packed.path(index), "height": height, "width": width})
        objects = packed.image(index)
        segmentations = _segmentations(objects.masks, len(objects))
        for box, label, ignore, area, segmentation in zip(
            objects.boxes.tolist(),
            objects.labels.tolist(),
            objects.ignore.tolist(),
            objects.area.tolist(),
            segmentations,
            strict=True,
        ):
            x1, y1, x2, y2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": source_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(ignore),
                    **segmentation,
                }
            )
    return {
        "info": {"description": dataset.name},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": source_id, "name": name} for name, source_id in zip(dataset.classes.names, source_ids, strict=True)
        ],
    }


def mask_results(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """COCO results without ``bbox``: where there is one, pycocotools takes the area of the box for that of the mask.

    Args:
        entries: results with ``segmentation``, as ``Detections.to_coco`` gives them.
    """
    return [{key: value for key, value in entry.items() if key != "bbox"} for entry in entries]


def _segmentations(masks: InstanceMasks | None, num: int) -> list[dict[str, Any]]:
    """For each of ``num`` objects the entry of its mask; nothing where there are no masks."""
    if masks is None:
        return [{}] * num
    size = list(masks.hw)
    return [{"segmentation": {"size": size, "counts": counts.decode()}} for counts in masks.counts]
