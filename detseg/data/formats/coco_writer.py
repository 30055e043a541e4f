"""Writes COCO's JSON (Lin et al. 2014): whole data sets, annotation files, and files of results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from PIL import Image

from detseg.atomic_write import write_text
from detseg.ops.masks import encode_mask, run_lengths
from detseg.structures import BoolArray, ClassTable, FloatArray, InstanceMasks, IntArray, UInt8Array

if TYPE_CHECKING:
    from detseg.data.datasets.detection import DetectionDataset

RESULTS, MASK_RESULTS = "detections.json", "detections_masks.json"
"""Names of the files of results; the second has no boxes."""


class CocoFile:
    """An annotation file, to which images are added one by one: ``content`` is plain data, ready for ``json.dump``."""

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
        """Add an image, by its path in the folder of images, and its N objects: boxes (xyxy pixels), positions in the
        class table, and other columns of N values under their keys (``area``, ``iscrowd``, ``segmentation``)."""
        self.content["images"].append({"id": image_id, "file_name": file_name, "height": hw[0], "width": hw[1]})
        annotations = self.content["annotations"]
        for (x1, y1, x2, y2), label, *values in zip(boxes, labels, *columns.values(), strict=True):
            # Ids count from 1: pycocotools takes a match with id 0 for none.
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": self._source_ids[label]}
            bbox = [x1, y1, round(x2 - x1, 9), round(y2 - y1, 9)]  # 166.4, not 166.40000000000003
            annotations.append(entry | {"bbox": bbox} | dict(zip(columns, values, strict=True)))


def write_coco_set(splits: Mapping[str, DetectionDataset], target: Path, link: bool = False) -> list[str]:
    """Write for each split ``annotations/instances_SPLIT.json``, and its images in a folder of its name; see `WRITERS`.

    Ids of images (of annotations where there are segmentations; else they count from 1), flags (``iscrowd``; ``ignore``
    of difficult objects, ``truncated``), areas, coordinates and segmentations stay as they are.
    """
    from detseg.data.images.find import copy_names, new_folder, place_image  # results are written without torch

    new_folder(target)
    for split, dataset in splits.items():
        file, placed, ids = CocoFile(dataset.classes), set[str](), _annotation_ids(dataset)
        paths = [dataset.packed.path(index) for index in range(len(dataset))]
        for index, path in enumerate(copy_names(paths, split, by_stem=False)):
            objects = dataset.packed.stated(index)
            boxes, labels = [item.box for item in objects], [item.label for item in objects]
            columns: dict[str, list[Any]] = {
                "area": [None if math.isnan(item.area) else item.area for item in objects],
                "iscrowd": [int(item.crowd) for item in objects],
                "ignore": [int(item.difficult) or None for item in objects],
                "truncated": [int(item.truncated) or None for item in objects],
                "segmentation": [item.segmentation for item in objects],
            }
            if ids is not None:
                columns["id"] = ids[slice(*dataset.packed.offsets[index : index + 2].tolist())].tolist()
            file.add(dataset.image_id(index), path, dataset.hw(index), boxes, labels, **columns)
            if path not in placed:  # a file may list an image twice
                place_image(dataset.path(index), target / split / path, link)
                placed.add(path)
        for entry in file.content["annotations"]:
            for key in [key for key, value in entry.items() if value is None]:
                del entry[key]
        write_text(target / "annotations" / f"instances_{split}.json", json.dumps(file.content))
    tables = dict.fromkeys(dataset.classes for dataset in splits.values())
    return [
        f"order of the classes: COCO's is that of their ids; read it with data.classes: {list(table.names)}"
        for table in list(tables)[:1]
        if list(table.source_ids) != sorted(table.source_ids)
    ]


def _annotation_ids(dataset: DetectionDataset) -> IntArray | None:
    regions = dataset.packed.regions
    if regions is None or not len(regions) or regions.annotation_ids.min() < 1:
        return None
    ids = regions.annotation_ids
    return ids if len(set(ids.tolist())) == len(ids) else None  # several files may have the same


class CocoWriter:
    """Writes a folder of images and an annotation file for each split below ``root``; complete after ``finish``. The
    category ids of ``classes``, names in label order, are 1 to C."""

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        self.root = root
        self._classes = ClassTable(tuple(classes))
        self._splits: dict[str, CocoFile] = {}
        (root / "annotations").mkdir(parents=True, exist_ok=True)

    def add(
        self, split: str, stem: str, image: UInt8Array, boxes: FloatArray, labels: IntArray, masks: BoolArray
    ) -> None:
        """Write one image to the folder of its split; arguments and errors as in `VocWriter.add`."""
        if split not in self._splits:
            (self.root / split).mkdir(exist_ok=True)
            self._splits[split] = CocoFile(self._classes)
        file, hw = self._splits[split], image.shape[:2]
        number, area = len(file.content["images"]) + 1, [int(mask.sum()) for mask in masks]
        rle = [{"size": list(hw), "counts": run_lengths(encode_mask(mask)).tolist()} for mask in masks]
        columns: dict[str, list[Any]] = {"area": area, "segmentation": rle, "iscrowd": [0] * len(masks)}
        file.add(number, f"{stem}.jpg", hw, boxes.tolist(), labels.tolist(), **columns)
        # Full chroma resolution: small coloured objects keep their edges.
        Image.fromarray(image).save(self.root / split / f"{stem}.jpg", quality=95, subsampling=0)

    def finish(self) -> None:
        """Write the annotation files."""
        for split, file in self._splits.items():
            path = self.root / "annotations" / f"instances_{split}.json"
            path.write_text(json.dumps(file.content), encoding="utf-8")


def coco_ground_truth(dataset: DetectionDataset) -> dict[str, Any]:
    """The annotations of a data set as the content of a COCO file, with the source's ids; no image is opened. Crowd and
    difficult objects are ``iscrowd``; masks become compressed run lengths."""
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


def coco_results(
    image_id: int,
    boxes: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    masks: InstanceMasks | None,
    classes: ClassTable,
) -> list[dict[str, Any]]:
    """The N detections of an image as COCO result entries of plain numbers and strings.

    ``boxes``, ``labels``, ``scores``: (N, 4) xyxy pixels, (N,) positions in ``classes``, whose ``source_ids`` are the
    category ids, (N,) in [0, 1]. Without ``masks``, of which there are N, entries have no ``segmentation``.
    """
    entries: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True):
        entry = {"image_id": int(image_id), "category_id": classes.source_ids[label]}
        entries.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
    if masks is not None:
        for entry, counts in zip(entries, masks.counts, strict=True):
            entry["segmentation"] = {"size": list(masks.hw), "counts": counts.decode("ascii")}
    return entries


def result_files(entries: Sequence[Mapping[str, Any]], masks: bool) -> dict[str, list[Mapping[str, Any]]]:
    """The files of results, name → content, of the entries that `coco_results` gives; of masks there is a second one
    without ``bbox``, since pycocotools takes the area of the box for that of the mask."""
    files = {RESULTS: list(entries)}
    if masks:
        files[MASK_RESULTS] = [{key: value for key, value in entry.items() if key != "bbox"} for entry in entries]
    return files
