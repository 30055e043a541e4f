"""All readers that are tried, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import targets_annotations, targets_pictures, targets_settings
from tests.fuzz.campaign import Target

TARGETS: dict[str, Callable[[Path], Target]] = {
    "voc_xml": targets_annotations.voc_xml,
    "voc_list": targets_annotations.voc_list,
    "coco_boxes": targets_annotations.coco_boxes,
    "coco_masks": targets_annotations.coco_masks,
    "coco_semantic": targets_annotations.coco_semantic,
    "semantic_voc": targets_pictures.semantic_voc,
    "class_names": targets_annotations.class_names,
    "mask_values": targets_pictures.mask_values,
    "mask_colors": targets_pictures.mask_colors,
    "image": targets_pictures.image,
    "config": targets_settings.config,
    "overrides": targets_settings.overrides,
    "checkpoint": targets_settings.checkpoint,
    "checkpoint_records": targets_settings.checkpoint_records,
    "weights": targets_settings.weights,
    "checkpoint_entries": targets_settings.checkpoint_entries,
}
"""Each prepares its target in a folder of its own."""
