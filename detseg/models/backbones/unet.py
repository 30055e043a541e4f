"""The encoder of U-Net (Ronneberger, Fischer, Brox 2015, section 2) as a backbone (the ``FeatureExtractor`` contract).

Other than the paper's, its convolutions are padded, so that maps keep their sizes and skips need no cropping, and batch
normalisation follows each (Ioffe, Szegedy 2015), without which deep levels hardly learn from scratch.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.backbones.csp import scaled_channels
from detseg.models.layers import DoubleConv


class UNetEncoder(nn.Module):
    """Levels of two 3×3 convolutions, with 2×2 max-pooling between them; each level has twice the channels.

    Args:
        width: multiplies the channels (64, 128, 256, 512, 1024, ...).
        levels: how many; the last one has stride 2 ** (levels - 1).
        strides: which of the levels' strides 1, 2, 4, ... to return, the last level's among them; None: all.

    Raises:
        ValueError: strides that the levels do not have, or that leave the last level without use.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self, width: float = 1.0, levels: int = 5, strides: tuple[int, ...] | None = None) -> None:
        super().__init__()
        available = [2**level for level in range(levels)]
        wanted = available if strides is None else sorted(strides)
        if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(available):
            raise ValueError(f"a unet encoder of {levels} levels has the strides {available}, got {wanted}")
        coarsest = wanted[-1]
        if coarsest != available[-1]:
            raise ValueError(
                f"a unet encoder down to stride {coarsest} has {coarsest.bit_length()} levels, got levels {levels}, of "
                "which nothing would use the last"
            )
        channels = [scaled_channels(64 * stride, width) for stride in available]
        self.levels = nn.ModuleList(
            DoubleConv(before, after) for before, after in zip([3, *channels], channels, strict=False)
        )
        self.strides = tuple(wanted)
        self.channels = tuple(channels[available.index(stride)] for stride in wanted)
        self._wanted = [stride in wanted for stride in available]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        x, maps = images, []
        for i, (level, wanted) in enumerate(zip(self.levels, self._wanted, strict=True)):
            x = level(x if i == 0 else F.max_pool2d(x, kernel_size=2))
            if wanted:
                maps.append(x)
        return maps

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """Those of each stage: the n-th, from 1, ends at stride 2ⁿ, so that the first one is the first two levels."""
        parts = [self.levels[:2], *self.levels[2:]]
        return [list(part.parameters()) for part in parts]
