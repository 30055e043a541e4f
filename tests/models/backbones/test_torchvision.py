"""torchvision's backbones: the contracts, what is frozen, and their normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone

from detseg.models.backbones.torchvision import TorchvisionMobileNetV3Large, TorchvisionResNet50
from detseg.structures import ClassTable
from detseg.tasks import Detection
from detseg.training.optim.freezing import freeze_stages
from detseg.training.task import Task
from tests.contracts.test_feature_extractors import FeatureExtractorContract, detector_on, train_one_step

Build = Callable[[bool], Any]


class TestTorchvisionResNet50(FeatureExtractorContract):
    strides = (4, 8, 16, 32)

    def build(self) -> Any:
        return TorchvisionResNet50(freeze_bn=False)


class TestTorchvisionMobileNetV3Large(FeatureExtractorContract):
    strides = (32, 32)

    def build(self) -> Any:
        return TorchvisionMobileNetV3Large(freeze_bn=False)

    def test_frozen_stages_do_not_move_by_a_bit(self) -> None:
        """Both maps have stride 32: where the stages before it are frozen, what comes out of them stays as it was."""
        backbone = self.fresh()
        freeze_stages(backbone, 4)
        task = Task(Detection(), detector_on(backbone), ClassTable(("a", "b")))
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        train_one_step(task)
        moved = {name.split(".")[1] for name, x in backbone.state_dict().items() if not torch.equal(x, before[name])}
        assert moved == {"13", "14", "15", "16"}


def trained_parameters(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.requires_grad and name.startswith("body.")}


RESNET = {"backbone_name": "resnet50", "weights": None}
MOBILENET = {"backbone_name": "mobilenet_v3_large", "weights": None, "fpn": True}


@pytest.mark.parametrize(
    ("build", "make", "settings", "stages_of_layers"),
    [
        (TorchvisionResNet50, resnet_fpn_backbone, RESNET, {0: 5, 2: 3, 3: 2, 4: 1, 5: 0}),
        (TorchvisionMobileNetV3Large, mobilenet_backbone, MOBILENET, {0: 5, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0}),
    ],
    ids=["resnet", "mobilenet"],
)
def test_stages_are_theirs(build: Build, make: Any, settings: dict[str, Any], stages_of_layers: dict[int, int]) -> None:
    for trainable_layers, num_stages in stages_of_layers.items():
        with torch.device("meta"):
            theirs = make(trainable_layers=trainable_layers, **settings)
            backbone = build(True)
        freeze_stages(backbone, num_stages)
        assert trained_parameters(backbone) == trained_parameters(theirs)
