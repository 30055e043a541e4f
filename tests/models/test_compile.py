"""``trainer.compile``: what training and prediction run is compiled, for both kinds of models."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from detseg.config.load import config_from_dict
from detseg.models.compile import settling
from detseg.models.fuse import fuse
from detseg.structures import BoxTargets, ClassTable
from detseg.training.setup.build import build_task

MODELS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "backbone": {"name": "unet", "width": 0.0625, "levels": 2}, "auxiliary_weight": 0.4},
    "yolo": {"name": "yolo", "backbone": {"name": "csp_nano", "width": 0.0625, "depth": 0.1}, "neck": {"name": "fpn"}},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wanted", [True, False])
def test_losses_run_compiled_graphs(name: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    convolutions = 0

    def counting(graph: torch.fx.GraphModule, _: list[torch.Tensor], **options: Any) -> Any:
        def run(*inputs: torch.Tensor) -> Any:
            nonlocal convolutions
            convolutions += sum("conv" in str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return graph.forward(*inputs)

        return run

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    settings = {"model": MODELS[name], "data": {"name": "voc", "root": "x"}, "trainer": {"compile": wanted}}
    config = config_from_dict(settings, "settings")
    task = build_task(config, ClassTable(("a", "b")), load_pretrained=False)
    model = task.model.train()
    images = torch.rand(2, 3, 32, 64)
    targets = [BoxTargets.empty()] * 2 if name == "yolo" else torch.zeros(2, 32, 64, dtype=torch.uint8)
    terms = model.losses(images, targets)
    torch.stack(list(terms.values())).sum().backward()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert all(parameter.grad is not None for layer in layers for parameter in layer.parameters())
    assert convolutions == (len(layers) if wanted else 0)
    with torch.no_grad():
        fuse(model, "cpu").predict(images)  # as in validation, which computes what evaluation does
    assert convolutions == (len(layers) if wanted else 0)


def test_nothing_is_compiled_while_normalisation_takes_in_its_first_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_at: list[int] = []
    step = -1

    def noting(graph: torch.fx.GraphModule, _: list[torch.Tensor], **options: Any) -> Any:
        compiled_at.append(step)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=noting))
    settings = {"model": MODELS["yolo"], "data": {"name": "voc", "root": "x"}, "trainer": {"compile": True}}
    config = config_from_dict(settings, "settings")
    task = build_task(config, ClassTable(("a", "b")), load_pretrained=False)
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
