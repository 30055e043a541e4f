"""Outlines of objects in plain values, between formats: geometry, and the parts of one object.

An outline is COCO's segmentation: polygons ``[[x, y, x, y, ...], ...]`` in pixels, or run lengths, ``{"size": [H, W],
"counts": ...}``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detseg.data.annotations.model import FLAGS, region_counts
from detseg.ops.masks import decode_mask, decode_part, encode_mask, encode_part, mask_areas, mask_bounds
from detseg.structures import BoolArray

Polygons = list[list[float]]
Outline = Polygons | dict[str, Any]
Box = tuple[float, float, float, float]

_CORNERS = 64  # of the polygon that stands for an ellipse: at most 0.12 % of its radius inside it


def ellipse_polygon(center: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> list[float]:
    """64 corners of an ellipse about a centre (x, y), with radii along x and y, turned clockwise; all in pixels."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1)
    polygon: list[float] = corners.round(9).ravel().tolist()
    return polygon


def outline_bounds(outline: Outline, hw: tuple[int, int]) -> Box:
    """The smallest box around polygons or the pixels of run lengths, xyxy; zeros if there are no pixels."""
    if isinstance(outline, dict):
        x1, y1, x2, y2 = mask_bounds((region_counts(outline, hw),), hw)[0].tolist()
        return x1, y1, x2, y2
    x = [value for polygon in outline for value in polygon[::2]]
    y = [value for polygon in outline for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def own_area(box: Sequence[float], segmentation: Any, hw: tuple[int, int]) -> float:
    """The area of an object for which none is stated, square pixels: that of the polygons or run lengths in an image of
    height and width ``hw``; without them (None) that of the box."""
    if isinstance(segmentation, list):
        return sum(abs(signed_area(polygon)) for polygon in segmentation)
    if segmentation is not None:
        return float(mask_areas((region_counts(segmentation, hw),))[0])
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def clip_polygon(polygon: Sequence[float], hw: tuple[int, int]) -> list[float]:
    """The part of a polygon ``[x, y, x, y, ...]`` inside an image of height and width ``hw``: Sutherland and Hodgman's
    algorithm; empty if there is none."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    for axis, sign, limit in ((0, 1, 0), (1, 1, 0), (0, -1, hw[1]), (1, -1, hw[0])):
        inner, kept = sign * (points[:, axis] - limit), list[Any]()  # at least 0 inside
        for k, point in enumerate(points):
            if (inner[k - 1] < 0) != (inner[k] < 0):
                kept.append(points[k - 1] + (point - points[k - 1]) * (inner[k - 1] / (inner[k - 1] - inner[k])))
            if inner[k] >= 0:
                kept.append(point)
        points = np.array(kept).reshape(-1, 2)
    flat: list[float] = points.ravel().tolist()
    return flat if len(points) > 2 else []


def signed_area(polygon: Sequence[float]) -> float:
    """The area of a polygon ``[x, y, x, y, ...]``, negative if it turns the other way round."""
    x, y = np.array(polygon[::2]), np.array(polygon[1::2])
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def part_outline(part: BoolArray, corner: tuple[int, int], hw: tuple[int, int]) -> dict[str, Any]:
    """An outline from (h, w) pixels whose upper left one lies at (row, column) ``corner`` of an image of height and
    width ``hw``; a ValueError if they reach beyond it."""
    return {"size": list(hw), "counts": encode_part(part, corner, hw).decode()}


def outline_part(outline: dict[str, Any], hw: tuple[int, int]) -> tuple[BoolArray, tuple[int, int]]:
    """The inverse of `part_outline`: the smallest part that holds all pixels, (0, 0) if there are none. A ValueError if
    the run lengths are wrong."""
    part, corner = decode_part(region_counts(outline, hw), hw)
    return part.astype(np.bool_), corner


class RotatedError(ValueError):
    """A box is turned."""


@dataclass(frozen=True)
class Shape:
    """One shape of an annotation tool: an object, or a part of one that has the same ``group`` and name."""

    name: str
    box: Box
    outline: Outline | None = None
    group: Hashable = None
    flags: tuple[str, ...] = ()  # of FLAGS, those that are set


def flags_of(stated: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags of a shape from what a file states; ``ignore`` is the same as ``difficult``."""
    return tuple(flag for flag in FLAGS if stated.get(flag) or (flag == "difficult" and stated.get("ignore")))


def is_unread(name: str) -> bool:
    """Whether `flags_of` passes over a flag."""
    return name not in (*FLAGS, "ignore")


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
    flags = tuple(flag for flag in FLAGS if any(flag in part.flags for part in parts))
    return replace(parts[0], box=outline_bounds(joined, hw), outline=joined, flags=flags)
