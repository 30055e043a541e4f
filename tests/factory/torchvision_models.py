"""torchvision's published two-stage detectors with random weights, in files that pass for the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from detseg.config.schema.model import FasterRcnnConfig, MaskRcnnConfig
from detseg.factory.torchvision_weights import TORCHVISION_WEIGHTS, weights_path

MAKERS: dict[tuple[str, str], Any] = {
    ("faster_rcnn", "resnet50_fpn"): detection.fasterrcnn_resnet50_fpn,
    ("faster_rcnn", "resnet50_fpn_v2"): detection.fasterrcnn_resnet50_fpn_v2,
    ("faster_rcnn", "mobilenet_v3_large_fpn"): detection.fasterrcnn_mobilenet_v3_large_fpn,
    ("faster_rcnn", "mobilenet_v3_large_320_fpn"): detection.fasterrcnn_mobilenet_v3_large_320_fpn,
    ("mask_rcnn", "resnet50_fpn"): detection.maskrcnn_resnet50_fpn,
}
"""Name of the model and variant → what makes it in torchvision."""

LIGHT = ("faster_rcnn", "mobilenet_v3_large_320_fpn")
"""The quickest of them, for what holds of all."""

OLD_NAMES = (
    (".0.weight", ".weight", ("inner_blocks.", "layer_blocks.")),
    (".0.bias", ".bias", ("inner_blocks.", "layer_blocks.")),
    ("head.conv.0.0.", "head.conv.", ("rpn.",)),
    *((f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.", ("roi_heads.",)) for i in range(4)),
)


_GAINS = {"bbox_pred": 0.3, "cls_logits": 1.0, "mask_fcn_logits": 4.0}
"""Deviation of the outputs of last layers from one of the inputs; of others the square root of 2 (He et al. 2015)."""

_CLASS_GAINS = {"resnet50_fpn": 2.0, "resnet50_fpn_v2": 8.0}
"""The same of the class layer; 12 for the others, whose features are small."""


def random_state(key: tuple[str, str], seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a published file, random, at scales at which the network finds objects of several classes."""
    with torch.device("meta"):
        model = MAKERS[key](weights=None, weights_backbone=None)
    fixed_norm = key[1] != "resnet50_fpn_v2"  # those files hold statistics, but no counters of batches
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            if not fixed_norm:
                state[name] = torch.tensor(7)
        elif like.ndim > 1:
            state[name] = (
                torch.randn(like.shape, generator=generator) * _gain(key[1], name) / math.sqrt(like[0].numel())
            )
            if "cls_score" in name:  # what all regions have in common would make all of one class
                state[name] -= state[name].mean(dim=1, keepdim=True)
        elif name.endswith("running_var"):
            state[name] = torch.rand(like.shape, generator=generator) + 0.5
        elif name.endswith("weight"):
            # The last scale of a block of ResNet is small, or sixteen sums in a row would explode.
            scale = 0.2 if ".bn3." in name else 1.0
            state[name] = (torch.rand(like.shape, generator=generator) * 0.5 + 0.5) * scale
        else:
            state[name] = torch.randn(like.shape, generator=generator) * 0.1
    return state


def _gain(variant: str, name: str) -> float:
    if "cls_score" in name:
        return _CLASS_GAINS.get(variant, 12.0)
    return next((gain for part, gain in _GAINS.items() if part in name), math.sqrt(2))


def with_old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the files that were published first name their convolutions."""
    renamed = {}
    for name, value in state.items():
        for new, old, parts in OLD_NAMES:
            if any(part in name for part in parts):
                name = name.replace(new, old)
        renamed[name] = value
    return renamed


@contextmanager
def published_file(folder: Path, key: tuple[str, str], state: dict[str, Tensor]) -> Iterator[Path]:
    """A file of weights where torch.hub looks for the published one, which it removes again: they are large."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    path = weights_path(TORCHVISION_WEIGHTS[key])
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(state, path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("detseg.factory.torchvision_weights.has_hash_of_name", lambda path: True)
            yield path
    finally:
        path.unlink(missing_ok=True)
        torch.hub.set_dir(before)


def settings(key: tuple[str, str], **changes: Any) -> FasterRcnnConfig | MaskRcnnConfig:
    """The settings of a published model; its weights, too, unless they are changed to None."""
    kind = FasterRcnnConfig if key[0] == "faster_rcnn" else MaskRcnnConfig
    return kind.model_validate({"name": key[0], "variant": key[1], "weights": "coco", **changes})


def as_published(key: tuple[str, str], **arguments: Any) -> nn.Module:
    """torchvision's own model with the weights of the file that is there; it leaves images as they are."""
    model: Any = MAKERS[key](weights=TORCHVISION_WEIGHTS[key], **arguments)
    model.transform.resize = lambda image, target=None: (image, target)  # it would draw a random number, too
    return model
