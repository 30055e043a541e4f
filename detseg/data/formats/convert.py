"""Which function writes a data set in which format, with the images; each says what its format cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco_writer import write_coco_set
from detseg.data.formats.cvat import write_cvat
from detseg.data.formats.labelme import write_labelme
from detseg.data.formats.mask_folder import write_mask_folder
from detseg.data.formats.voc_writer import write_voc_set
from detseg.data.formats.yolo import write_yolo

__all__ = ["WRITERS", "write_mask_folder"]

Write = Callable[[Mapping[str, DetectionDataset], Path, bool], list[str]]

WRITERS: dict[str, Write] = {
    "voc": write_voc_set,
    "coco": write_coco_set,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
}
"""Format → what writes splits to a new folder, images as copies or as links, and returns a line for each kind of thing
that the format cannot hold."""
