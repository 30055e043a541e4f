"""Any timm model as a backbone (the ``FeatureExtractor`` contract)."""

from __future__ import annotations

import difflib
from typing import Any, cast

import timm
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from torch import Tensor, nn

from detseg.errors import DetsegError
from detseg.messages import one_line


class TimmBackbone(nn.Module):
    """Feature maps of a timm model.

    Args:
        name: the timm model's name; with a pretrained tag (``resnet18.a1_in1k``) where not the default weights are
            wanted.
        pretrained: load its published weights, downloading them on first use.
        strides: which strides to return; the model must have them.  None: each that it has, 32 the coarsest.

    Raises:
        ValueError: timm has no such model, it gives no feature maps, not these strides, or not for images of any size.
        DetsegError: the published weights could not be loaded.
    """

    def __init__(self, name: str, pretrained: bool = False, strides: tuple[int, ...] | None = (8, 16, 32)) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            raise ValueError(f"timm has no model {name!r}{hint}")
        try:
            probe: Any = timm.create_model(name, pretrained=False, features_only=True)
        except Exception as error:  # whatever the one among a thousand constructors raises
            raise ValueError(f"timm model {name!r} gives no feature maps ({one_line(error)})") from error
        if pretrained and not timm.models.is_model_pretrained(name):
            raise ValueError(f"timm publishes no weights for {name!r}; set pretrained to false, or take another model")
        reductions = [int(reduction) for reduction in probe.feature_info.reduction()]
        if strides is None:
            strides = tuple({stride for stride in reductions if stride <= 32})
        if not strides or len(set(strides)) != len(strides) or not set(strides) <= set(reductions):
            raise ValueError(f"timm model {name!r} has feature maps of strides {reductions}, not {sorted(strides)}")
        # Where several maps share a stride, the last one has seen most layers.
        positions = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in sorted(strides)]
        self._reached = dict(zip(reductions, _parameters_reached(probe, name), strict=True))
        self.body: Any = _create_features(name, pretrained, [probe.feature_info.out_indices[i] for i in positions])
        self.strides = tuple(reductions[i] for i in positions)
        self.channels = tuple(int(probe.feature_info.channels()[i]) for i in positions)
        self.mean: tuple[float, ...] = tuple(self.body.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.body.pretrained_cfg["std"])
        # Layers that some models carry behind the maps never get a gradient, which distributed training refuses.
        used: set[str] = set().union(*(self._reached[stride] for stride in self.strides))
        for parameter_name, parameter in self.body.named_parameters():
            parameter.requires_grad_(parameter_name in used)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        return cast(list[Tensor], self.body(images))

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """Those of each stage: of the n-th, from 1, the map of stride 2ⁿ is computed, and none before it; empty where
        the model has no such map."""
        stages, before = list[list[nn.Parameter]](), set[str]()
        for stride in (2**n for n in range(1, max(self._reached).bit_length())):
            own = self._reached.get(stride, set()) - before
            stages.append([parameter for name, parameter in self.body.named_parameters() if name in own])
            before |= own
        return stages


def _create_features(name: str, pretrained: bool, out_indices: list[int]) -> Any:
    try:
        return timm.create_model(name, pretrained, features_only=True, out_indices=out_indices)
    except Exception as error:  # whatever the downloaders under timm raise
        if not pretrained:
            raise
        cache = f"{HF_HUB_CACHE} (or {torch.hub.get_dir()}/checkpoints)"
        raise DetsegError(
            f"model.backbone.pretrained: the published weights of timm model {name!r} could not be loaded "
            f"({one_line(error)}); timm looks for them in {cache}, then on the network: connect once, copy that "
            f"folder from a machine that has them, or set model.backbone.pretrained=false"
        ) from error


@torch.enable_grad()
def _parameters_reached(features: Any, name: str) -> list[set[str]]:
    """The names of the parameters that each map of a timm model is computed from.

    Autograd says it whatever the model's structure, on the meta device, where nothing is computed.  ``features`` is of
    no use afterwards.
    """
    height, width = 64, 96
    features.to("meta").eval()
    try:
        maps = features(torch.zeros(1, 3, height, width, device="meta"))
    except Exception as error:  # models for one size of images assert, raise, or fail in a reshape
        raise ValueError(f"timm model {name!r} does not take images of any size ({one_line(error)})") from error
    info = features.feature_info
    expected = [(1, num, height // s, width // s) for num, s in zip(info.channels(), info.reduction(), strict=True)]
    if [tuple(x.shape) for x in maps] != expected:
        raise ValueError(f"timm model {name!r} has maps of shapes {[tuple(x.shape) for x in maps]}, not {expected}")
    names, parameters = zip(*features.named_parameters(), strict=True)
    reached = []
    for x in maps:
        gradients = torch.autograd.grad(x.sum(), parameters, retain_graph=True, allow_unused=True)
        reached.append({name for name, gradient in zip(names, gradients, strict=True) if gradient is not None})
    return reached
