"""The segmenter: backbone, neck and head give scores, which are brought to the size of the images.

Letters: B images, C classes, K outputs of the head (C, or 1 of two classes), H and W pixels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import FeatureExtractor, LossTerms, SemanticHead
from detseg.models.layers import Normalize
from detseg.models.segmentation.losses import SegmentationLoss


class SemanticSegmenter(nn.Module):
    """A model that finds the class of every pixel; satisfies the ``Segmenter`` contract.

    Args:
        backbone: images to feature maps.
        neck: feature maps to feature maps, or None.
        head: feature maps to scores (``SemanticHead``).  Of two classes it may score the second alone: the first then
            has the logit 0, so that the softmax of both is the sigmoid of the one.
        normalize: how the backbone wants images in [0, 1] normalised.
        criterion: the loss.
        num_classes: C.
        auxiliary: a second head on the same maps that counts in the loss alone.
        auxiliary_weight: weight of its loss.

    Attributes:
        num_classes: C.
        stride: coarsest stride of the backbone; images are padded to multiples of it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module | None,
        head: nn.Module,
        normalize: Normalize,
        criterion: SegmentationLoss,
        num_classes: int,
        auxiliary: nn.Module | None = None,
        auxiliary_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.auxiliary = auxiliary
        self.auxiliary_weight = auxiliary_weight
        self.criterion = criterion
        self.num_classes = num_classes
        self.stride = max(cast(FeatureExtractor, backbone).strides)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] → (B, C, H, W) float32 logits."""
        return self._logits(self.head, self._features(images), _hw(images))

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        """Weighted loss terms of a batch, computed in float32 whatever the precision of the network."""
        return self._losses_and_logits(images, semantic)[0]

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] → (B, C, H, W) float32 logits, without gradients."""
        return cast(Tensor, self(images))

    @torch.no_grad()
    def losses_and_predictions(self, images: Tensor, semantic: Tensor) -> tuple[LossTerms, Tensor]:
        """Both from one forward pass."""
        return self._losses_and_logits(images, semantic)

    def _losses_and_logits(self, images: Tensor, semantic: Tensor) -> tuple[LossTerms, Tensor]:
        features = self._features(images)
        logits = self._logits(self.head, features, _hw(images))
        terms = self._losses(logits, semantic)
        if self.auxiliary is not None:
            others = self._losses(self._logits(self.auxiliary, features, _hw(images)), semantic)
            terms |= {f"{name}_aux": self.auxiliary_weight * term for name, term in others.items()}
        return terms, logits

    def _losses(self, logits: Tensor, semantic: Tensor) -> LossTerms:
        with torch.autocast(logits.device.type, enabled=False):
            return cast(LossTerms, self.criterion(logits, semantic))

    def _features(self, images: Tensor) -> list[Tensor]:
        height, width = _hw(images)  # padded at right and bottom by the backbone's mean
        padded = F.pad(self.normalize(images), (0, -width % self.stride, 0, -height % self.stride))
        features: list[Tensor] = self.backbone(padded)
        return features if self.neck is None else self.neck(features)

    def _logits(self, head: nn.Module, features: list[Tensor], hw: tuple[int, int]) -> Tensor:
        """A head's scores → (B, C, H, W) float32 logits of images of size ``hw``."""
        height, width = hw
        logits = cast(Tensor, head(features)).float()
        stride = cast(SemanticHead, head).stride
        if stride > 1:
            logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
        logits = logits[:, :, :height, :width]
        if logits.shape[1] == 1 and self.num_classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits


def _hw(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
