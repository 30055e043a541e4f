"""The ground truth of a data set as COCO JSON, so that pycocotools alone can score results against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from detseg.data.dataset import DetectionDataset
from detseg.structures import InstanceMasks

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
