"""The two-stage detector: features → proposals → regions (Ren et al. 2015; He et al. 2017).

Letters: B images, A anchors of a cell.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.interface import LossTerms
from detseg.models.layers import Normalize
from detseg.models.rcnn.roi_heads import RoIHeads
from detseg.models.rcnn.rpn import AnchorOutputs, RegionProposalNetwork
from detseg.structures import BoxTargets, DetectorOutput


class RCNNDetector(nn.Module):
    """Faster R-CNN, or Mask R-CNN where the heads find masks; satisfies the ``Detector`` contract.

    Args:
        backbone: images to feature maps.
        neck: feature maps to feature maps of one width.
        rpn: feature maps to proposals; has one level more than the neck, pooled from its last map.
        roi_heads: proposals to detections.
        normalize: how the backbone wants images in [0, 1] normalised.
        output_of_label: the output of the class layer of each label; None: label + 1.  Output 0 is background; an
            output that no label has, as those of COCO's unused ids, is never detected.
    """

    output_of_label: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        normalize: Normalize,
        output_of_label: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.roi_heads = roi_heads
        outputs = None if output_of_label is None else torch.tensor(output_of_label)
        self.register_buffer("output_of_label", outputs, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float in [0, 1] → (B, 5A, H / s, W / s) raw maps of the proposals, one a level: A objectness
        logits, then 4 differences for each anchor."""
        return self._raw_maps(self.features(images))

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        """Weighted loss terms of a batch, computed in float32 whatever the precision of the network. ValueError: sides
        that the coarsest stride does not divide, or objects without the masks that are learned."""
        self._check(images, targets)
        features = self.features(images)
        return self._losses(features, self.read(features, images), _hw(images), targets)

    @torch.no_grad()
    def predict(self, images: Tensor) -> list[DetectorOutput]:
        """The detections of each of B images, best first, in pixels of ``images``."""
        self._check(images, [])
        features = self.features(images)
        return self._detections(features, self.read(features, images), _hw(images))

    @torch.no_grad()
    def losses_and_predictions(
        self, images: Tensor, targets: list[BoxTargets]
    ) -> tuple[LossTerms, list[DetectorOutput]]:
        """Both from one pass through backbone, neck and proposal head; raises as ``losses``."""
        self._check(images, targets)
        features = self.features(images)
        outputs = self.read(features, images)
        return self._losses(features, outputs, _hw(images), targets), self._detections(features, outputs, _hw(images))

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float in [0, 1] → the maps of the neck, finest first, from which regions are pooled."""
        return cast(list[Tensor], self.neck(self.backbone(self.normalize(images))))

    def _raw_maps(self, features: list[Tensor]) -> list[Tensor]:
        # Large objects have anchors of their own, on a map half as fine as the last (Lin et al. 2017, section 4.1).
        pooled = F.max_pool2d(features[-1], kernel_size=1, stride=2)
        return cast(list[Tensor], self.rpn([*features, pooled]))

    def read(self, features: list[Tensor], images: Tensor) -> AnchorOutputs:
        """What the first stage predicts for each anchor of the images that the features are of."""
        return self.rpn.read(self._raw_maps(features), _hw(images))

    def _losses(
        self, features: list[Tensor], outputs: AnchorOutputs, hw: tuple[int, int], targets: list[BoxTargets]
    ) -> LossTerms:
        terms = self.rpn.losses(outputs, targets)
        proposals = self.rpn.propose(outputs, hw, training=True)
        return terms | self.roi_heads.losses(features, proposals, hw, [self._with_outputs(t) for t in targets])

    def _detections(self, features: list[Tensor], outputs: AnchorOutputs, hw: tuple[int, int]) -> list[DetectorOutput]:
        proposals = self.rpn.propose(outputs, hw, training=False)
        return self.roi_heads.detect(features, proposals, hw, self.output_of_label)

    def _with_outputs(self, target: BoxTargets) -> BoxTargets:
        """The same objects, their labels being outputs of the class layer."""
        outputs = target.labels + 1 if self.output_of_label is None else self.output_of_label[target.labels]
        return replace(target, labels=outputs)

    def _check(self, images: Tensor, targets: list[BoxTargets]) -> None:
        # Else the cells of a map do not cover the image, and anchors are misplaced.
        stride = int(cast(Any, self.neck).strides[-1])
        if any(side % stride for side in _hw(images)):
            raise ValueError(
                f"images: expected sides that are multiples of {stride} pixels, got {_hw(images)[0]} x "
                f"{_hw(images)[1]}; letterbox them to such a size"
            )
        if self.roi_heads.has_masks:
            _check_masks(targets, _hw(images))


def _check_masks(targets: list[BoxTargets], hw: tuple[int, int]) -> None:
    for i, target in enumerate(targets):
        expected = f"targets: image {i} of the batch: expected"
        if target.masks is None and len(target):
            raise ValueError(
                f"{expected} a mask for each of its {len(target)} objects, which a mask head needs, got boxes alone"
            )
        if target.masks is not None and target.masks.shape[1:] != hw:
            got = " x ".join(map(str, target.masks.shape[1:]))
            raise ValueError(f"{expected} masks of the images' {hw[0]} x {hw[1]} pixels, got {got}")


def _hw(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
