"""Writes YOLO text: data sets; and detections, a file of boxes for each image, and one of polygons if there are masks.

A line of boxes: class, x and y of the centre, width, height; of a detection its score, too. A line of polygons: class,
then x and y of each corner. Coordinates are fractions of the sides of the image. N objects, P corners, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml

from detseg.atomic_write import write_text
from detseg.data.annotations.model import StatedObject
from detseg.data.annotations.outlines import Polygons, outline_part, signed_area
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.copies import Losses, copy_images
from detseg.structures import BoolArray, FloatArray, InstanceMasks


def write_yolo_boxes(
    path: Path, hw: tuple[int, int], labels: npt.NDArray[Any], boxes: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> None:
    """Write the boxes of an image of height and width ``hw`` pixels, replacing an existing file.

    ``labels``, ``boxes``, ``scores``: (N,), (N, 4) xyxy pixels, (N,) in [0, 1]. A DataError if it cannot be written.
    """
    height, width = hw
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    columns = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, scores]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    write_text(path, "".join(_line(label, row) for label, row in zip(labels.tolist(), rows, strict=True)))


def write_yolo_polygons(path: Path, labels: npt.NDArray[Any], masks: InstanceMasks) -> int:
    """Write the outlines of N masks, see ``outer_polygon``; returns how many were left out because they are empty. A
    DataError if the file cannot be written."""
    height, width = masks.hw
    lines = []
    for i, label in enumerate(labels.tolist()):
        part, (top, left) = masks.part(i)
        if part.size:
            corners = (outer_polygon(part) + np.array([left, top])) / np.array([width, height])
            lines.append(_line(label, corners.ravel().tolist()))
    write_text(path, "".join(lines))
    return len(masks) - len(lines)


def _line(label: int, numbers: Iterable[float], written: Callable[[float], str] = "{:.6f}".format) -> str:
    return " ".join([str(label), *map(written, numbers)]) + "\n"


def outer_polygon(mask: BoolArray) -> FloatArray:
    """The outline of the largest piece of a mask, (h, w) bool, along the outer edges of its pixels, which holds the
    centres of all of them and of no others; holes and other pieces are lost. Pixels that touch at a corner are of one
    piece. Returns (P, 2) float64 x and y, 0 to w and 0 to h pixels, P ≥ 4; a ValueError if no pixel is inside."""
    # OpenCV goes along the centres of pixels. With each of them split into 2 x 2, every corner of an outline has a
    # small pixel of its own: number 2 i for the edge at i, 2 i + 1 for that at i + 1.
    split = mask.view(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, _ = cv2.findContours(split, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        raise ValueError("mask: expected a pixel inside, got none")
    corners = [(np.asarray(outline, dtype=np.int64).reshape(-1, 2) + 1) // 2 for outline in outlines]
    largest = max(corners, key=lambda points: cv2.contourArea(points.astype(np.float32)))
    repeated = (largest == np.roll(largest, 1, axis=0)).all(axis=1)  # at inner corners, which are passed aslant
    polygon: FloatArray = largest[~repeated].astype(np.float64)
    return polygon


def write_yolo(splits: Mapping[str, DetectionDataset], target: Path, link: bool = False) -> list[str]:
    """Write ``data.yaml``, and ``images`` and ``labels`` of each split; see `WRITERS`."""
    losses, four_corners = Losses("YOLO"), False
    for image in copy_images(splits, target, "{}/images", link, losses, read_order=Path):
        lines = [line for stated in image.objects if (line := _object_line(stated, image.hw, losses)) is not None]
        four_corners |= any(len(line.split()) == 9 for line in lines)
        folder = label_folder(image.path.parent.relative_to(target).as_posix())
        write_text(target / folder / f"{image.path.stem}.txt", "".join(lines))
    names = next(iter(splits.values())).classes.names
    content = {split: f"{split}/images" for split in splits} | {"nc": len(names), "names": dict(enumerate(names))}
    if four_corners:  # which are no oriented boxes
        content["task"] = "segment"
    write_text(target / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))
    return losses.lines()


def _object_line(stated: StatedObject, hw: tuple[int, int], losses: Losses) -> str | None:
    """The line of an object; None for a crowd region."""
    if stated.crowd:
        losses.add("crowd regions of {}: YOLO has none; left out")
        return None
    for flag in stated.flags:
        losses.add(f"{flag} flags of {{}}: YOLO has none")
    outline, bounds = losses.outline_of(stated, hw)
    sides = np.array([hw[1], hw[0]], dtype=np.float64)
    if outline is None:
        corners = np.array(bounds).reshape(2, 2) / sides
        values = np.concatenate([corners.mean(axis=0), corners[1] - corners[0]])
        if values.min() < 0 or values.max() > 1:
            losses.add("parts of {} outside their images: YOLO's fractions are 0 to 1; they are clipped")
            corners = np.sort(corners.clip(0, 1), axis=0)
            values = np.concatenate([corners.mean(axis=0), corners[1] - corners[0]])
        return _line(stated.label, values.tolist(), _fraction)
    if isinstance(outline, dict):
        part, (top, left) = outline_part(outline, hw)
        polygons: Polygons = [(outer_polygon(part) + np.array([left, top])).ravel().tolist()]
        if not _covers(polygons[0], part):
            losses.add("masks of {}, which have holes or several pieces: the outline of the largest piece is kept")
    else:
        polygons = outline
    if len(polygons) > 1:
        losses.add("parts of {}: YOLO has one polygon for each; they are joined by seams without area")
    points = _joined(polygons).reshape(-1, 2) / sides
    if points.min() < 0 or points.max() > 1:
        losses.add("parts of {} outside their images: YOLO's fractions are 0 to 1; they are clipped")
        points = points.clip(0, 1)
    return _line(stated.label, points.ravel().tolist(), _fraction)


def _fraction(value: float) -> str:
    """Without the last digits, in which 0.2125 may become 0.21250000000000002."""
    return repr(float(f"{value:.15g}"))


def _covers(polygon: Sequence[float], part: BoolArray) -> bool:
    """Whether the outline of the largest piece of a mask, (h, w), has all of its pixels inside, and no others."""
    pieces = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)[0] - 1
    return pieces == 1 and abs(abs(signed_area(polygon)) - part.sum()) < 0.5


def _joined(polygons: Polygons) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One closed line around all polygons: from the first corner of the first to each other one and back; all turn the
    same way, so that the area within the line is the sum of theirs."""
    start, first = polygons[0][:2], signed_area(polygons[0])
    line = list(polygons[0])
    for polygon in polygons[1:]:
        if signed_area(polygon) * first < 0:
            polygon = np.reshape(polygon, (-1, 2))[::-1].ravel().tolist()
        line += [*start, *polygon, *polygon[:2]]
    return np.array(line, dtype=np.float64)


def label_folder(folder: str, name: str = "labels") -> str:
    """The usual folder of label files for a folder of images; the same one if no part of it is called ``images``."""
    parts = folder.split("/")
    for place in reversed(range(len(parts))):
        if parts[place].lower() == "images":
            return "/".join([*parts[:place], name, *parts[place + 1 :]])
    return folder
