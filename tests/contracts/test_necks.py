"""What every neck must hold; each inherits ``NeckContract`` and says how it is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.models.acceleration import fuse
from detseg.models.backbones.torchvision import TorchvisionFPN
from detseg.models.necks import FPN, PAN
from tests.rounding import assert_close_but_for_rounding

LEVELS = [((24,), (16,)), ((16, 40), (8, 16)), ((8, 24, 40), (8, 16, 32)), ((8, 16, 24, 40), (4, 8, 16, 32))]
"""Channels and strides of what comes in."""


def features(channels: tuple[int, ...], strides: tuple[int, ...], hw: tuple[int, int] = (64, 96)) -> list[Tensor]:
    """Maps of an image, whose sizes round up where they must."""
    return [torch.rand(2, num, -(-hw[0] // s), -(-hw[1] // s)) for num, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize(("channels", "strides"), LEVELS, ids=["1 level", "2 levels", "3 levels", "4 levels"])
class NeckContract:
    """Inherit, call the class ``Test…`` and build the neck for maps of these channels and strides."""

    mixes_downwards = True
    """Whether fine maps inform coarse ones, too."""

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        raise NotImplementedError  # the tester of each implementation builds its own

    @pytest.mark.parametrize("hw", [(64, 96), (96, 32), (40, 56)])
    def test_order_and_sizes(self, channels: tuple[int, ...], strides: tuple[int, ...], hw: tuple[int, int]) -> None:
        neck = self.build(channels, strides).eval()
        assert neck.strides == strides
        given = features(channels, strides, hw)
        before = [x.clone() for x in given]
        went_out = neck(given)
        assert [x.shape[1] for x in went_out] == list(neck.channels)
        assert [x.shape[2:] for x in went_out] == [x.shape[2:] for x in given]
        assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))

    @torch.no_grad()
    def test_folded_it_gives_the_same_maps(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        neck = self.build(channels, strides).train()
        for _ in range(4):
            neck(features(channels, strides))  # statistics of its own maps
        given = features(channels, strides)
        for x, y in zip(fuse(neck, "cpu")(given), neck.eval()(given), strict=True):
            if any(True for _ in neck.parameters()):
                assert_close_but_for_rounding(x, y, neck)

    def test_every_parameter_gets_a_gradient(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        neck = self.build(channels, strides).train()
        maps = neck(features(channels, strides))
        if any(True for _ in neck.parameters()):
            torch.autograd.backward([(x * torch.rand_like(x)).sum() for x in maps])
        assert [name for name, p in neck.named_parameters() if p.grad is None] == []

    def test_maps_inform_each_other(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        neck = self.build(channels, strides).eval()
        given = [x.requires_grad_() for x in features(channels, strides)]
        for i, x in enumerate(neck(given)):
            gradients = torch.autograd.grad((x * torch.rand_like(x)).sum(), given, retain_graph=True, allow_unused=True)
            for j, gradient in enumerate(gradients):
                informed = gradient is not None and bool(gradient.abs().sum() > 0)
                assert informed == (self.mixes_downwards or j >= i), f"map {i} from map {j}"


class TestFPN(NeckContract):
    mixes_downwards = False

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return FPN(channels, strides, channels=20)


class TestTorchvisionFPN(NeckContract):
    mixes_downwards = False
    norm = False

    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return TorchvisionFPN(channels, strides, norm=self.norm, channels=20)


class TestTorchvisionFPNWithNormalisation(TestTorchvisionFPN):
    norm = True


class TestPAN(NeckContract):
    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        return PAN(channels, strides, channels, depth=0.33)


class TestPANWithOtherChannels(NeckContract):
    def build(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> Any:
        chosen = tuple(8 * 2**i for i in range(len(channels))) if len(channels) > 1 else channels
        return PAN(channels, strides, chosen, depth=0.67)
