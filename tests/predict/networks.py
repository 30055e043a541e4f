"""Small segmenters with random weights, checkpoints of them without training, and a detector of given masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.checkpoint import model_entry
from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.structures import ClassTable, DetectorOutput, RoiMasks, UInt8Array

CLASSES = ClassTable(("sky", "road", "car"))


class TwoLevels(nn.Module):
    """A segmenter with maps of strides 1 and 4, zero padding, and logits at full size; it sees 15 pixels far at most.

    One pixel by the 3 x 3 convolution at stride 1; below it one cell by that at stride 4 and one by the bilinear
    interpolation, which with the cell itself is less than 3 cells of 4 pixels.
    """

    stride = 4

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 6, 3, padding=1)
        self.coarse = nn.Conv2d(6, 6, 3, padding=1)
        self.score = nn.Conv2d(12, num_classes, 1)

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] → (B, C, H, W) float32 logits."""
        height, width = images.shape[-2:]
        padded = F.pad(images - 0.45, (0, -width % 4, 0, -height % 4))
        fine = self.fine(padded).relu()
        coarse = self.coarse(F.avg_pool2d(fine, 4)).relu()
        both = torch.cat([fine, F.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)], dim=1)
        logits: Tensor = 20 * self.score(both)
        return logits[:, :, :height, :width]


def two_levels(num_classes: int = 3) -> TwoLevels:
    """The same weights at every call; on ``noise`` no class wins everywhere."""
    torch.manual_seed(0)
    network = TwoLevels(num_classes).eval()
    with torch.no_grad():
        logits = network.predict(torch.from_numpy(noise(100, 130)).permute(2, 0, 1)[None].float() / 255)
        network.score.bias -= logits.mean(dim=(0, 2, 3)) / 20
    return network


def noise(height: int, width: int) -> UInt8Array:
    """A picture of random blots, (H, W, 3) uint8, that no two places of share."""
    rng = np.random.default_rng(height * 10007 + width)
    coarse = torch.from_numpy(rng.random((1, 3, height // 8 + 2, width // 8 + 2)).astype(np.float32))
    blots = F.interpolate(coarse, size=(height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()
    return np.clip(blots * 200 + rng.random((height, width, 3)) * 55, 0, 255).astype(np.uint8)


def write_unet(path: Path, classes: ClassTable = CLASSES) -> Path:
    """A checkpoint of a small U-Net (coarsest stride 4) as training would leave it, with the weights of its start."""
    settings = {
        "model": {"name": "unet", "backbone": {"name": "unet", "width": 0.0625, "levels": 3}},
        "data": {"name": "voc", "root": "nowhere", "classes": list(classes.names), "image_size": [48, 64]},
    }
    return _write_checkpoint(path, settings, classes)


def _write_checkpoint(path: Path, settings: dict[str, Any], classes: ClassTable) -> Path:
    config = config_from_dict(settings, "settings")
    torch.manual_seed(1)
    model = build_model(config.model, classes)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = model_entry(config.model_dump(mode="json"), classes)
    torch.save({"state_dict": state, "epoch": 0, "detseg": entry}, path)
    return path


def write_rcnn(path: Path, name: str, classes: ClassTable = CLASSES) -> Path:
    """A checkpoint of a small ``faster_rcnn`` or ``mask_rcnn`` as training would leave it, with random weights."""
    settings: dict[str, Any] = {
        "model": {
            "name": name,
            "backbone": {"width": 0.0625, "depth": 0.1, "name": "csp_nano"},
            "neck": {"channels": 16},
            "roi_heads": {"hidden": 16},
            "score_threshold": 0.0,
            "max_detections": 10,
        },
        "data": {"name": "shapes", "image_size": [64, 96]},
        "evaluation": {"max_detections": 10},
    }
    if name == "mask_rcnn":
        settings["model"]["mask"] = {"channels": 8, "convolutions": 1}
    return _write_checkpoint(path, settings, classes)


class FoundMasks(nn.Module):
    """A detector that finds the same objects in every image, each with a grid of its mask: rings of several widths.

    Args:
        regions: (N, 4) xyxy in pixels of the network input: the boxes, and what the grids cover.
        num_classes: labels go round.
        cells: along a side of a grid.
    """

    def __init__(self, regions: Tensor, num_classes: int = 3, cells: int = 28) -> None:
        super().__init__()
        num = len(regions)
        self.register_buffer("regions", regions)
        self.register_buffer("labels", torch.arange(num) % num_classes)
        self.register_buffer("scores", 1 - torch.arange(num) / (2.0 * max(num, 1)))
        across = (torch.arange(cells) + 0.5) / cells * 2 - 1
        radius = (across[:, None] ** 2 + across**2).sqrt()
        holes = torch.arange(num) % 5 / 10.0
        self.register_buffer("grids", torch.sigmoid(20 * torch.minimum(0.9 - radius, radius - holes[:, None, None])))

    def predict(self, images: Tensor) -> list[DetectorOutput]:
        """(B, 3, H, W) float → B times the same detections, in pixels of ``images``."""
        height, width = images.shape[-2:]
        regions, grids = self.get_buffer("regions"), self.get_buffer("grids")
        boxes = torch.minimum(regions.clamp(min=0), regions.new_tensor([width, height, width, height]))
        scores, labels = self.get_buffer("scores"), self.get_buffer("labels")
        return [DetectorOutput(boxes, scores, labels, grids=RoiMasks(grids, regions)) for _ in images]
