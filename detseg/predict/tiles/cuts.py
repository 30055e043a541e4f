"""How an image is cut into overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from detseg.errors import ConfigError

_HALF = 2


@dataclass(frozen=True)
class Tiling:
    """How an image is cut."""

    tile_hw: tuple[int, int]  # height and width of a tile, pixels; multiples of ``stride``
    overlap_hw: tuple[int, int]  # pixels that neighbours share at least, along y and x
    stride: int  # every tile begins at a multiple of it: input pixels per cell of the network's coarsest map, or 1

    @classmethod
    def of(cls, tile_hw: tuple[int, int], overlap: int | None, stride: int = 1, default: int = _HALF) -> Tiling:
        """The tiling that a caller asks for.

        Args:
            tile_hw: height and width of a tile, pixels.
            overlap: pixels that neighbours share at least; None: the sides of the tile, divided by ``default``. Label
                maps take half, as in nnU-Net (Isensee et al. 2021), since the receptive field of a network is often
                wider than a quarter.
            stride: 1 where tiles may begin anywhere.
            default: see ``overlap``.

        Raises:
            ConfigError: sizes that the network cannot be tiled with; the message names those that it can.
        """
        are_two = isinstance(tile_hw, tuple | list) and len(tile_hw) == 2
        if not are_two or any(not isinstance(side, Integral) or side < stride or side % stride for side in tile_hw):
            wanted = f"in multiples of {stride}, the network's coarsest stride" if stride > 1 else "in pixels"
            raise ConfigError(f"tile: expected height and width {wanted}, got {tile_hw}")
        largest = min(tile_hw) - stride  # the next tile begins at least one cell further
        if overlap is None:
            height, width = (min(side // default, side - stride) for side in tile_hw)
            return cls(tile_hw, (height, width), stride)
        if not isinstance(overlap, Integral) or not 0 <= overlap <= largest:
            less = f"the network's coarsest stride, {stride}" if stride > 1 else "a pixel"
            raise ConfigError(
                f"overlap: expected 0 to {largest} pixels (the tile's shorter side less {less}), got {overlap}; take "
                f"less overlap or larger tiles"
            )
        return cls(tile_hw, (overlap, overlap), stride)


def starts_of(length: int, tile: int, overlap: int, stride: int = 1) -> list[int]:
    """The first pixel of each tile along an axis of ``length`` pixels, ascending; the last tile is set back so that it
    ends with the axis, or less than ``stride`` behind it."""
    step = (tile - overlap) // stride * stride
    last = max(0, -(-(length - tile) // stride) * stride)
    return [*range(0, last, step), last]
