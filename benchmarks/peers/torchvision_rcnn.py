"""torchvision's Faster R-CNN over a timm backbone with a feature pyramid, trained by its own recipe.

Model: "Modifying the model to add a different backbone" of its detection tutorial, with torchvision's
``FeaturePyramidNetwork``. Recipe: the defaults of its ``references/detection/train.py``: SGD, rate 0.02 for 16 images a
step, warm-up over the first epoch, a tenth of the rate after 16 and after 22 of 26 epochs, horizontal flips, float32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR, MultiStepLR
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from detseg.data.datasets.contract import EvalSource
from detseg.structures import UInt8Array

_POOL = 7  # FasterRCNN's default side of the features of a proposal


class TorchvisionRCNN:
    """The detector and its training.

    Args:
        train_set: what it learns.
        backbone: name of the timm model, and its file of weights.
        batch_size, max_epochs: of the training.
        channels, hidden: of the pyramid and of the box head.
        settings: other arguments of ``FasterRCNN``.
    """

    def __init__(
        self,
        train_set: EvalSource,
        backbone: tuple[str, Path],
        batch_size: int,
        max_epochs: int,
        channels: int,
        hidden: int,
        settings: dict[str, Any],
    ) -> None:
        pyramid, num_outputs = _TimmPyramid(*backbone, channels), len(train_set.classes) + 1
        heads = {"box_head": TwoMLPHead(channels * _POOL**2, hidden)}
        heads["box_predictor"] = FastRCNNPredictor(hidden, num_outputs)
        norm = {f"image_{key}": pyramid.body.pretrained_cfg[key] for key in ("mean", "std")}
        self.model: Any = FasterRCNN(pyramid, **heads, **norm, **settings)
        options: dict[str, Any] = {"num_workers": 1, "persistent_workers": True, "collate_fn": _columns}
        self.loader: Any = DataLoader(_Flipped(train_set), batch_size, shuffle=True, **options)
        rate = 0.02 * batch_size / 16
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
        self.schedule = MultiStepLR(self.optimizer, [round(max_epochs * part / 26) for part in (16, 22)], gamma=0.1)
        self.max_epochs = max_epochs

    def epochs(self) -> Iterator[int]:
        """Train; yields each epoch, from 1, when it is done."""
        for epoch in range(1, self.max_epochs + 1):
            self.model.train()
            steps = min(1000, len(self.loader) - 1)
            warm_up = LinearLR(self.optimizer, 1 / 1000, total_iters=steps) if epoch == 1 else None
            for images, targets in self.loader:
                loss = sum(self.model(images, targets).values())
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                if warm_up is not None:
                    warm_up.step()
            self.schedule.step()
            yield epoch

    @torch.inference_mode()
    def __call__(self, image: UInt8Array) -> tuple[Any, Any, Any]:
        """(H, W, 3) uint8 → boxes xyxy in its pixels, labels from 0 on, scores."""
        found = self.model.eval()([_to_float(image)])[0]
        return found["boxes"].numpy(), found["labels"].numpy() - 1, found["scores"].numpy()


class _TimmPyramid(nn.Module):
    """Maps of strides 4 to 64 by name, each of ``out_channels``, as ``FasterRCNN`` asks for them."""

    def __init__(self, name: str, weights: Path, out_channels: int) -> None:
        super().__init__()
        file = {"file": str(weights)}
        options: Any = {"features_only": True, "out_indices": (1, 2, 3, 4)}
        self.body: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=file, **options)
        in_channels: Any = self.body.feature_info
        self.fpn = FeaturePyramidNetwork(in_channels.channels(), out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        named = OrderedDict((str(number), x) for number, x in enumerate(self.body(images)))
        pyramid: OrderedDict[str, Tensor] = self.fpn(named)
        return pyramid


class _Flipped(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """A set of ours in torchvision's form, labels from 1 on; half of the images are flipped."""

    def __init__(self, source: EvalSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        sample = self.source[index]
        image, boxes = _to_float(sample.image), torch.tensor(sample.boxes)
        if torch.rand(()) < 0.5:
            image, boxes[:, [0, 2]] = image.flip(2), image.shape[2] - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": torch.tensor(sample.labels) + 1}


def _to_float(image: UInt8Array) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def _columns(rows: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    return [image for image, _ in rows], [target for _, target in rows]
