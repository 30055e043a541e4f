"""Run lengths against pycocotools and numpy; pasting against plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as referee

from detseg.ops.masks import (
    compressed,
    decode_mask,
    decode_part,
    encode_edges,
    encode_mask,
    encode_part,
    mask_areas,
    mask_bounds,
    paste_grid,
    run_lengths,
)

Mask = npt.NDArray[np.bool_]
FULL, HOLLOW = np.ones((3, 4), dtype=np.bool_), np.zeros((3, 4), dtype=np.bool_)
SIZES = st.tuples(st.just(1), st.integers(1, 300)) | st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = hnp.arrays(np.bool_, SIZES)
LENGTHS = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**31 - 1)), min_size=1, max_size=40)
LETTERS = st.text(alphabet=[chr(48 + k) for k in range(64)], max_size=30)


def in_image(part: Mask, corner: tuple[int, int], hw: tuple[int, int]) -> Mask:
    full = np.zeros(hw, dtype=np.bool_)
    full[corner[0] : corner[0] + part.shape[0], corner[1] : corner[1] + part.shape[1]] = part
    return full


class TestRunLengths:
    @given(MASKS)
    @example(FULL)
    @example(HOLLOW)
    def test_bytes_areas_and_bounds_are_those_of_pycocotools(self, mask: Mask) -> None:
        hw = (mask.shape[0], mask.shape[1])
        counts = encode_mask(mask)
        assert counts == referee.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        assert counts == encode_mask(mask.astype(np.uint8) * 255)  # whatever stands for "inside"
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F").astype(int), [0]])))
        assert counts == encode_edges(edges, mask.size)
        np.testing.assert_array_equal(decode_mask(counts, hw), mask)
        assert mask_areas([counts, counts]).tolist() == [int(mask.sum())] * 2
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert mask_bounds([counts], hw).tolist() == [box]
        assert mask_bounds([], hw).shape == (0, 4)

    @given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
    @example(FULL, 0, 0, 0, 0)  # runs reach from column to column
    @example(FULL, 2, 0, 0, 3)
    def test_a_part_is_the_mask_empty_around_it(self, part: Mask, top: int, left: int, below: int, right: int) -> None:
        hw = (top + part.shape[0] + below, left + part.shape[1] + right)
        whole = in_image(part, (top, left), hw)
        assert encode_part(part, (top, left), hw) == encode_mask(whole)
        assert encode_part(np.asfortranarray(part), (top, left), hw) == encode_mask(whole)
        smallest, corner = decode_part(encode_mask(whole), hw)
        np.testing.assert_array_equal(in_image(smallest.astype(np.bool_), corner, hw), whole)
        if part.any():
            assert smallest[[0, -1]].any(axis=1).all()  # nothing to cut off, on any side
            assert smallest[:, [0, -1]].any(axis=0).all()
        else:
            assert (smallest.shape, corner) == ((0, 0), (0, 0))

    def test_by_hand(self) -> None:
        # Column by column of a 3 x 4 image: 4 pixels outside, 4 inside (row 1 of column 1 to row 1 of column 2), 4 out.
        counts = bytes(referee.frPyObjects({"size": [3, 4], "counts": [4, 4, 4]}, 3, 4)["counts"])
        assert run_lengths(counts).tolist() == [4, 4, 4]
        part, corner = decode_part(counts, (3, 4))
        assert (part.tolist(), corner) == ([[0, 1], [1, 1], [1, 0]], (0, 1))
        assert (part.dtype, part.flags.c_contiguous) == (np.uint8, True)
        nothing = encode_part(np.zeros((0, 0), dtype=np.bool_), (7, 5), (7, 5))
        assert nothing == encode_mask(np.zeros((7, 5), dtype=np.bool_))

    def test_a_large_image_has_long_runs(self) -> None:
        hw = (3000, 4000)  # numbers of five digits of five bits
        counts = encode_part(np.ones((2, 3), dtype=np.bool_), (2998, 3997), hw)
        assert mask_bounds([counts], hw).tolist() == [[3997, 2998, 4000, 3000]]
        part, corner = decode_part(counts, hw)
        assert (part.tolist(), corner) == ([[1, 1, 1], [1, 1, 1]], (2998, 3997))
        full = encode_part(np.ones(hw, dtype=np.bool_), (0, 0), hw)
        assert mask_areas([full]).tolist() == [12_000_000]
        assert decode_part(full, hw)[0].shape == hw

    @pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (6, 0), (0, 7)])
    def test_a_part_beyond_the_image_is_refused(self, corner: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"a part of 3 x 4 at row .* is not inside 8 x 10$"):
            encode_part(FULL, corner, (8, 10))

    @given(LENGTHS)
    def test_run_lengths_of_any_size_are_those_of_pycocotools(self, lengths: list[int]) -> None:
        text = compressed(np.array(lengths, dtype=np.int64))
        assert run_lengths(text).tolist() == lengths
        # Of longer runs pycocotools writes beyond its buffer of 6 characters a run; no image that is read has them.
        shorter = [length % 2**24 for length in lengths]
        if sum(shorter):
            referees = referee.frPyObjects({"size": [1, sum(shorter)], "counts": shorter}, 1, sum(shorter))
            assert compressed(np.array(shorter, dtype=np.int64)) == referees["counts"]

    @given(st.one_of(st.binary(max_size=30), LETTERS.map(str.encode)))
    def test_any_bytes_are_run_lengths_or_refused(self, text: bytes) -> None:
        try:
            lengths = run_lengths(text)
        except ValueError as error:
            assert str(error).startswith("counts: ")  # noqa: PT017 - most are refused
            return
        assert len(lengths) >= 1
        if (np.abs(lengths) < 2**31).all():
            assert run_lengths(compressed(lengths)).tolist() == lengths.tolist()


def sampled(grid: npt.NDArray[np.float32], region: Sequence[float], hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The probability at the centre of every pixel, by the four cells around it, in float64."""
    cells = len(grid)
    padded = np.pad(grid.astype(np.float64), 1)
    x1, y1, x2, y2 = region
    values = np.zeros(hw)
    for row in range(hw[0]):
        for column in range(hw[1]):
            u = (column + 0.5 - x1) / (x2 - x1) * cells - 0.5
            v = (row + 0.5 - y1) / (y2 - y1) * cells - 0.5
            if -1 < u < cells and -1 < v < cells:
                i, j = math.floor(v), math.floor(u)
                a, b = v - i, u - j
                upper = (1 - b) * padded[i + 1, j + 1] + b * padded[i + 1, j + 2]
                lower = (1 - b) * padded[i + 2, j + 1] + b * padded[i + 2, j + 2]
                values[row, column] = (1 - a) * upper + a * lower
    return values


class TestPasting:
    def test_by_hand(self) -> None:
        # One cell of probability 1 over 4 x 4 pixels: along an axis the pixels at 2, 3, 4, 5 have 0.625, 0.875, 0.875,
        # 0.625, and those at 1 and 6 0.375.  Of the products 0.625 ** 2 = 0.390625 alone is below 0.5.
        grid = np.ones((1, 1), dtype=np.float32)
        expected = np.zeros((8, 9), dtype=np.uint8)
        expected[2:6, 2:6] = 1
        at_least = paste_grid(grid, (2, 2, 6, 6), (8, 9), 0.390625)  # exact in binary: a pixel at the threshold is in
        np.testing.assert_array_equal(decode_mask(at_least, (8, 9)), expected)
        expected[[2, 2, 5, 5], [2, 5, 2, 5]] = 0
        half = paste_grid(grid, (2, 2, 6, 6), (8, 9), 0.5)
        np.testing.assert_array_equal(decode_mask(half, (8, 9)), expected)

    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 9),
        *[st.floats(-15, 25)] * 2,
        *[st.floats(0.01, 60)] * 2,
        st.sampled_from([0.2, 0.5, 0.9]),
    )
    @example(0, 5, 5.2, 5.3, 0.01, 0.01, 0.5)  # below a pixel, around no centre
    @example(0, 5, 5.45, 5.45, 0.1, 0.1, 0.2)  # below a pixel, around a centre
    @example(0, 5, -300.0, -300.0, 1000.0, 1000.0, 0.5)  # far beyond every side
    @example(0, 5, 30.0, 3.0, 5.0, 5.0, 0.5)  # outside
    @example(0, 5, -9.0, -9.0, 5.0, 5.0, 0.5)
    def test_as_by_plain_loops(
        self, seed: int, cells: int, x: float, y: float, width: float, height: float, threshold: float
    ) -> None:
        grid = np.random.default_rng(seed).random((cells, cells)).astype(np.float32)
        region, hw = (x, y, x + width, y + height), (11, 14)
        counts = paste_grid(grid, region, hw, threshold)
        expected = sampled(grid, region, hw)
        # Within 1e-4: where a cell is a thousandth of a pixel wide, so are positions less exact by as much.
        decided = np.abs(expected - threshold) > 1e-4
        np.testing.assert_array_equal(decode_mask(counts, hw)[decided], (expected >= threshold)[decided])

    @pytest.mark.parametrize(
        "region", [(3, 3, 3, 3), (3.5, 3.5, 3.5, 3.5), (5, 5, 4, 4), (50, 50, 60, 60), (2, 2, 9, 2)]
    )
    def test_regions_without_area_or_outside_are_at_most_a_pixel(self, region: tuple[float, ...]) -> None:
        counts = paste_grid(np.ones((28, 28), dtype=np.float32), region, (10, 10), 0.5)
        assert mask_areas([counts])[0] <= 1

    def test_a_huge_region_shows_its_middle(self) -> None:
        grid = np.zeros((28, 28), dtype=np.float32)
        grid[:, 14:] = 1
        mask = decode_mask(paste_grid(grid, (-1e7 + 5, -1e7, 1e7 + 5, 1e7), (10, 10), 0.5), (10, 10))
        np.testing.assert_array_equal(mask, np.arange(10) >= 5 + np.zeros((10, 1)))

    def test_blocks_do_not_show(self) -> None:
        """A large object is pasted in blocks of about 699 columns; 20 columns around their border fit one block."""
        grid = np.random.default_rng(3).random((28, 28)).astype(np.float32)
        whole = decode_mask(paste_grid(grid, (3.25, 4.5, 1900, 1490), (1500, 2000), 0.5), (1500, 2000))
        part = decode_mask(paste_grid(grid, (3.25 - 690, 4.5, 1900 - 690, 1490), (1500, 20), 0.5), (1500, 20))
        np.testing.assert_array_equal(whole[:, 690:710], part)
        assert 0.1 < part.mean() < 0.9
