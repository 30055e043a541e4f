"""The weights that torchvision publishes for its two-stage detectors, trained on COCO (Lin et al. 2014).

The files come through torchvision's own weights API into the checkpoint folder of torch.hub.  Their tensors have
torchvision's names, old files its old ones; each is loaded, or named as skipped.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN_MobileNet_V3_Large_320_FPN_Weights,
    FasterRCNN_MobileNet_V3_Large_FPN_Weights,
    FasterRCNN_ResNet50_FPN_V2_Weights,
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from detseg.config.schema.model import TwoStageConfig
from detseg.errors import ConfigError, DetsegError
from detseg.messages import one_line
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

TORCHVISION_WEIGHTS: dict[tuple[str, str], Any] = {
    ("faster_rcnn", "resnet50_fpn"): FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    ("faster_rcnn", "resnet50_fpn_v2"): FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    ("faster_rcnn", "mobilenet_v3_large_fpn"): FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
    ("faster_rcnn", "mobilenet_v3_large_320_fpn"): FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
    ("mask_rcnn", "resnet50_fpn"): MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
}
"""Name of the model and variant → the entry of torchvision's weights API."""

_RENAMED = (
    (r"^backbone\.fpn\.", "neck.fpn."),
    # Files older than torchvision 0.13 name the convolutions themselves, newer ones the blocks around them.
    (r"^(neck\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.mask_head\.mask_fcn(\d+)\.", lambda match: f"roi_heads.mask_head.{int(match[1]) - 1}.0."),
)
_PARTS = {
    "backbone.": "backbone",
    "neck.": "neck",
    "rpn.": "rpn",
    "roi_heads.box_": "box head",
    "roi_heads.mask_": "mask head",
}
_PREDICTORS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
"""The tensors that have a row for each class."""
_COUNTERS = ".num_batches_tracked"
_CONSTANTS = "normalize."
"""Ours, not learned, and in no file: torchvision keeps the mean and deviation of pixels outside of its weights."""


def find_weights(config: TwoStageConfig) -> Any:
    """The entry of torchvision's weights API that a published variant has. ConfigError: nothing is published for this
    model in this variant."""
    if (config.name, config.variant) not in TORCHVISION_WEIGHTS:
        variants = ", ".join(variant for name, variant in TORCHVISION_WEIGHTS if name == config.name)
        raise ConfigError(
            f"model.variant: {config.name} is published as {variants}; got {config.variant!r}, take one of them or "
            f"custom"
        )
    return TORCHVISION_WEIGHTS[config.name, config.variant]


def coco_outputs(weights: Any, classes: ClassTable) -> tuple[int, ...] | None:
    """The output of published heads for each label, where the classes are exactly COCO's 80, in any order.

    Returns:
        C outputs of 91, 0 being background and ten being of no class; None where the classes are others.
    """
    categories: list[str] = weights.meta["categories"]
    outputs = {name: i for i, name in enumerate(categories) if name not in {"__background__", "N/A"}}
    if set(classes.names) != set(outputs):
        return None
    return tuple(outputs[name] for name in classes.names)


def load_torchvision_weights(model: nn.Module, weights: Any, keep_heads: bool) -> None:
    """Load a published file into a detector of its architecture, and say what became of each tensor.

    Args:
        model: an ``RCNNDetector``.
        weights: the entry of torchvision's weights API.
        keep_heads: load the layers that have a row for each class, too; else they stay as they are.

    Raises:
        DetsegError: the file cannot be downloaded, is damaged, or does not fit the model.
    """
    path = weights_path(weights)
    theirs = {_our_name(name): value for name, value in _read(weights, path).items()}
    ours: dict[str, Tensor] = model.state_dict()
    per_class = [] if keep_heads else [name for name in theirs if name.startswith(_PREDICTORS)]
    counters = [name for name in theirs if name.endswith(_COUNTERS) and name not in ours]
    loaded = {name: value for name, value in theirs.items() if name not in {*per_class, *counters}}
    new = [name for name in ours if name not in loaded and not name.startswith(_CONSTANTS)]
    unfit = [name for name in loaded if name not in ours or ours[name].shape != loaded[name].shape]
    unfit += [name for name in new if name not in per_class]
    if unfit:
        raise DetsegError(
            f"model.weights: {path} does not fit the model: {', '.join(unfit[:3])}{', …' if unfit[3:] else ''} "
            f"({len(unfit)} in all) {'is' if len(unfit) == 1 else 'are'} missing on one side or of another shape; "
            f"leave out the settings of model that the variant decides"
        )
    model.load_state_dict(loaded, strict=False)

    counts = Counter(next(part for prefix, part in _PARTS.items() if name.startswith(prefix)) for name in loaded)
    parts = ", ".join(f"{part} {counts[part]}" for part in _PARTS.values() if counts[part])
    lines = [f"{counts.total()} of {len(theirs)} tensors of {path.name} loaded ({parts})"]
    had, has = (len(state["roi_heads.box_predictor.cls_score.bias"]) for state in (theirs, ours))
    if per_class:
        other = f"{has} of other classes" if had == has else str(has)
        lines.append(f"skipped, for {had} outputs instead of {other}: {', '.join(per_class)}")
    if counters:
        lines.append(f"skipped, since normalisation with fixed statistics counts no batches: {', '.join(counters)}")
    if new:
        lines.append(f"new, with {has} outputs: {', '.join(new)}")
    for line in lines:
        logger.info(f"weights: coco: {line}")


def weights_path(weights: Any) -> Path:
    """Where the file of published weights lies, or will lie: the checkpoint folder of torch.hub."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def has_hash_of_name(path: Path) -> bool:
    """Whether a file's SHA-256 begins with the digits in its name: ``…-258fb6c6.pth``."""
    digits = path.stem.rpartition("-")[2]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits)


def _read(weights: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a published file, downloaded on first use; a file that is there already is checked as well.
    DetsegError: it cannot be downloaded, or is damaged."""
    fix = f"delete it, so that it is downloaded again from {weights.url}"
    try:
        if path.exists() and not has_hash_of_name(path):
            raise DetsegError(
                f"model.weights: {path} is damaged, its SHA-256 does not begin with the digits in its name; {fix}"
            )
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (DetsegError, MemoryError):
        raise
    except Exception as error:  # what torch raises on damaged bytes, and downloads on networks, is no closed list
        if not path.exists():
            raise DetsegError(
                f"model.weights: {path.name} could not be downloaded from {weights.url} ({one_line(error)}); put the "
                f"file into {path.parent} yourself, or set model.weights=null"
            ) from error
        if isinstance(error, OSError):
            raise DetsegError(f"model.weights: {path} could not be read ({one_line(error)})") from error
        raise DetsegError(f"model.weights: {path} is damaged, torch reads no weights in it; {fix}") from error
    return state


def _our_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
