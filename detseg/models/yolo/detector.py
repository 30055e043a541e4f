"""The one-stage detector: backbone, neck and head give raw maps, a scheme gives them meaning.

Read it as five steps: priors → assign → losses (``Scheme.losses``), and decode (``Scheme.decode``) → NMS
(``best_detections``).

Letters: B images, K outputs of a cell.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from detseg.models.interface import LossTerms
from detseg.models.layers import Normalize
from detseg.models.yolo.postprocess import Wanted, best_detections
from detseg.models.yolo.scheme import Scheme
from detseg.structures import BoxTargets, DetectorOutput


class YoloDetector(nn.Module):
    """A detector of the YOLO line; satisfies the ``Detector`` contract.

    Args:
        backbone: images to feature maps.
        neck: feature maps to feature maps.
        head: feature maps to raw maps.
        scheme: meaning of the raw maps; an ``nn.Module`` as well.
        normalize: what the backbone wants done to images in [0, 1].
        score_threshold: candidates with a lower score are dropped.
        nms_iou: overlap above which the worse of two detections of a class is dropped.
        max_detections: the best so many detections of an image are kept.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        scheme: Scheme,
        normalize: Normalize,
        score_threshold: float = 0.001,
        nms_iou: float = 0.65,
        max_detections: int = 300,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.scheme = scheme
        self.score_threshold = score_threshold
        self.nms_iou = nms_iou
        self.max_detections = max_detections

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float in [0, 1] → (B, K, H / s, W / s) raw maps, one a stride."""
        features = self.neck(self.backbone(self.normalize(images)))
        return cast(list[Tensor], self.head(features))

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        """Weighted loss terms of a batch, computed in float32 whatever the precision of the network."""
        return self._losses(self(images), targets)

    @torch.no_grad()
    def predict(self, images: Tensor, score_threshold: float = 0.0) -> list[DetectorOutput]:
        """The detections of each of B images, best first, in pixels of ``images``; those below ``score_threshold`` are
        left out, as are those below the model's own."""
        # Whether a candidate is kept depends on better ones alone, so this equals leaving them out afterwards.
        return self._detections(self(images), _hw(images), max(score_threshold, self.score_threshold))

    @torch.no_grad()
    def losses_and_predictions(
        self, images: Tensor, targets: list[BoxTargets]
    ) -> tuple[LossTerms, list[DetectorOutput]]:
        """Both from one forward pass."""
        maps = self(images)
        return self._losses(maps, targets), self._detections(maps, _hw(images), self.score_threshold)

    def _losses(self, maps: list[Tensor], targets: list[BoxTargets]) -> LossTerms:
        with torch.autocast(maps[0].device.type, enabled=False):
            return self.scheme.losses([raw.float() for raw in maps], targets)

    def _detections(self, maps: list[Tensor], hw: tuple[int, int], score_threshold: float) -> list[DetectorOutput]:
        wanted = Wanted(score_threshold, self.nms_iou, self.max_detections)
        with torch.autocast(maps[0].device.type, enabled=False):
            return best_detections(self.scheme, [raw.float() for raw in maps], hw, wanted)


def _hw(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]
