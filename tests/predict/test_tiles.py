"""Tiles: where they lie, what weight they have, and that no seam shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detseg.errors import ConfigError
from detseg.predict.predictor import as_input
from detseg.predict.tiles.cuts import Tiling
from detseg.predict.tiles.maps import label_tiles, spans
from detseg.structures import Float32Array, UInt8Array
from tests.peaks import growth, measured_apart
from tests.predict.networks import noise, two_levels


def test_places_and_weights_by_hand() -> None:
    # 20 pixels in tiles of 12 that share 6: the step is 6, rounded down to a multiple of 4; so they share 8.
    found = spans(20, tile=12, overlap=6, stride=4)
    assert [(span.start, span.stop) for span in found] == [(0, 12), (4, 16), (8, 20)]
    # 18 pixels: the last tile is cut short by the end of the image, for it begins at a multiple of 4.
    assert [(span.start, span.stop) for span in spans(18, 12, 6, 4)] == [(0, 12), (4, 16), (8, 18)]
    # 16 pixels in two tiles of 12 that share 8: 3 not trusted, 2 that ramp, 3 trusted alone.
    first, second = spans(16, tile=12, overlap=8, stride=4)
    assert (first.start, first.stop, second.start, second.stop) == (0, 12, 4, 16)
    assert first.weights.tolist() == pytest.approx([1] * 7 + [0.75, 0.25] + [0] * 3)
    assert second.weights.tolist() == pytest.approx([0] * 3 + [0.25, 0.75] + [1] * 7)


def test_without_overlap_tiles_lie_side_by_side() -> None:
    found = spans(20, tile=8, overlap=0, stride=4)
    assert [(span.start, span.stop) for span in found] == [(0, 8), (8, 16), (12, 20)]
    assert found[0].weights.tolist() == [1] * 8
    assert found[1].weights.tolist() == [1] * 4 + [0.5] * 4  # the last tile is set back, and shares these


@given(
    length=st.integers(1, 300),
    cells=st.integers(1, 12),
    stride=st.sampled_from([1, 2, 4, 8, 32]),
    fraction=st.floats(0, 1),
)
@settings(max_examples=300)
def test_tiles_cover_the_axis_on_the_grid(length: int, cells: int, stride: int, fraction: float) -> None:
    tile = cells * stride
    overlap = int(fraction * (tile - stride))
    found = spans(length, tile, overlap, stride)
    assert found[0].start == 0
    assert found[-1].stop == length
    total = np.zeros(length, dtype=np.float32)
    for span in found:
        assert span.start % stride == 0
        assert len(span) == min(tile, length - span.start)
        assert len(span.weights) == len(span)
        total[span.start : span.stop] += span.weights
        margin = overlap // 3
        assert not span.weights[: margin if span.start else 0].any()
        assert not span.weights[len(span) - margin if span.stop < length else len(span) :].any()
    np.testing.assert_allclose(total, 1, rtol=1.3e-6)
    for before, after in pairwise(found):
        assert before.stop - after.start >= overlap
    if length <= tile:
        assert len(found) == 1


def tiled_and_whole(
    image: UInt8Array, tile: tuple[int, int], overlap: int | None, batch_size: int
) -> tuple[Tensor, Tensor]:
    """(C, H, W) probabilities in tiles, and those of the whole image in one pass; C = 3."""
    network = two_levels()

    @torch.no_grad()
    def logits_of(tiles: UInt8Array) -> Float32Array:
        assert len(tiles) <= batch_size
        assert tiles.shape[1] <= tile[0]
        assert tiles.shape[2] <= tile[1]
        logits: Float32Array = network.predict(as_input(tiles, torch.device("cpu"))).numpy()
        return logits

    labels, chances = label_tiles(image, Tiling.of(tile, overlap, 4), logits_of, 3, batch_size, True)
    assert chances is not None
    with torch.no_grad():
        whole = network.predict(as_input(image[None], torch.device("cpu")))[0]
    np.testing.assert_array_equal(labels, chances.argmax(axis=0))
    return torch.from_numpy(chances), whole.softmax(dim=0)


@pytest.mark.parametrize(
    ("hw", "tile", "overlap"),
    [
        ((150, 203), (64, 96), 48),  # 150 and 203 are no multiples of the stride
        ((150, 203), (96, 64), 60),  # at each place up to 16 tiles
        ((64, 203), (64, 64), 48),
        ((300, 50), (64, 64), 48),
        ((129, 129), (128, 128), 45),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_wide_overlaps_leave_no_trace(
    hw: tuple[int, int], tile: tuple[int, int], overlap: int, batch_size: int
) -> None:
    tiled, whole = tiled_and_whole(noise(*hw), tile, overlap, batch_size)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


def test_without_overlap_seams_show_and_with_the_default_they_are_less() -> None:
    image = noise(150, 203)
    worst = []
    for overlap in (0, 24, 45):  # 24: of it 9 pixels have no weight; the network sees 15
        tiled, whole = tiled_and_whole(image, (64, 64), overlap, 1)
        worst.append(float((tiled - whole).abs().max()))
    assert worst[0] > 0.05  # the test would notice
    assert worst[0] > 2 * worst[1]
    assert worst[2] < 1e-5


@pytest.mark.parametrize("hw", [(64, 64), (40, 50), (3, 61), (1, 1)])
def test_an_image_that_fits_into_a_tile_is_seen_whole(hw: tuple[int, int]) -> None:
    tiled, whole = tiled_and_whole(noise(*hw), (64, 64), None, 1)
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)


def test_the_default_overlap_is_half_of_each_side() -> None:
    assert Tiling.of((128, 64), None, 32).overlap_hw == (64, 32)
    assert Tiling.of((32, 64), None, 32).overlap_hw == (0, 32)  # the next tile begins a cell further at least


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ((60, 64), None, r"^tile: expected height and width in multiples of 32, .*, got \(60, 64\)$"),
        ((64, 0), None, "^tile: expected height and width in multiples of 32"),
        ((64, 128), 64, r"^overlap: expected 0 to 32 pixels .*, got 64; take less overlap or larger tiles$"),
        ((64, 128), 33, "^overlap: expected 0 to 32 pixels"),
    ],
)
def test_sizes_that_cannot_be_tiled_are_refused(tile: tuple[int, int], overlap: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tiling.of(tile, overlap, 32)


def peak_of_tiles() -> int:
    """Bytes of main memory that tiling a large image takes at most."""
    image, answer = (
        np.zeros((1000, 3000, 3), dtype=np.uint8),
        np.random.default_rng(0).random((1, 21, 256, 256), dtype=np.float32),
    )

    def label(image: UInt8Array) -> object:
        tiling = Tiling.of((256, 256), None, 32)
        return label_tiles(image, tiling, lambda x: answer[:, :, : x.shape[1], : x.shape[2]], 21, 1, False)

    label(image[:300, :600])  # what libraries take on first use is not meant
    return growth(lambda: label(image))[1]


def test_logits_are_held_for_one_row_of_tiles_only() -> None:
    (peak,) = measured_apart("from tests.predict.test_tiles import peak_of_tiles; print(peak_of_tiles())")
    one_row = 21 * 256 * 3000 * 4  # 64 MB; of the whole image it would be 252 MB
    assert peak < 2.5 * one_row
