"""The backbones and the neck of torchvision's detectors (``FeatureExtractor`` and ``Neck`` contracts).

ResNet-50 (He et al. 2016) and MobileNetV3-Large (Howard et al. 2019) up to their last feature map, and the feature
pyramid (Lin et al. 2017) without the level pooled from its last map, which the detector makes for its proposals alone.
Their parameters have torchvision's names: its ``backbone.body.X`` is ``body.X`` of the backbone here, its
``backbone.fpn.X`` is ``fpn.X`` of the neck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet50
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d


class _TorchvisionBackbone(nn.Module):
    """Layers one after the other, some of whose outputs are the feature maps.

    Args:
        layers: by torchvision's names, in the order in which they run.
        returned: the layer that each map comes out of, finest first.
        channels, strides: of each map.
        stages: the last layer of each stage; stage n ends at stride 2ⁿ, n counted from 1.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        layers: dict[str, nn.Module],
        returned: Sequence[str],
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        stages: Sequence[str],
    ) -> None:
        super().__init__()
        self.body = nn.ModuleDict(layers)
        self.channels, self.strides = channels, strides
        self._returned = frozenset(returned)
        names = list(layers)
        self._stage_ends = [names.index(last) + 1 for last in stages]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float → one (B, channels[i], H / strides[i], W / strides[i]) map per stride."""
        x, maps = images, []
        for name, layer in self.body.items():
            x = layer(x)
            if name in self._returned:
                maps.append(x)
        return maps

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """Those of each stage; the n-th, from 1, ends at the last map of stride 2ⁿ."""
        layers = list(self.body.values())
        parts = [layers[start:end] for start, end in pairwise([0, *self._stage_ends])]
        return [[parameter for layer in part for parameter in layer.parameters()] for part in parts]


class TorchvisionResNet50(_TorchvisionBackbone):
    """torchvision's ResNet-50 with the maps of strides 4, 8, 16 and 32.

    Args:
        freeze_bn: its batch normalisation has fixed statistics, scales and shifts, as the published weights were
            trained; else it is trained.
        norm_eps: what the normalisation adds to variances.
    """

    def __init__(self, freeze_bn: bool, norm_eps: float = 1e-5) -> None:
        network = resnet50(weights=None, norm_layer=_norm_layer(freeze_bn, norm_eps))
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        super().__init__(
            {name: getattr(network, name) for name in names},
            returned=("layer1", "layer2", "layer3", "layer4"),
            channels=(256, 512, 1024, 2048),
            strides=(4, 8, 16, 32),
            stages=("relu", "layer1", "layer2", "layer3", "layer4"),
        )


class TorchvisionMobileNetV3Large(_TorchvisionBackbone):
    """torchvision's MobileNetV3-Large with two maps, both of stride 32: behind the first block of that stride, and
    behind the last convolution.

    Args:
        freeze_bn: as of ``TorchvisionResNet50``.
    """

    def __init__(self, freeze_bn: bool) -> None:
        # torchvision's detectors do not take the epsilon of its classifiers, 0.001.
        network = mobilenet_v3_large(weights=None, norm_layer=_norm_layer(freeze_bn, 1e-5))
        super().__init__(
            dict(network.features.named_children()),  # "0" to "16"
            returned=("13", "16"),
            channels=(160, 960),
            strides=(32, 32),
            stages=("1", "3", "6", "12", "16"),  # blocks 2, 4, 7 and 13 halve the map
        )


class TorchvisionFPN(nn.Module):
    """torchvision's feature pyramid without the pooled level: convolutions with biases, no activations.

    Args:
        in_channels: channels of the maps that come in, finest first.
        strides: their strides.
        norm: batch normalisation behind each convolution, in place of its bias.
        channels: of every map that goes out.
    """

    def __init__(
        self, in_channels: tuple[int, ...], strides: tuple[int, ...], norm: bool = False, channels: int = 256
    ) -> None:
        super().__init__()
        self.strides = strides
        self.channels = (channels,) * len(in_channels)
        self.fpn = FeaturePyramidNetwork(list(in_channels), channels, norm_layer=nn.BatchNorm2d if norm else None)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps finest first → as many maps of the same sizes."""
        return list(self.fpn({str(i): x for i, x in enumerate(features)}).values())


def _norm_layer(frozen: bool, eps: float) -> Callable[[int], nn.Module]:
    return partial(FrozenBatchNorm2d if frozen else nn.BatchNorm2d, eps=eps)
