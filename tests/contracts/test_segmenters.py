"""What every segmenter must hold; each inherits ``SegmenterContract`` and says how it is built.

And every backbone of ``configs/`` under every model: they share one contract.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from detseg.config.schema.model import FcnConfig, UNetConfig, YoloConfig
from detseg.factory import build_model
from detseg.factory.segmentation import build_segmenter
from detseg.structures import IGNORE_LABEL, BoxTargets, ClassTable
from tests.rounding import assert_close_but_for_rounding

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EVERY_TERM = {name: {"weight": 0.5} for name in ("focal", "dice", "tversky")}


def random_images(num: int = 2, hw: tuple[int, int] = (64, 96)) -> Tensor:
    return torch.rand(num, 3, *hw, generator=torch.Generator().manual_seed(num))


def random_semantic(num_classes: int, hw: tuple[int, int] = (64, 96)) -> Tensor:
    """Labels of two images, a corner of them ignored."""
    semantic = torch.randint(0, num_classes, (2, *hw), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    semantic[:, :20, :30] = IGNORE_LABEL
    return semantic


class SegmenterContract:
    """Inherit, and give a fixture ``segmenter``."""

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("hw", [(64, 96), (181, 239), (33, 65), (48, 7)])
    def test_logits_have_the_size_of_the_images(self, segmenter: Any, training: bool, hw: tuple[int, int]) -> None:
        segmenter.train(training)
        expected = (2, segmenter.num_classes, *hw)
        logits = segmenter(random_images(hw=hw))
        assert logits.shape == expected
        assert logits.requires_grad
        predicted = segmenter.predict(random_images(hw=hw))
        assert predicted.shape == expected
        assert predicted.dtype == torch.float32
        assert not predicted.requires_grad
        terms = segmenter.losses(random_images(hw=hw), random_semantic(segmenter.num_classes, hw))
        assert all(term.isfinite() for term in terms.values())
        both = segmenter.losses_and_predictions(random_images(hw=hw), random_semantic(segmenter.num_classes, hw))
        assert list(both[0]) == list(terms)
        assert both[1].shape == expected
        assert segmenter.training == training

    @pytest.mark.parametrize("hw", [(33, 65), (61, 95)])
    def test_odd_sizes_are_those_of_images_padded_by_hand(self, segmenter: Any, hw: tuple[int, int]) -> None:
        segmenter.eval()
        stride = segmenter.stride
        whole = [-(-side // stride) * stride for side in hw]
        images = random_images(hw=hw)
        padded = segmenter.normalize.mean.expand(2, 3, *whole).clone()  # 0 once normalised
        padded[:, :, : hw[0], : hw[1]] = images
        expected = segmenter.predict(padded)[:, :, : hw[0], : hw[1]]
        assert_close_but_for_rounding(segmenter.predict(images), expected, segmenter)

    def test_every_trained_parameter_gets_a_gradient(self, segmenter: Any) -> None:
        segmenter.train()
        segmenter.zero_grad()
        terms = segmenter.losses(random_images(), random_semantic(segmenter.num_classes))
        torch.autograd.backward(list(terms.values()))
        trained = [(name, p) for name, p in segmenter.named_parameters() if p.requires_grad]
        assert [name for name, p in trained if p.grad is None] == []
        assert all(p.grad.isfinite().all() for _, p in trained if p.grad is not None)

    def test_a_batch_in_which_nothing_counts_is_normal(self, segmenter: Any) -> None:
        segmenter.train()
        segmenter.zero_grad()
        terms = segmenter.losses(random_images(), torch.full((2, 64, 96), IGNORE_LABEL, dtype=torch.uint8))
        assert {term.item() for term in terms.values()} == {0.0}
        torch.autograd.backward(list(terms.values()))
        assert all((p.grad == 0).all() for p in segmenter.parameters() if p.grad is not None)

    def test_both_at_once_equal_each_apart(self, segmenter: Any) -> None:
        segmenter.eval()
        images, semantic = random_images(), random_semantic(segmenter.num_classes)
        terms, logits = segmenter.losses_and_predictions(images, semantic)
        apart = segmenter.losses(images, semantic)
        assert {name: term.item() for name, term in terms.items()} == {n: term.item() for n, term in apart.items()}
        assert torch.equal(logits, segmenter.predict(images))

    def test_losses_are_float32_under_bfloat16(self, segmenter: Any) -> None:
        segmenter.train()
        segmenter.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = segmenter.losses(random_images(), random_semantic(segmenter.num_classes))
            predicted = segmenter.predict(random_images())
        assert {term.dtype for term in terms.values()} == {torch.float32}
        assert predicted.dtype == torch.float32
        torch.autograd.backward(list(terms.values()))
        assert all(p.grad is None or p.grad.isfinite().all() for p in segmenter.parameters())

    def test_weights_make_the_round_trip(self, segmenter: Any) -> None:
        segmenter.train()
        segmenter(random_images())  # batch statistics are part of the state
        expected = segmenter.eval().predict(random_images())
        other = copy.deepcopy(segmenter)
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
        other.load_state_dict(segmenter.state_dict(), strict=True)
        assert torch.equal(expected, other.eval().predict(random_images()))

    def test_neighbours_in_the_batch_do_not_matter(self, segmenter: Any) -> None:
        segmenter.eval()
        images = random_images(3)
        together = segmenter.predict(images)
        assert_close_but_for_rounding(segmenter.predict(images[1:2]), together[1:2], segmenter)


CSP = {"name": "csp_nano", "width": 0.125}
PAPER = {"name": "unet", "width": 0.125}
TIMM = {"name": "test_resnet"}
FPN = {"name": "fpn", "channels": 16}


def fcn(backbone: Any, **settings: Any) -> FcnConfig:
    return FcnConfig.model_validate({"name": "fcn", "backbone": backbone, **settings})


def unet(backbone: Any, **settings: Any) -> UNetConfig:
    return UNetConfig.model_validate({"name": "unet", "backbone": backbone, **settings})


CASES: dict[str, tuple[FcnConfig | UNetConfig, int]] = {
    "fcn-8": (fcn(CSP, auxiliary_weight=0.4, loss=EVERY_TERM), 3),
    "fcn-16-bilinear-fpn": (fcn(CSP, neck=FPN, stride=16, upsampling="bilinear", head_channels=24), 4),
    "fcn-32-timm": (fcn(TIMM, stride=32), 3),
    "fcn-32-auxiliary-fpn": (fcn(CSP, neck=FPN, stride=32, auxiliary_weight=0.4), 3),
    "fcn-binary": (fcn(PAPER, binary=True, loss=EVERY_TERM), 2),
    "unet-paper": (unet(PAPER, loss=EVERY_TERM), 3),
    "unet-paper-shallow": (unet(PAPER, strides=(1, 2), decoder_channels=(8,)), 3),
    "unet-csp-resize": (unet(CSP, upsampling="resize", auxiliary_weight=0.3), 3),
    "unet-binary-gap": (unet(CSP, strides=(4, 8), binary=True), 2),
    "unet-timm-coarse": (unet(TIMM, output_stride=4), 3),
}


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def built(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = build_segmenter(*request.param)
    model.train()
    with torch.no_grad():
        for _ in range(3):  # batch statistics near those of the images
            model(random_images(4))
    return model


class TestSemanticSegmenter(SegmenterContract):
    @pytest.fixture
    def segmenter(self, built: nn.Module) -> Any:
        return copy.deepcopy(built)


def backbones_of_configs() -> dict[str, dict[str, Any]]:
    """The backbone of each configuration file, without weights to fetch, all of it trained, and three that must be
    tried."""
    sections: list[dict[str, Any]] = [{"name": "csp_nano"}, {"name": "unet", "width": 0.125}, {"name": "resnet18"}]
    for path in sorted(CONFIGS.glob("*.yaml")):
        model = yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {})
        section = {"name": "unet" if model.get("name") == "unet" else "csp_nano"} | model.get("backbone", {})
        sections.append({key: value for key, value in section.items() if key in ("name", "width")})
    return {"-".join(map(str, section.values())): section for section in sections}


MODELS: dict[str, Any] = {
    "yolo": lambda backbone: YoloConfig.model_validate({"backbone": backbone}),
    "fcn": fcn,
    "unet": unet,
}


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("backbone", backbones_of_configs().values(), ids=backbones_of_configs().keys())
def test_every_backbone_of_the_configs_in_every_model(backbone: Any, model_name: str) -> None:
    model: Any = build_model(MODELS[model_name](backbone), ClassTable(("a", "b", "c")), load_pretrained=False).train()
    truth: Any = random_semantic(3)
    if model_name == "yolo":
        truth = [BoxTargets(torch.tensor([[8.0, 8, 56, 40]]), torch.tensor([1]), torch.tensor([False]))] * 2
    torch.autograd.backward(list(model.losses(random_images(), truth).values()))
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
