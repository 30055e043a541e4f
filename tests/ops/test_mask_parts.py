"""Parts of masks from run lengths, against masks in full and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from detseg.ops.masks import decode_part, encode_mask, encode_part, run_lengths


def test_a_part_by_hand() -> None:
    # Column by column of a 3 x 4 image: 4 pixels outside, 4 inside (row 1 of column 1 to row 1 of column 2), 4 outside.
    counts = bytes(mask_api.frPyObjects({"size": [3, 4], "counts": [4, 4, 4]}, 3, 4)["counts"])
    assert run_lengths(counts).tolist() == [4, 4, 4]
    part, corner = decode_part(counts, (3, 4))
    assert corner == (0, 1)
    assert part.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert part.dtype == np.uint8
    assert part.flags.c_contiguous


@pytest.mark.parametrize("hw", [(1, 1), (7, 5)])
def test_empty_and_full(hw: tuple[int, int]) -> None:
    part, corner = decode_part(encode_mask(np.zeros(hw, dtype=bool)), hw)
    assert (part.shape, corner) == ((0, 0), (0, 0))
    part, corner = decode_part(encode_mask(np.ones(hw, dtype=bool)), hw)
    assert (part.shape, corner) == (hw, (0, 0))
    assert part.all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_parts_are_as_small_as_can_be_and_go_back(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    top, left = int(rng.integers(height)), int(rng.integers(width))
    window = mask[top : top + int(rng.integers(1, height + 1)), left : left + int(rng.integers(1, width + 1))]
    window[:] = rng.random(window.shape) < share
    counts = bytes(mask_api.encode(np.asfortranarray(mask))["counts"])
    part, (top, left) = decode_part(counts, (height, width))
    again = np.zeros_like(mask)
    again[top : top + part.shape[0], left : left + part.shape[1]] = part
    np.testing.assert_array_equal(again, mask)
    if mask.any():
        assert part[0].any()
        assert part[-1].any()
        assert part[:, 0].any()
        assert part[:, -1].any()
        assert encode_part(part, (top, left), (height, width)) == counts
