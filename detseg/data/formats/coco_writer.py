"""Writes COCO's JSON (Lin et al. 2014): annotation files, and the entries of `Detections.to_coco` as files of results.

Letters for dimensions: N objects, H and W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from detseg.data.datasets.detection import DetectionDataset
from detseg.ops.masks import encode_mask, run_lengths
from detseg.structures import BoolArray, ClassTable, FloatArray, IntArray, UInt8Array

RESULTS, MASK_RESULTS = "detections.json", "detections_masks.json"
"""Names of the files of results; the second has no boxes."""


class CocoFile:
    """The content of an annotation file, to which images are added one by one.

    Attributes:
        content: ``images``, ``annotations`` and ``categories`` of plain numbers and strings, ready for ``json.dump``.
            Annotation ids count from 1: pycocotools takes a match with id 0 for none.
    """

    def __init__(self, classes: ClassTable) -> None:
        self._source_ids = classes.source_ids
        categories = [{"id": i, "name": name} for i, name in zip(classes.source_ids, classes.names, strict=True)]
        self.content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}

    def add(
        self,
        image_id: int,
        file_name: str,
        hw: tuple[int, int],
        boxes: Iterable[Sequence[float]] = (),
        labels: Iterable[int] = (),
        **columns: Iterable[Any],
    ) -> None:
        """Add an image and its N objects.

        Args:
            image_id: its id.
            file_name: relative to the folder of the images.
            hw: its height and width in pixels.
            boxes: N boxes, xyxy pixels.
            labels: N positions in the class table.
            columns: other values of the N objects, under their keys: ``area``, ``iscrowd``, ``segmentation``.

        Raises:
            ValueError: the columns differ in length.
        """
        self.content["images"].append({"id": image_id, "file_name": file_name, "height": hw[0], "width": hw[1]})
        annotations = self.content["annotations"]
        for (x1, y1, x2, y2), label, *values in zip(boxes, labels, *columns.values(), strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": self._source_ids[label]}
            annotations.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]} | dict(zip(columns, values, strict=True)))


class CocoWriter:
    """Writes a folder of images and an annotation file for each split; the layout is complete after ``finish``.

    Args:
        root: the folder that will hold the layout; the folder for the annotations is made.
        classes: class names in the order of the labels; the category ids are 1 to C.
    """

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        self.root = root
        self._classes = ClassTable(tuple(classes))
        self._splits: dict[str, CocoFile] = {}
        (root / "annotations").mkdir(parents=True, exist_ok=True)

    def add(
        self, split: str, stem: str, image: UInt8Array, boxes: FloatArray, labels: IntArray, masks: BoolArray
    ) -> None:
        """Write one image to the folder of its split and add its annotations.

        Args:
            split: name of the folder and of the annotation file.
            stem: name of the image without a suffix.
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) xyxy pixels, 0-based and half-open.
            labels: (N,) positions in the class names.
            masks: (N, H, W) bool; written as uncompressed run lengths.

        Raises:
            ValueError: the arrays differ in N.
        """
        if split not in self._splits:
            (self.root / split).mkdir(exist_ok=True)
            self._splits[split] = CocoFile(self._classes)
        file, (height, width) = self._splits[split], image.shape[:2]
        file.add(
            len(file.content["images"]) + 1,
            f"{stem}.jpg",
            (height, width),
            boxes.tolist(),
            labels.tolist(),
            area=[int(mask.sum()) for mask in masks],
            segmentation=[
                {"size": [height, width], "counts": run_lengths(encode_mask(mask)).tolist()} for mask in masks
            ],
            iscrowd=[0] * len(masks),
        )
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / split / f"{stem}.jpg", quality=95, subsampling=0)

    def finish(self) -> None:
        """Write the annotation files."""
        for split, file in self._splits.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.write_text(json.dumps(file.content), encoding="utf-8")


def coco_ground_truth(dataset: DetectionDataset) -> dict[str, Any]:
    """The annotations of a data set as the content of a COCO file; no image is opened.

    Args:
        dataset: from any reader.

    Returns:
        as `CocoFile.content`: category ids are the source's, ``iscrowd`` is set for crowd and difficult objects,
        ``segmentation`` holds compressed run lengths where the data set has masks.
    """
    file = CocoFile(dataset.classes)
    for index in range(len(dataset)):
        objects = dataset.annotations(index)
        columns: dict[str, list[Any]] = {"area": objects.area.tolist(), "iscrowd": objects.ignore.astype(int).tolist()}
        if objects.masks is not None:
            size = list(objects.masks.hw)
            columns["segmentation"] = [{"size": size, "counts": c.decode()} for c in objects.masks.counts]
        boxes, labels = objects.boxes.tolist(), objects.labels.tolist()
        file.add(dataset.image_id(index), dataset.packed.path(index), dataset.hw(index), boxes, labels, **columns)
    return {"info": {"description": dataset.name}} | file.content


def result_files(entries: Sequence[Mapping[str, Any]], masks: bool) -> dict[str, list[Mapping[str, Any]]]:
    """The files of results: name → content.

    Args:
        entries: as `Detections.to_coco` gives them.
        masks: whether they have masks. Then there is a second file without ``bbox``: where there is one, pycocotools
            takes the area of the box for that of the mask.
    """
    without_boxes: list[Mapping[str, Any]] = [
        {key: value for key, value in entry.items() if key != "bbox"} for entry in entries
    ]
    return {RESULTS: list(entries)} | ({MASK_RESULTS: without_boxes} if masks else {})
