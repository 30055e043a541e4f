"""Dropout in every head: where it is, and that it is nowhere when it is off, and in evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.models.acceleration import fuse
from detseg.models.interface import LossTerms
from detseg.models.segmentation import SemanticSegmenter
from detseg.structures import ClassTable
from tests.bits import digest_of
from tests.models.targets import box_targets

CSP = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}
SMALL = {"backbone": CSP, "neck": {"name": "fpn", "channels": 16}}
ANCHORS = {"name": "anchor", "anchors": [[9, 9]] * 9}
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "task_aligned": ({"name": "yolo", **SMALL}, "head.dropout"),
    "anchor": ({"name": "yolo", **SMALL, "head": ANCHORS}, "head.dropout"),
    "grid": ({"name": "yolo", **SMALL, "head": {"name": "grid", "coupled": False}}, "head.dropout"),
    "faster_rcnn": ({"name": "faster_rcnn", **SMALL, "roi_heads": {"hidden": 32}}, "roi_heads.dropout"),
    "fcn": ({"name": "fcn", "backbone": CSP}, "dropout"),
    "unet": ({"name": "unet", "backbone": {"name": "unet", "width": 0.125, "levels": 3}}, "dropout"),
}
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def built(name: str, dropout: float) -> Any:
    model, path = MODELS[name]
    torch.manual_seed(0)
    config = config_from_dict({"model": model, "data": {"name": "custom"}}, "settings", [f"model.{path}={dropout}"])
    return build_model(config.model, ClassTable(("a", "b")))


def losses(model: Any, seed: int) -> LossTerms:
    """Of a batch in training, whose random numbers follow from the seed."""
    torch.manual_seed(seed)
    target = replace(box_targets([(8, 8, 40, 30, 1)]), draw_seed=5)  # the samples of a two-stage model
    semantic = (torch.arange(64) % 2).to(torch.uint8).expand(2, 64, 64)
    terms: LossTerms = model.losses(IMAGES, semantic if isinstance(model, SemanticSegmenter) else [target] * 2)
    return terms


@pytest.mark.parametrize("name", MODELS)
def test_only_training_drops_and_weights_keep_names_and_values(name: str) -> None:
    plain, dropping = built(name, 0.0), built(name, 0.4)
    assert digest_of(plain.state_dict()) == digest_of(dropping.state_dict())
    for change in (nn.Module.eval, lambda model: fuse(model, "cpu")):
        assert digest_of(losses(change(dropping), 0)) == digest_of(losses(change(plain), 0))
    first, again, other = (losses(dropping.train(), seed) for seed in (0, 0, 1))
    assert digest_of(first) == digest_of(again)
    assert digest_of(first) != digest_of(other)


@pytest.mark.parametrize("name", MODELS)
def test_off_draws_no_random_number(name: str) -> None:
    model = built(name, 0.0).train()
    losses(model, 0)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["task_aligned", "anchor", "grid", "fcn", "unet"])
def test_whole_channels_are_dropped_before_the_last_convolution(name: str) -> None:
    model, seen = built(name, 0.4), list[Tensor]()
    convolutions = [m for m in model.head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    for layer in [model.head.score] if isinstance(model, SemanticSegmenter) else convolutions:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses(model.train(), 0)
    assert seen
    for x in seen:
        dropped = (x == 0).flatten(2).all(dim=2)  # (B, C)
        assert 0.15 < dropped.float().mean() < 0.75
        assert isinstance(model, SemanticSegmenter) or torch.equal((x == 0).flatten(2).any(dim=2), dropped)


@pytest.mark.parametrize("variant", ["resnet50_fpn_v2", "mobilenet_v3_large_fpn"])
def test_published_variants_take_it(variant: str) -> None:
    """The second version has a single fully connected layer, the last one of its head."""
    with torch.device("meta"):
        heads = []
        for dropout in (0.0, 0.3):
            settings = {"name": "faster_rcnn", "variant": variant, "roi_heads": {"dropout": dropout}}
            config = config_from_dict({"model": settings, "data": {"name": "custom"}}, "settings")
            model: Any = build_model(config.model, ClassTable(("a", "b")))
            heads.append(model.roi_heads.box_head)
    assert list(heads[0].state_dict()) == list(heads[1].state_dict())
    if variant == "resnet50_fpn_v2":
        assert [getattr(layer, "p", None) for layer in heads[1]][-3:] == [None, None, 0.3]
    else:
        assert heads[1].dropout == 0.3
