"""Outlines of objects in plain values, between formats: geometry, parts of one object, and what a format cannot hold.

An outline is COCO's segmentation: polygons ``[[x, y, x, y, ...], ...]`` in pixels, or run lengths, ``{"size": [H, W],
"counts": ...}``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from detseg.data.annotations.collect import AnnotationCollector, own_area
from detseg.data.annotations.model import StatedObject, check_polygon, region_counts
from detseg.messages import counted
from detseg.ops.masks import decode_mask, decode_part, encode_mask, encode_part
from detseg.structures import BoolArray

Polygons = list[list[float]]
Outline = Polygons | dict[str, Any]
Box = tuple[float, float, float, float]

_CORNERS = 64  # of the polygon that stands for an ellipse: at most 0.12 % of its radius inside it
_SAME = 1e-3  # pixels up to which a stated box is that of its outline
FLAGS = ("crowd", "difficult", "truncated")


def ellipse_polygon(center: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> list[float]:
    """64 corners of an ellipse about a centre (x, y), with radii along x and y, turned clockwise; all in pixels."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1)
    polygon: list[float] = corners.round(9).ravel().tolist()
    return polygon


def polygon_bounds(polygons: Polygons) -> Box:
    """The smallest box around polygons, xyxy."""
    x = [value for polygon in polygons for value in polygon[::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def part_outline(part: BoolArray, corner: tuple[int, int], hw: tuple[int, int]) -> dict[str, Any]:
    """An outline from (h, w) pixels whose upper left one lies at (row, column) ``corner`` of an image of height and
    width ``hw``; a ValueError if they reach beyond it."""
    return {"size": list(hw), "counts": encode_part(part, corner, hw).decode()}


def outline_part(outline: dict[str, Any], hw: tuple[int, int]) -> tuple[BoolArray, tuple[int, int]]:
    """The inverse of `part_outline`: the smallest part that holds all pixels, (0, 0) if there are none. A ValueError if
    the run lengths are wrong."""
    part, corner = decode_part(region_counts(outline, hw), hw)
    return part.astype(np.bool_), corner


def mask_bounds(part: BoolArray, corner: tuple[int, int]) -> Box:
    """The smallest half-open box around the pixels of a part; that of the corner alone if there are none."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    top, left = corner
    if not len(rows):
        return float(left), float(top), float(left), float(top)
    return (
        float(left + columns[0]),
        float(top + rows[0]),
        float(left + columns[-1] + 1),
        float(top + rows[-1] + 1),
    )


@dataclass(frozen=True)
class Shape:
    """One shape of an annotation tool: an object, or a part of one that has the same ``group`` and name."""

    name: str
    box: Box
    outline: Outline | None = None
    group: Hashable = None
    flags: Mapping[str, bool] = field(default_factory=dict)  # of FLAGS, those that are set


def join_groups(shapes: Iterable[Shape], hw: tuple[int, int]) -> list[Shape]:
    """The objects of an image: outlines of one name and group become one, at the place of the first."""
    found: dict[Hashable, list[Shape]] = {}
    for number, shape in enumerate(shapes):
        joins = shape.outline is not None and shape.group is not None
        found.setdefault((shape.name, shape.group) if joins else number, []).append(shape)
    return [parts[0] if len(parts) == 1 else _joined(parts, hw) for parts in found.values()]


def _joined(parts: Sequence[Shape], hw: tuple[int, int]) -> Shape:
    outlines = [part.outline for part in parts if part.outline is not None]
    joined: Outline = [polygon for outline in outlines if isinstance(outline, list) for polygon in outline]
    if any(isinstance(outline, dict) for outline in outlines):
        pixels = np.any([decode_mask(region_counts(outline, hw), hw) for outline in outlines], axis=0)
        joined = {"size": list(hw), "counts": encode_mask(pixels).decode()}
    boxes = np.array([part.box for part in parts])
    box: list[float] = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)]).tolist()
    flags = {flag: True for flag in FLAGS if any(part.flags.get(flag) for part in parts)}
    return replace(parts[0], box=(box[0], box[1], box[2], box[3]), outline=joined, flags=flags)


def add_shapes(collector: AnnotationCollector, shapes: Iterable[Shape], hw: tuple[int, int]) -> None:
    """Add the objects of the image that was added last; its height and width are ``hw``."""
    for shape in join_groups(shapes, hw):
        flags = {flag: bool(shape.flags.get(flag)) for flag in FLAGS}
        collector.add_object(shape.name, shape.box, segmentation=shape.outline, **flags)


_AREAS = {True: ("box", "boxes"), False: ("outline", "outlines")}


class Losses:
    """What a format cannot hold of a data set: a count of each kind, as lines of text."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, line: str, noun: str = "object") -> None:
        """Count one more ``noun`` of a kind; ``{}`` in the line stands for their number."""
        self._counts[line, noun] += 1

    def lines(self) -> list[str]:
        """One line for each kind, with its number."""
        return [line.format(counted(number, noun)) for (line, noun), number in self._counts.items()]

    def add_ids(self, tool: str, kind: str, ids: Sequence[int]) -> None:
        """Count the ids of a ``kind``, class or image, that are not those that readers of names give: 1, 2, 3, ..."""
        for _ in range(sum(own != usual for usual, own in enumerate(ids, start=1))):
            self.add(f"ids of {{}}: {tool} has none; they are counted from 1", kind)

    def add_values(
        self, tool: str, stated: StatedObject, outline: Outline | None, bounds: Box, hw: tuple[int, int]
    ) -> None:
        """Count a stated area or box that is not that of the outline (of the box, where there is none)."""
        if outline is not None and max(abs(a - b) for a, b in zip(stated.box, bounds, strict=True)) > _SAME:
            self.add(f"boxes of {{}}, which differ from their outlines: {tool} has one of both; the outline is kept")
        if math.isfinite(stated.area):
            own, of = own_area(bounds, outline, hw), "boxes" if outline is None else "outlines"
            if abs(stated.area - own) > max(1.0, 0.01 * own):
                self.add(f"areas of {{}}, which differ from those of their {of}: {tool} states none; those count")


def checked_outline(stated: StatedObject, hw: tuple[int, int], losses: Losses) -> tuple[Outline | None, Box]:
    """The outline of an object for a writer, with its bounds: None, and the stated box, if there is none, or it is
    wrong or has no pixel, which is counted."""
    outline = stated.segmentation
    try:
        if isinstance(outline, dict):
            part, corner = outline_part(outline, hw)
            if part.size:
                return outline, mask_bounds(part, corner)
            losses.add("masks without a pixel of {}: their boxes are written")
        elif outline is not None:
            if not isinstance(outline, list) or not outline:
                raise ValueError("no polygons")
            for polygon in outline:
                check_polygon(polygon)
            return outline, polygon_bounds(outline)
    except ValueError:
        losses.add("outlines of {}, which cannot be read: their boxes are written")
    return None, stated.box
