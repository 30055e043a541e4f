"""Boxes and polygons in JSON → arrays, without a Python number for each coordinate: that takes a fifth of the time.

Letters for dimensions: N boxes, T regions, P polygons, V numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import simdjson

from detseg.data.annotations.regions import MAX_COORDINATE
from detseg.data.formats.json_lots import UnusualJsonError
from detseg.structures import FloatArray, IntArray

_SMALLEST = 6
"""Numbers of a polygon of three corners."""

_OF_NUMBERS = b"0123456789+-.eE \t\r\n"
"""Without these, brackets and commas are left of lists of numbers."""


def read_boxes(parser: simdjson.Parser, boxes: Sequence[msgspec.Raw]) -> FloatArray:
    """(N, 4) float64, the numbers of N texts, each a JSON list of four.

    Args:
        parser: may be used again and again.
        boxes: N texts.

    Raises:
        UnusualJsonError: one of them is something else.
    """
    text = b"[%b]" % b",".join(boxes)
    numbers = _numbers(parser, text)
    if text.translate(None, delete=_OF_NUMBERS) != b"[%b]" % b",".join([b"[,,,]"] * len(boxes)):
        raise UnusualJsonError
    return numbers.reshape(-1, 4)


def read_polygons(parser: simdjson.Parser, regions: Sequence[msgspec.Raw]) -> tuple[FloatArray, IntArray, IntArray]:
    """The numbers of regions that are lists of polygons.

    Args:
        parser: may be used again and again.
        regions: T texts, each a JSON list.

    Returns:
        (V,) float64 x, y, x, y, ...; (P,) int64, how many numbers each polygon has; (T,) int64, how many polygons each
        region has, at least one.

    Raises:
        UnusualJsonError: a region is no list of polygons that can be filled.
    """
    if not regions:
        return np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    text = b"[%b]" % b",".join(regions)
    numbers = _numbers(parser, text)
    lengths, per_region = _layout(text)
    if (
        len(numbers) != lengths.sum()  # or some numbers lie beside the polygons
        or len(per_region) != len(regions)
        or per_region.min() < 1
        or lengths.min() < _SMALLEST
        or (lengths % 2).any()
        or not max(numbers.max(), -numbers.min()) <= MAX_COORDINATE
    ):
        raise UnusualJsonError
    return numbers, lengths, per_region


def _numbers(parser: simdjson.Parser, text: bytes) -> FloatArray:
    """(V,) float64, all numbers of lists in lists."""
    try:
        array = parser.parse(text)
        assert isinstance(array, simdjson.Array)
        # + 0.0: of two zeros one is left
        numbers: FloatArray = np.frombuffer(array.as_buffer(of_type="d"), dtype=np.float64) + 0.0
    except (ValueError, TypeError, RuntimeError) as error:  # no number, more than 64 bits, nested too deep
        raise UnusualJsonError from error
    return numbers


def _layout(text: bytes) -> tuple[IntArray, IntArray]:
    """How long the lists at depth 3 are, by their commas, and how many of them each list at depth 2 has.

    Args:
        text: JSON without strings.

    Raises:
        UnusualJsonError: there are deeper ones, or none.
    """
    structure = np.frombuffer(text.translate(None, delete=_OF_NUMBERS), dtype=np.uint8)
    brackets = np.flatnonzero(structure != ord(","))
    opens = structure[brackets] == ord("[")
    depth = np.cumsum(np.where(opens, 1, -1))
    if depth.max() != 3:
        raise UnusualJsonError
    begins = np.flatnonzero(opens & (depth == 3))
    lengths = brackets[begins + 1] - brackets[begins]  # what lies between are commas
    per_region = np.diff(np.searchsorted(begins, np.flatnonzero(opens & (depth == 2))), append=len(begins))
    return lengths, per_region
