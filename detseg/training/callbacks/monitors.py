"""What trackers get besides means of losses and the validation's main numbers: of the network every few steps, of each
class after each validation."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from detseg.training.task import Task
from detseg.training.tracking.tracker import trackers_of

logger = logging.getLogger("detseg")

# Behind convolutions, with channels in dimension 1. GELU stands where they are the last (ConvNeXt, transformers).
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.ELU, nn.Hardswish, nn.Mish)


def parts_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that train, by the part of the network: its children, and of a backbone its stages."""
    parts: dict[str, list[nn.Parameter]] = {"other": list(model.parameters(recurse=False))}
    for name, child in model.named_children():
        found: Any = getattr(child, "stage_parameters", list)  # a backbone has it
        stages = found()
        parts |= {f"{name}.stage{number}": list(stage) for number, stage in enumerate(stages, start=1)}
        in_stages = {parameter for stage in stages for parameter in stage}
        parts[name] = [parameter for parameter in child.parameters() if parameter not in in_stages]
    trained = {name: [p for p in parameters if p.requires_grad] for name, parameters in parts.items()}
    return {name: parameters for name, parameters in trained.items() if parameters}


class StepMonitors(Callback):
    """Writes losses, learning rates and ``diagnostics`` at the first optimiser step and at every ``every``-th; the
    other steps cost nothing, but for the histograms.

    - ``gradient_norm``: of all gradients together, before clipping.
    - ``update_ratio``: the norm of what the step changes over that of the weights, for each part of the network.
    - ``dead_activations``: the fraction of channels behind the activations of each part that are nowhere positive in
      the batch, so that (with ReLU) no gradient flows through them.
    - ``histograms``: of the weights and gradients of each part, at the first step of each epoch.
    """

    def __init__(self, every: int, diagnostics: Sequence[str]) -> None:
        self.every, self.diagnostics = every, frozenset(diagnostics)
        self._due: int | None = None  # the step that is written, from 1
        self._before: dict[str, list[Tensor]] = {}  # weights before the step
        self._dead: dict[str, list[Tensor]] = {}  # of each activation, which channels are dead
        self._hooks: list[RemovableHandle] = []
        self.drawn_in = -1  # the epoch of the last histograms

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says which parts have no activation that is looked at."""
        if "dead_activations" not in self.diagnostics or not isinstance(pl_module, Task) or not trainer.loggers:
            return
        parts = [
            name
            for name, child in pl_module.model.named_children()
            if any(True for _ in child.parameters()) and not any(isinstance(m, _ACTIVATIONS) for m in child.modules())
        ]
        if parts:
            kinds = ", ".join(kind.__name__ for kind in _ACTIVATIONS)
            logger.info(f"trainer.diagnostics: no dead_activations of {', '.join(parts)}, which has none of {kinds}")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step + 1
        is_due = trainer.is_global_zero and bool(trainer.loggers) and (step == 1 or step % self.every == 0)
        self._due = step if is_due and batch is not None else None
        if self._due is not None and "dead_activations" in self.diagnostics and isinstance(pl_module, Task):
            for name, module in pl_module.model.named_modules():
                if isinstance(module, _ACTIVATIONS):
                    channels = self._dead.setdefault(name.partition(".")[0], [])
                    self._hooks.append(module.register_forward_hook(_DeadChannels(channels)))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        if not isinstance(pl_module, Task):
            return
        if "histograms" in self.diagnostics and self.drawn_in != trainer.current_epoch:
            self.drawn_in = trainer.current_epoch
            self._draw(trainer, pl_module)
        if self._due is not None and "update_ratio" in self.diagnostics:
            parts = parts_of(pl_module.model)
            self._before = {name: [p.detach().clone() for p in weights] for name, weights in parts.items()}

    def _draw(self, trainer: L.Trainer, task: Task) -> None:
        for tracker in trackers_of(trainer) if trainer.is_global_zero else ():
            for name, weights in parts_of(task.model).items():
                gradients = [p.grad for p in weights if p.grad is not None]
                tracker.histogram(f"weights/{name}", _joined(weights), trainer.global_step + 1)
                if gradients:
                    tracker.histogram(f"gradients/{name}", _joined(gradients), trainer.global_step + 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._due != trainer.global_step or not isinstance(pl_module, Task):
            return  # not due, or more batches of the step are to come
        numbers = {name: float(x) for name, x in trainer.callback_metrics.items() if name.endswith("_step")}
        numbers |= pl_module.run_state.learning_rates
        if "gradient_norm" in self.diagnostics:
            numbers["gradient_norm"] = pl_module.guard.gradient_norm
        for name, weights in parts_of(pl_module.model).items() if self._before else ():
            before = self._before[name]
            changes = [after.detach() - weight for after, weight in zip(weights, before, strict=True)]
            numbers[f"update_ratio/{name}"] = float(get_total_norm(changes) / get_total_norm(before))
        for name, channels in self._dead.items():
            if channels:
                numbers[f"dead_activations/{name}"] = float(torch.cat(channels).float().mean())
        self._before, self._dead = {}, {}
        for tracker in trainer.loggers:
            tracker.log_metrics(numbers, step=trainer.global_step)


class _DeadChannels:
    """A forward hook that collects which channels, (C,) bool, of an output (B, C, ...) are nowhere positive."""

    def __init__(self, collected: list[Tensor]) -> None:
        self._collected = collected

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.ndim > 1 and output.numel():
            self._collected.append(output.detach().amax([dim for dim in range(output.ndim) if dim != 1]) <= 0)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


class EpochNumbers(Callback):
    """Writes the mean losses of each epoch and all numbers of each validation, also of each class, at the step that
    they are of; prints those of the classes where ``table`` asks for it. Lightning would write the numbers of a
    validation one step before the pictures of it."""

    def __init__(self, table: bool) -> None:
        self.table = table

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, {n: float(x) for n, x in trainer.callback_metrics.items() if n.endswith("_epoch")})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, Task) or pl_module.result is None:
            return
        result = pl_module.result
        numbers = {f"val/{name}": value for name, value in result.numbers.items()}
        numbers |= {name: float(x) for name, x in trainer.callback_metrics.items() if name.startswith("val/")}
        keys = class_keys(pl_module.classes.names)
        for metric, values in result.by_class.items():
            numbers |= {f"val_by_class/{metric}/{key}": value for key, value in zip(keys, values, strict=True)}
        self._write(trainer, numbers)
        if self.table:
            text = io.StringIO()
            Console(file=text, width=80).print(result.class_table())
            for line in text.getvalue().splitlines():
                logger.info(line.rstrip())

    def _write(self, trainer: L.Trainer, numbers: dict[str, float]) -> None:
        for tracker in trainer.loggers if trainer.is_global_zero else ():
            tracker.log_metrics(numbers, step=trainer.global_step)


def class_keys(names: Sequence[str]) -> list[str]:
    """Class names of letters that every tracker takes; where one has to change, all begin with their label."""
    keys = [re.sub(r"[^\w. -]", "_", name) for name in names]
    is_path = any(key in (".", "..") for key in keys)
    return [f"{label}_{key}" for label, key in enumerate(keys)] if keys != list(names) or is_path else keys
