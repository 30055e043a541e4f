"""The published backbones and their neck: the contracts, and torchvision's own maps from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from detseg.models.backbones.torchvision import PublishedFPN, PublishedMobileNetV3Large, PublishedResNet50
from detseg.structures import ClassTable
from detseg.tasks import Detection
from detseg.training.task import Task
from tests.contracts.test_feature_extractors import FeatureExtractorContract, detector_on, train_one_step
from tests.contracts.test_necks import NeckContract

Build = Callable[[bool], Any]


class TestPublishedResNet50(FeatureExtractorContract):
    strides = (4, 8, 16, 32)

    def build(self) -> Any:
        return PublishedResNet50(frozen_norm=False)


class TestPublishedMobileNetV3Large(FeatureExtractorContract):
    strides = (32, 32)

    def build(self) -> Any:
        return PublishedMobileNetV3Large(frozen_norm=False)

    def test_frozen_stages_do_not_move_by_a_bit(self) -> None:
        """Both maps have stride 32: where the stages before it are frozen, what comes out of them stays as it was."""
        backbone = self.fresh()
        backbone.freeze_stages(4)
        task = Task(Detection(), detector_on(backbone), ClassTable(("a", "b")))
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        train_one_step(task)
        moved = {
            name.split(".")[1] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
        }
        assert moved == {"13", "14", "15", "16"}


class TestPublishedFPN(NeckContract):
    mixes_downwards = False

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return PublishedFPN(channels, strides, channels=20)


class TestPublishedFPNWithNormalisation(NeckContract):
    mixes_downwards = False

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return PublishedFPN(channels, strides, norm=True, channels=20)


def trained_parameters(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad and name.startswith("body.")}


@pytest.mark.parametrize(("trainable_layers", "num_stages"), [(0, 5), (2, 3), (3, 2), (4, 1), (5, 0)])
def test_stages_of_resnet_are_the_layers_that_torchvision_freezes(trainable_layers: int, num_stages: int) -> None:
    with torch.device("meta"):
        theirs = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=trainable_layers)
        backbone = PublishedResNet50(frozen_norm=True)
    backbone.freeze_stages(num_stages)
    assert trained_parameters(backbone) == trained_parameters(theirs)


@pytest.mark.parametrize(("trainable_layers", "num_stages"), [(0, 5), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0)])
def test_stages_of_mobilenet_are_the_layers_that_torchvision_freezes(trainable_layers: int, num_stages: int) -> None:
    with torch.device("meta"):
        theirs = mobilenet_backbone(
            backbone_name="mobilenet_v3_large", weights=None, fpn=True, trainable_layers=trainable_layers
        )
        backbone = PublishedMobileNetV3Large(frozen_norm=True)
    backbone.freeze_stages(num_stages)
    assert trained_parameters(backbone) == trained_parameters(theirs)


def randomise(network: nn.Module) -> None:
    """Statistics, scales and shifts as training leaves them, not 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            num = len(module.weight)
            with torch.no_grad():
                for tensor, low, high in (
                    (module.weight, 0.5, 1.2),
                    (module.bias, -0.2, 0.2),
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 2.0),
                ):
                    tensor.copy_(torch.rand(num, generator=generator) * (high - low) + low)


@pytest.mark.parametrize(
    ("make", "build", "norm"),
    [
        (fasterrcnn_resnet50_fpn, PublishedResNet50, False),
        (fasterrcnn_resnet50_fpn_v2, PublishedResNet50, True),
        (fasterrcnn_mobilenet_v3_large_fpn, PublishedMobileNetV3Large, False),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_maps_are_torchvisions(make: Any, build: Build, norm: bool, training: bool) -> None:
    """Same names, same weights, same maps; the level that torchvision pools from the last one is the detector's."""
    theirs = make(weights=None, weights_backbone=None).backbone
    randomise(theirs)
    backbone = build(False)
    neck = PublishedFPN(backbone.channels, backbone.strides, norm)
    backbone.load_state_dict({f"body.{name}": value for name, value in theirs.body.state_dict().items()})
    neck.load_state_dict({f"fpn.{name}": value for name, value in theirs.fpn.state_dict().items()})
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected: dict[str, Tensor] = theirs.train(training)(images)
        maps = neck.train(training)(backbone.train(training)(images))
    assert list(expected) == [*(str(i) for i in range(len(maps))), "pool"]
    for i, x in enumerate(maps):
        assert torch.equal(x, expected[str(i)])


@pytest.mark.parametrize("build", [PublishedResNet50, PublishedMobileNetV3Large])
def test_frozen_normalisation_has_no_parameters(build: Build) -> None:
    frozen, trained = build(True), build(False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    kinds = [type(module) for module in trained.modules()]
    assert kinds.count(nn.BatchNorm2d) == sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) > 40
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in trained.modules())
    assert {module.eps for module in frozen.modules() if isinstance(module, FrozenBatchNorm2d)} == {1e-5}


def test_epsilon_reaches_every_normalisation() -> None:
    backbone = PublishedResNet50(frozen_norm=True, norm_eps=0.0)
    assert {module.eps for module in backbone.modules() if isinstance(module, FrozenBatchNorm2d)} == {0.0}
