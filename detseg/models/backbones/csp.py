"""Backbones: images to feature maps of several strides, finest first (the ``FeatureExtractor`` contract).

``CSPBackbone`` is ours and scales by two multipliers; ``detseg.models.backbones.unet`` is that of the U-Net paper;
``detseg.models.backbones.timm`` wraps timm's models.
"""

from __future__ import annotations

from torch import Tensor, nn

from detseg.models.layers import ConvNormAct, CSPLayer, SpatialPyramidPool

CSP_FAMILY: dict[str, tuple[float, float]] = {
    "csp_nano": (0.33, 0.25),
    "csp_small": (0.33, 0.5),
    "csp_medium": (0.67, 0.75),
    "csp_large": (1.0, 1.0),
}
"""Depth and width multipliers by name."""

_BASE_CHANNELS = (64, 128, 256, 512, 1024)
_BASE_BLOCKS = (3, 6, 6, 3)


def scaled_channels(base: int, width: float) -> int:
    """``base`` × ``width``, rounded up to a multiple of 8 so that vector units are filled."""
    return max(8, int(-(-base * width // 8) * 8))


def scaled_blocks(base: int, depth: float) -> int:
    """``base`` × ``depth``, rounded, at least one."""
    return max(1, round(base * depth))


class CSPBackbone(nn.Module):
    """A stem and up to four stages of CSP layers (Wang et al. 2020), the last one followed by spatial pyramid pooling.

    Stages beyond the coarsest map asked for are not built: nothing would use, and nothing would train them.

    Args:
        depth: multiplies the bottlenecks of a stage (3, 6, 6, 3).
        width: multiplies the channels (64, 128, 256, 512, 1024).
        strides: which of the strides 2, 4, 8, 16, 32 to return; None: all.

    Raises:
        ValueError: other strides.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self, depth: float, width: float, strides: tuple[int, ...] | None = (8, 16, 32)) -> None:
        super().__init__()
        available = (2, 4, 8, 16, 32)
        strides = available if strides is None else strides
        if not strides or len(set(strides)) != len(strides) or not set(strides) <= set(available):
            raise ValueError(f"a CSP backbone has the strides {list(available)}, got {list(strides)}")
        channels = [scaled_channels(base, width) for base in _BASE_CHANNELS]
        num_stages = available.index(max(strides))  # behind the stem, whose map is that of stride 2
        self.stem = ConvNormAct(3, channels[0], stride=2)
        self.stages = nn.ModuleList()
        for i, base_blocks in enumerate(_BASE_BLOCKS[:num_stages]):
            stage: list[nn.Module] = [
                ConvNormAct(channels[i], channels[i + 1], stride=2),
                CSPLayer(channels[i + 1], channels[i + 1], scaled_blocks(base_blocks, depth)),
            ]
            if i == num_stages - 1:
                stage.append(SpatialPyramidPool(channels[i + 1]))
            self.stages.append(nn.Sequential(*stage))
        self.strides = tuple(sorted(strides))
        self.channels = tuple(channels[available.index(stride)] for stride in self.strides)
        self._wanted = [stride in strides for stride in available[: num_stages + 1]]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        x, maps = images, []
        for stage, wanted in zip([self.stem, *self.stages], self._wanted, strict=True):
            x = stage(x)
            if wanted:
                maps.append(x)
        return maps

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """Those of each stage: the first is the stem, of stride 2; the n-th, from 1, ends at stride 2ⁿ."""
        return [list(stage.parameters()) for stage in (self.stem, *self.stages)]
