"""A training step asks its device for nothing but the guard's one verdict: on a GPU, every question is a wait.

On a CPU the operators are watched whose results the host must know (values, or shapes that follow from values); where
there is a GPU, CUDA's own debug mode raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.ops.tensors import to_float
from detseg.structures import BoxTargets, ClassTable
from detseg.training.nan import StepGuard
from detseg.training.optim.averages import WeightAverage
from detseg.training.optim.optimizers import build_optimizer

QUESTIONS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
CLASSES = ClassTable(tuple("abc"))
SMALL = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}
MODELS: dict[str, dict[str, Any]] = {
    "yolo": {"name": "yolo", "backbone": SMALL, "neck": {"name": "pan"}},
    "unet": {
        "name": "unet",
        "backbone": {"name": "unet", "width": 0.0625, "levels": 2},
        "loss": {term: {"weight": 1.0} for term in ("cross_entropy", "focal", "dice", "tversky")},
    },
}


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch states no types
    """Notes the operators that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch states no types
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in QUESTIONS or (name == "repeat_interleave" and func._overloadname == "Tensor" and len(args[0]) > 0):
            self.seen.append(name)
        if name in {"index", "index_put", "index_put_", "_index_put_impl_"} and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self.seen.append(f"{name} by a mask")
        return func(*args, **(kwargs or {}))


def step_of(name: str, device: str) -> Callable[[], None]:
    """A whole step as the task makes it; on a GPU without the guard, whose verdict is its one question.

    On a CPU without torch's optimiser, which asks for its step counters: they lie on the host, on GPUs, too.
    """
    config = config_from_dict({"model": MODELS[name], "data": {"name": "coco", "root": "unused"}})
    model = build_model(config.model, CLASSES, load_pretrained=False).to(device).train()
    average = WeightAverage(model, 0.99, 10)
    optimizer = build_optimizer(config.optimizer, model)
    guard = StepGuard()
    guard.begin_epoch(model)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8).to(device)
    boxes = torch.tensor([[4.0, 4, 44, 40], [30, 20, 60, 60], [1, 1, 9, 9]])
    some = BoxTargets(boxes, torch.tensor([0, 2, 1]), torch.tensor([False, False, True]))
    targets: Any = [some.to(device), BoxTargets.empty().to(device)]
    if name == "unet":
        targets = torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8).to(device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            terms = model.losses(to_float(images), targets)
        torch.autograd.backward(list(terms.values()))
        if device == "cuda":
            optimizer.step()
        else:
            terms["loss"] = torch.stack(list(terms.values())).sum().detach()
            context: Any = SimpleNamespace(batches=[SimpleNamespace(terms=terms)])  # all that a good step is asked for
            assert guard.check(context, optimizer)
        optimizer.zero_grad()
        average.update(model, 1)

    return step


@pytest.mark.parametrize("name", MODELS)
def test_no_operator_asks_for_a_value(name: str) -> None:
    step = step_of(name, "cpu")
    step()  # the optimiser makes its state
    with Watch() as watch:
        step()
    assert watch.seen == []  # the guard's one reading, `tolist`, is no operator on a CPU


def test_the_watch_sees_them() -> None:
    values = torch.tensor([0.0, 1.0])
    with Watch() as watch:
        values.sum().item()
        values[values > 0]
        values.nonzero()
        values.repeat_interleave(torch.tensor([1, 2]))
    assert {"_local_scalar_dense", "nonzero", "index by a mask", "repeat_interleave"} <= set(watch.seen)


@pytest.mark.parametrize("name", MODELS)
def test_losses_on_a_gpu_that_is_not_there(name: str) -> None:
    """Tensors without values, of which torch keeps shape, type and device: one that is left on the host is an error, as
    is a question for a value."""
    config = config_from_dict({"model": MODELS[name], "data": {"name": "coco", "root": "unused"}})
    with FakeTensorMode():  # type: ignore[no-untyped-call]  # torch states no types
        with torch.device("cuda"):
            model = build_model(config.model, CLASSES, load_pretrained=False).train()
            images = torch.empty(2, 3, 64, 64, dtype=torch.uint8)
        boxes, labels = torch.tensor([[4.0, 4, 44, 40], [30, 20, 60, 60]]), torch.tensor([0, 2])
        some = BoxTargets(boxes, labels, torch.tensor([False, True]))
        targets: Any = [some.to("cuda"), BoxTargets.empty().to("cuda")]
        if name == "unet":
            targets = torch.zeros(2, 64, 64, dtype=torch.uint8).to("cuda")
        terms = model.losses(to_float(images), targets)
        assert {(term.device.type, term.dtype) for term in terms.values()} == {("cuda", torch.float32)}
        with pytest.raises(DataDependentOutputException):
            terms.popitem()[1].tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA's sync debug mode needs a GPU, and there is none here")
@pytest.mark.parametrize("name", MODELS)
def test_no_synchronisation_on_a_gpu(name: str) -> None:
    step = step_of(name, "cuda")
    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
