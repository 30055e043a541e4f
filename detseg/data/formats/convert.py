"""Which function writes a data set in which format, with the images; each says what its format cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import PackedAnnotations
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco_writer import write_coco_set
from detseg.data.formats.cvat import write_cvat
from detseg.data.formats.labelme import write_labelme
from detseg.data.formats.mask_folder import write_mask_folder
from detseg.data.formats.voc_writer import write_voc_set
from detseg.data.formats.yolo_writer import write_yolo

__all__ = ["WRITERS", "count_written", "unread_values", "write_mask_folder"]

Write = Callable[[Mapping[str, DetectionDataset], Path, bool], list[str]]

WRITERS: dict[str, Write] = {
    "voc": write_voc_set,
    "coco": write_coco_set,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
}
"""Format → what writes splits to a new folder, images as copies or as links, and returns a line for each kind of thing
that the format cannot hold, with its number. The splits have one class table, and were read with a tolerant report, so
that outlines are there. A DataError: there is something in the folder, a file cannot be read or written, or the format
has no place for a name."""


def unread_values(sets: Iterable[DetectionDataset | SegmentationDataset]) -> list[str]:
    """A line on the values of annotation files that readers pass over, so that no copy has them; none without any."""
    reports = [dataset.report for dataset in sets]
    keys = dict.fromkeys(key for report in reports for key in report.examples(DataIssue.OTHER_KEYS, None))
    number = sum(report.count(DataIssue.OTHER_KEYS) for report in reports)
    return [f"values that are not read: {number} ({', '.join(keys)})"] if keys else []


def count_written(
    splits: Mapping[str, DetectionDataset | SegmentationDataset], layout: str
) -> tuple[dict[str, int], int]:
    """The images of each split, and the objects of all, that a writer has written: YOLO text has no crowd regions, and
    a folder of masks has no objects."""
    images, objects = {split: len(dataset) for split, dataset in splits.items()}, 0
    for dataset in splits.values():
        if isinstance(dataset.packed, PackedAnnotations) and layout != "mask_folder":
            left_out = int(dataset.packed.crowd.sum()) if layout == "yolo" else 0
            objects += len(dataset.packed.labels) - left_out
    return images, objects
