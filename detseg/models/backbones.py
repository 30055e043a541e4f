"""Backbones: images to feature maps of several strides, finest first (the ``FeatureExtractor`` contract).

``CSPBackbone`` is ours and scales by two multipliers; ``TimmBackbone`` wraps any timm model that gives features.
"""

from __future__ import annotations

from typing import Any, cast

import timm
from torch import Tensor, nn

from detseg.models.blocks import ConvNormAct, CSPLayer, SpatialPyramidPool

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
    """A stem and four stages of CSP layers (Wang et al. 2020), the last one followed by spatial pyramid pooling.

    Args:
        depth: multiplies the bottlenecks of a stage (3, 6, 6, 3).
        width: multiplies the channels (64, 128, 256, 512, 1024).
        strides: which of the strides 4, 8, 16, 32 to return.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(self, depth: float, width: float, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        available = (4, 8, 16, 32)
        if not strides or not set(strides) <= set(available):
            raise ValueError(f"a CSP backbone has the strides {available}, got {strides}")
        channels = [scaled_channels(base, width) for base in _BASE_CHANNELS]
        self.stem = ConvNormAct(3, channels[0], stride=2)
        self.stages = nn.ModuleList()
        for i, base_blocks in enumerate(_BASE_BLOCKS):
            stage: list[nn.Module] = [
                ConvNormAct(channels[i], channels[i + 1], stride=2),
                CSPLayer(channels[i + 1], channels[i + 1], scaled_blocks(base_blocks, depth)),
            ]
            if i == len(_BASE_BLOCKS) - 1:
                stage.append(SpatialPyramidPool(channels[i + 1]))
            self.stages.append(nn.Sequential(*stage))
        self.strides = tuple(sorted(strides))
        self.channels = tuple(channels[available.index(stride) + 1] for stride in self.strides)
        self._wanted = [stride in strides for stride in available]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        x = self.stem(images)
        maps = []
        for stage, wanted in zip(self.stages, self._wanted, strict=True):
            x = stage(x)
            if wanted:
                maps.append(x)
        return maps

    def freeze_stages(self, num_stages: int) -> list[nn.Module]:
        """The stem and the stages to freeze when ``num_stages`` of five are frozen (the stem is the first)."""
        return [self.stem, *self.stages][:num_stages]


class TimmBackbone(nn.Module):
    """Feature maps of a timm model.

    Args:
        name: the timm model's name.
        pretrained: download and load its published weights.
        strides: which strides to return; the model must have them.

    Raises:
        ValueError: timm has no such model, it gives no feature maps, or not these strides.
    """

    def __init__(self, name: str, pretrained: bool = False, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        if name not in timm.list_models():
            close = timm.list_models(f"*{name}*")[:3]
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            raise ValueError(f"timm has no model {name!r}{hint}")
        try:
            probe: Any = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"timm model {name!r} gives no feature maps: {error}") from error
        reductions = [int(reduction) for reduction in probe.feature_info.reduction()]
        if not set(strides) <= set(reductions):
            raise ValueError(f"timm model {name!r} has feature maps of strides {reductions}, not {sorted(strides)}")
        indices = tuple(reductions.index(stride) for stride in sorted(strides))
        body: Any = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=indices)
        self.body = body
        self.strides = tuple(int(stride) for stride in body.feature_info.reduction())
        self.channels = tuple(int(num) for num in body.feature_info.channels())
        config = body.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(config.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, ...] = tuple(config.get("std", (0.229, 0.224, 0.225)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        return cast(list[Tensor], self.body(images))

    def freeze_stages(self, num_stages: int) -> list[nn.Module]:
        """The modules to freeze: timm's features are a flat dict of modules, and a stage ends where a map leaves."""
        modules, stages_done = [], 0
        body: Any = self.body
        stage_ends = {str(info["module"]).replace(".", "_") for info in body.feature_info.info}
        for module_name, module in body.named_children():
            if stages_done >= num_stages:
                break
            modules.append(module)
            stages_done += module_name in stage_ends
        return modules
