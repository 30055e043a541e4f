"""Prepared blocks compute what their parts compute, as long as these stay what they were."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.models.blocks import ConvNormAct
from detseg.models.prepared import prepare, release
from detseg.structures import ClassTable


def trained_block(activation: type[nn.SiLU] | type[nn.ReLU] = nn.SiLU, stride: int = 1) -> ConvNormAct:
    """With statistics, factors and summands of a training."""
    torch.manual_seed(0)
    block = ConvNormAct(5, 8, 3, stride, activation)
    norm = block[1]
    assert isinstance(norm, nn.BatchNorm2d)
    for values, low, high in ((norm.weight, -2, 2), (norm.bias, -1, 1)):
        nn.init.uniform_(values, low, high)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.1, 4)
    return block.eval()


def images() -> Tensor:
    return torch.rand(2, 5, 9, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # oneDNN has float32 alone
@torch.no_grad()
def test_prepared_blocks_differ_by_rounding(
    stride: int, activation: type[nn.SiLU] | type[nn.ReLU], layout: torch.memory_format, dtype: torch.dtype
) -> None:
    block = trained_block(activation, stride).to(dtype).to(memory_format=layout)
    x = images().to(dtype=dtype, memory_format=layout)
    state = copy.deepcopy(block.state_dict())
    plain = block(x)
    prepare(block)
    found = block(x)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, plain)
    if layout == torch.channels_last:
        assert found.is_contiguous(memory_format=layout)
    for name, value in block.state_dict().items():
        assert torch.equal(value, state[name]), name
    release(block)
    assert torch.equal(block(x), plain)


def _double(block: ConvNormAct) -> None:
    with torch.no_grad():
        for value in block.parameters():
            value.mul_(2)


def _fused_step(block: ConvNormAct) -> None:
    for value in block.parameters():
        value.grad = torch.full_like(value, 0.5)
    torch.optim.AdamW(block.parameters(), lr=0.1, fused=True).step()


CHANGES: dict[str, Callable[[ConvNormAct], object]] = {
    "in place": _double,
    "loaded": lambda block: block.load_state_dict({name: 2 * value for name, value in block.state_dict().items()}),
    "replaced": lambda block: block.load_state_dict(
        {name: 2 * value for name, value in block.state_dict().items()}, assign=True
    ),
    "statistics": lambda block: (block.train()(images()), block.eval()),
    "moved": lambda block: block.half().float(),
    "behind the counter": lambda block: [value.data.mul_(2) for value in block.parameters()],
    "by numpy": lambda block: np.multiply(array := block[0].weight.detach().numpy(), 2, out=array),
    "fused": _fused_step,
    "data replaced": lambda block: setattr(block[1].weight, "data", 2 * block[1].weight.data),
    "epsilon": lambda block: setattr(block[1], "eps", 0.5),
    "another part": lambda block: block.__setitem__(2, nn.ReLU()),
}


@pytest.mark.parametrize("change", list(CHANGES))
@torch.no_grad()
def test_changed_blocks_are_prepared_anew(change: str) -> None:
    block, plain = trained_block(), trained_block()
    prepare(block)
    before = block(images())
    for one in (block, plain):
        CHANGES[change](one)
    found = block(images())
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, plain(images()), rtol=1e-4, atol=1e-5)
    prepare(plain)
    if block.prepared is not None:  # training lets go of it
        assert torch.equal(found, plain(images()))


@torch.no_grad()
def test_a_block_without_its_parts_is_as_it_is() -> None:
    block = trained_block()
    prepare(block)
    block[1] = nn.Identity()
    plain = block[2](block[0](images()))
    assert torch.equal(block(images()), plain)
    assert block.prepared is None


@torch.no_grad()
def test_hooks_of_parts_are_called() -> None:
    block = trained_block()
    plain = block(images())
    prepare(block)
    seen: list[Tensor] = []
    handle = block[0].register_forward_hook(lambda module, given, result: seen.append(result))
    assert torch.equal(block(images()), plain)
    assert len(seen) == 1
    handle.remove()
    assert not torch.equal(block(images()), plain)
    assert len(seen) == 1


def test_inference_mode() -> None:
    with torch.inference_mode():
        block = trained_block()
        plain = block(images())
        prepare(block)
        torch.testing.assert_close(block(images()), plain, rtol=1e-4, atol=1e-5)
        block[0].weight.mul_(2)
        assert not torch.allclose(block(images()), plain, rtol=1e-2)


def test_gradients_and_copies_are_those_of_the_parts() -> None:
    block = trained_block()
    plain = block(images())
    prepare(block)
    assert torch.equal(block(images()), plain)
    block(images()).sum().backward()
    assert block[0].weight.grad is not None
    twin = copy.deepcopy(block)
    assert twin.prepared is None
    block.train()
    prepare(block)  # in training the statistics are those of the batch
    assert block.prepared is None


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
@torch.no_grad()
def test_without_onednn_the_folded_convolution_remains(
    activation: type[nn.SiLU] | type[nn.ReLU], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detseg.models.prepared._has_onednn", lambda: False)
    block = trained_block(activation)
    plain = block(images())
    prepare(block)
    assert block.prepared is not None
    torch.testing.assert_close(block(images()), plain, rtol=1e-4, atol=1e-5)


def test_a_whole_detector() -> None:
    config = config_from_dict(
        {"model": {"backbone": {"width": 0.125}}, "data": {"name": "shapes", "image_size": 64}}, "settings"
    )
    torch.manual_seed(0)
    model = build_model(config.model, ClassTable(("a", "b", "c")))
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        for _ in range(8):
            model.train()(torch.rand(2, 3, 64, 96))  # statistics of its own maps, so that they are not all alike
        plain = model.eval()(x)
        prepare(model)
        for found, raw in zip(model(x), plain, strict=True):
            torch.testing.assert_close(found, raw, rtol=1e-4, atol=1e-4)
