"""What every backbone must hold; each inherits ``FeatureExtractorContract`` and says how it is built."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.config.schema.experiment import SgdConfig
from detseg.errors import ConfigError
from detseg.models.acceleration import fuse
from detseg.models.backbones.csp import CSPBackbone
from detseg.models.backbones.timm import TimmBackbone
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.layers import Normalize
from detseg.models.necks import FPN
from detseg.models.yolo.detector import CoupledHead, YoloDetector
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.structures import BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.optim.freezing import freeze_stages
from detseg.training.optim.optimizers import build_optimizer
from detseg.training.task import Task
from tests.rounding import assert_close_but_for_rounding


def detector_on(backbone: Any) -> YoloDetector:
    """A small detector around a backbone."""
    neck = FPN(backbone.channels, backbone.strides, channels=8)
    scheme = TaskAlignedScheme(2, backbone.strides, TaskAlignedAssigner(), reg_max=4)
    head = CoupledHead(neck.channels, scheme, hidden=8)
    return YoloDetector(backbone, neck, head, scheme, Normalize(backbone.mean, backbone.std))


def train_one_step(task: Task) -> None:
    """As training does it: the task's training mode, its optimiser with weight decay, one step."""
    optimizer = build_optimizer(SgdConfig(name="sgd", lr=0.1, weight_decay=0.1), task.model)
    task.train()
    targets = [BoxTargets(torch.tensor([[8.0, 8, 56, 40]]), torch.tensor([1]), torch.tensor([False]))] * 2
    torch.autograd.backward(list(task.model.losses(torch.rand(2, 3, 64, 96), targets).values()))
    optimizer.step()


@torch.no_grad()
def maps_in_evaluation(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    was_training = backbone.training
    maps = [x.clone() for x in backbone.eval()(images)]
    backbone.train(was_training)
    return maps


_BUILT: dict[str, Any] = {}
"""The backbone of each inheriting class."""


class FeatureExtractorContract:
    """Inherit, call the class ``Test…`` and build the backbone."""

    strides: tuple[int, ...] = (8, 16, 32)

    def build(self) -> Any:
        raise NotImplementedError  # the tester of each implementation builds its own

    def fresh(self) -> Any:
        """The backbone as it was built, to do with what a test likes."""
        name = type(self).__name__
        if name not in _BUILT:
            _BUILT[name] = self.build()
        return copy.deepcopy(_BUILT[name])

    @pytest.mark.parametrize("hw", [(64, 64), (64, 96), (128, 32)])
    def test_gives_one_map_a_stride_finest_first(self, hw: tuple[int, int]) -> None:
        backbone = self.fresh().eval()
        assert backbone.strides == self.strides
        assert backbone.strides == tuple(sorted(backbone.strides))
        maps = backbone(torch.rand(2, 3, *hw))
        assert isinstance(maps, list)
        shapes = [(2, num, hw[0] // s, hw[1] // s) for num, s in zip(backbone.channels, self.strides, strict=True)]
        assert [tuple(x.shape) for x in maps] == shapes

    def test_says_how_images_are_normalised(self) -> None:
        backbone = self.fresh()
        assert len(backbone.mean) == len(backbone.std) == 3
        assert all(std > 0 for std in backbone.std)

    def test_every_trained_parameter_gets_a_gradient(self) -> None:
        """Distributed training refuses parameters without one."""
        backbone = self.fresh().train()
        images = torch.rand(2, 3, 64, 96, requires_grad=True)
        maps = backbone(images)
        torch.autograd.backward([(x * torch.rand_like(x)).sum() for x in maps])
        without = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
        assert images.grad is not None
        assert images.grad.abs().sum() > 0

    def test_each_image_is_seen_by_itself(self) -> None:
        backbone = self.fresh()
        images = torch.rand(3, 3, 64, 64)
        together = maps_in_evaluation(backbone, images)
        alone = maps_in_evaluation(backbone, images[1:2])
        for x, y in zip(together, alone, strict=True):
            assert_close_but_for_rounding(x[1:2], y, backbone)

    def test_folded_it_gives_the_same_maps(self) -> None:
        torch.manual_seed(0)  # with other weights rounding is a little beyond what is allowed now and then
        backbone = self.fresh().train()
        for _ in range(4):
            backbone(torch.rand(4, 3, 64, 96))  # statistics of its own maps
        images = torch.rand(2, 3, 64, 96)
        plain = maps_in_evaluation(backbone, images)
        for x, y in zip(maps_in_evaluation(fuse(backbone, "cpu"), images), plain, strict=True):
            assert_close_but_for_rounding(x, y, backbone)
        assert all(torch.equal(x, y) for x, y in zip(maps_in_evaluation(backbone, images), plain, strict=True))

    def test_frozen_stages_do_not_move_by_a_bit(self) -> None:
        """Frozen to stride 2ⁿ: the maps down to it stay what they were, weights and statistics; later ones change."""
        last = next(i for i, stride in enumerate(self.strides) if stride > 1)  # stride 1 has no stage of its own
        backbone = self.fresh()
        freeze_stages(backbone, self.strides[last].bit_length() - 1)
        task = Task(Detection(), detector_on(backbone), ClassTable(("a", "b")))
        images = torch.rand(2, 3, 64, 96)
        before = maps_in_evaluation(backbone, images)
        train_one_step(task)
        after = maps_in_evaluation(backbone, images)
        same = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
        assert same == [i <= last for i in range(len(self.strides))]

    def test_nothing_is_frozen_unless_asked(self) -> None:
        backbone = self.fresh()
        freeze_stages(backbone, 0)
        task = Task(Detection(), detector_on(backbone), ClassTable(("a", "b")))
        images = torch.rand(2, 3, 64, 96)
        before = maps_in_evaluation(backbone, images)
        train_one_step(task)
        assert not torch.equal(before[0], maps_in_evaluation(backbone, images)[0])

    def test_a_stage_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match=r"freeze: .*got 9"):
            freeze_stages(self.fresh(), 9)


class TestCSPBackboneNano(FeatureExtractorContract):
    def build(self) -> Any:
        return CSPBackbone(0.33, 0.25, self.strides)


class TestCSPBackboneWithAGap(FeatureExtractorContract):
    strides = (4, 16)

    def build(self) -> Any:
        return CSPBackbone(0.33, 0.125, self.strides)


class TestCSPBackboneFromItsStem(FeatureExtractorContract):
    strides = (2, 4, 8, 16, 32)

    def build(self) -> Any:
        return CSPBackbone(0.33, 0.125, self.strides)


class TestUNetEncoder(FeatureExtractorContract):
    strides = (1, 2, 4, 8, 16)

    def build(self) -> Any:
        return UNetEncoder(0.125)


class TestUNetEncoderOfADetector(FeatureExtractorContract):
    def build(self) -> Any:
        return UNetEncoder(0.125, 6, self.strides)


class TestTimmResnet(FeatureExtractorContract):
    def build(self) -> Any:
        return TimmBackbone("resnet18", pretrained=False, strides=self.strides)


class TestTimmEfficientnetWithoutItsEnd(FeatureExtractorContract):
    strides = (8, 16)

    def build(self) -> Any:
        return TimmBackbone("efficientnet_lite0", pretrained=False, strides=self.strides)


class TestTimmConvnext(FeatureExtractorContract):
    def build(self) -> Any:
        return TimmBackbone("convnext_atto", pretrained=False, strides=self.strides)


class TestTimmDeepLayerAggregation(FeatureExtractorContract):
    """Its first map is not among those that timm returns unasked."""

    def build(self) -> Any:
        return TimmBackbone("dla46_c", pretrained=False, strides=self.strides)
