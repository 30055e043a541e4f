"""Folded networks compute what the plain ones compute (``tests/contracts`` folds every backbone and neck), and training
runs compiled graphs where it is asked to."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.models.acceleration import fuse, settling
from detseg.models.layers import ConvNormAct
from detseg.structures import BoxTargets, ClassTable
from detseg.training.setup.build import build_task
from tests.rounding import assert_close_but_for_rounding


def num_norms(model: nn.Module) -> int:
    norms = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
    return sum(isinstance(module, norms) for module in model.modules())


def trained(norm: Any) -> Any:
    """With the statistics, factors and summands of a training."""
    for values, low, high in ((norm.weight, -2, 2), (norm.bias, 0, 2), (norm.running_mean, -1, 1)):
        nn.init.uniform_(values, low, high)
    nn.init.uniform_(norm.running_var, 0.1, 4)
    return norm


def images() -> Tensor:
    return torch.rand(2, 5, 9, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_folded_block(stride: int, activation: type[nn.SiLU] | type[nn.ReLU], dtype: torch.dtype, context: Any) -> None:
    torch.manual_seed(0)
    block = ConvNormAct(5, 8, 3, stride, activation)
    trained(block[1])
    block.to(dtype)
    state = copy.deepcopy(block.state_dict())
    with context():
        fused = fuse(block, "cpu")
        assert block.training
        assert not fused.training
        plain, found = block.eval()(images().to(dtype)), fused(images().to(dtype))
    assert num_norms(fused) == 0
    assert_close_but_for_rounding(found, plain, block)
    assert not torch.equal(found, plain)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, state[name]) for name, value in block.state_dict().items())
    block.train()(images().to(dtype)).sum().backward()  # it still trains


class Residual(nn.Sequential):
    """Uses what its convolution gives twice."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self[0](x)
        return y + self[1](y)


def blocks() -> dict[str, tuple[nn.Module, int]]:
    """Each with the number of normalisations that stay."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 5, 3, padding=1)
    return {
        "synchronised": (nn.Sequential(convolution, trained(nn.SyncBatchNorm(5)), nn.ReLU()), 0),
        "frozen": (nn.Sequential(convolution, trained(FrozenBatchNorm2d(5))), 0),
        "grouped": (nn.Sequential(nn.Conv2d(5, 10, 3, groups=5, bias=False), trained(nn.BatchNorm2d(10))), 0),
        "without factors": (nn.Sequential(convolution, nn.BatchNorm2d(5, affine=False)), 0),
        "shared": (nn.Sequential(*[convolution, trained(nn.BatchNorm2d(5))] * 2, convolution), 0),
        "without statistics": (nn.Sequential(convolution, nn.BatchNorm2d(5, track_running_stats=False)), 1),
        "not directly behind": (nn.Sequential(convolution, nn.ReLU(), trained(nn.BatchNorm2d(5))), 1),
        "in front": (nn.Sequential(trained(nn.BatchNorm2d(5)), convolution), 1),
        "in another order": (Residual(convolution, trained(nn.BatchNorm2d(5))), 1),
    }


@pytest.mark.parametrize("name", list(blocks()))
@torch.no_grad()
def test_what_is_folded_and_what_stays(name: str) -> None:
    block, num_left = blocks()[name]
    fused = fuse(block, "cpu")
    assert num_norms(fused) == num_left
    assert_close_but_for_rounding(fused(images()), block.eval()(images()), block)


@pytest.mark.parametrize(
    "model",
    [
        {"name": "yolo", "backbone": {"width": 0.125}},
        {"name": "yolo", "backbone": {"width": 0.125}, "neck": {"name": "fpn"}},
        {"name": "unet", "backbone": {"name": "unet", "width": 0.125}},
        {"name": "fcn", "backbone": {"width": 0.125}},
        {"name": "faster_rcnn", "variant": "mobilenet_v3_large_320_fpn"},
    ],
    ids=lambda model: model["name"],
)
def test_of_our_own_blocks_nothing_is_left_out(model: dict[str, Any]) -> None:
    config = config_from_dict({"model": model, "data": {"name": "voc", "root": "x"}}, "settings")
    network = build_model(config.model, ClassTable(("a", "b")), load_pretrained=False)
    assert num_norms(network) > 10
    assert num_norms(fuse(network, "cpu")) == 0


MODELS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "backbone": {"name": "unet", "width": 0.0625, "levels": 2}, "auxiliary_weight": 0.4},
    "yolo": {"name": "yolo", "backbone": {"name": "csp_nano", "width": 0.0625, "depth": 0.1}, "neck": {"name": "fpn"}},
}


def task_of(model: dict[str, Any], backend: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task whose networks, where they are compiled, are so by this backend."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    settings = {"model": model, "data": {"name": "voc", "root": "x"}, "trainer": {"compile": compiled}}
    return build_task(config_from_dict(settings, "settings"), ClassTable(("a", "b")), load_pretrained=False)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wanted", [True, False])
def test_losses_run_compiled_graphs(name: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    convolutions = 0

    def counting(graph: torch.fx.GraphModule, _: list[Tensor], **options: Any) -> Any:
        def run(*inputs: Tensor) -> Any:
            nonlocal convolutions
            convolutions += sum("conv" in str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return graph.forward(*inputs)

        return run

    model = task_of(MODELS[name], counting, wanted, monkeypatch).model.train()
    images = torch.rand(2, 3, 32, 64)
    targets = [BoxTargets.empty()] * 2 if name == "yolo" else torch.zeros(2, 32, 64, dtype=torch.uint8)
    terms = model.losses(images, targets)
    torch.stack(list(terms.values())).sum().backward()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(parameter.grad is not None for layer in layers for parameter in layer.parameters())
    assert convolutions == (len(layers) if wanted else 0)
    with torch.no_grad():
        fuse(model, "cpu").predict(images)  # as in validation, which computes what evaluation does
    assert convolutions == (len(layers) if wanted else 0)


def test_nothing_is_compiled_while_normalisation_takes_in_its_first_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_at: list[int] = []
    step = -1

    def noting(graph: torch.fx.GraphModule, _: list[Tensor], **options: Any) -> Any:
        compiled_at.append(step)
        return graph.forward

    task = task_of(MODELS["yolo"], noting, True, monkeypatch)
    task.model.train()
    images, targets = torch.rand(2, 3, 32, 64), [BoxTargets.empty()] * 2
    settled_at: list[int] = []
    while len(settled_at) < 3:
        step += 1
        task.warmup.prepare(step)
        if not task.warmup.names:
            settled_at.append(step)
        with settling(task.model, not settled_at):
            task.model.losses(images, targets)
    assert settled_at[0] > 10
    assert set(compiled_at) == {settled_at[0]}
