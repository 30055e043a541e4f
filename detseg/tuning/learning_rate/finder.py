"""A learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3).

The model takes the first steps of its training while the rate grows exponentially. They are the training's own steps:
augmentation, losses, precision, accumulated gradients, clipping, the optimiser with its groups of parameters. Only the
schedule is left out, and the averaged weights, on which no loss of a training depends.
"""

from __future__ import annotations

import copy
import gc
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn
from torch import nn

from detseg.config.schema.experiment import ExperimentConfig, StepConfig
from detseg.data.build import resolve_data
from detseg.data.datasets.contract import EvalSource
from detseg.data.loading.processes import leave_if_starting, loader_errors
from detseg.errors import ConfigError, DetsegError
from detseg.messages import console, messages_on_console, shown
from detseg.structures import Batch
from detseg.training.callbacks.oom import training_memory_errors
from detseg.training.nan import StepContext, StepGuard
from detseg.training.seeding import random_state, restore_random_state, seed_generators
from detseg.training.setup.arguments import from_arguments
from detseg.training.setup.build import Own, build_data, build_task, open_data
from detseg.training.setup.facts import num_processes
from detseg.training.setup.trainer import build_bare_trainer, interrupts_kept
from detseg.tuning.learning_rate.curve import Floats, LrCurve, smooth_last

_FEWEST_STEPS, _MOST_STEPS = 20, 5000  # the curve has a weight for each two of them
_DIVERGED = 3.0  # times the lowest smoothed loss: where the loss has risen by so much, the test ends
_ENDLESS = 10**6  # batches of an epoch, as far as Lightning knows: the test ends them
_CONSTANT = StepConfig(name="step", milestones=(), warmup_epochs=0)


def find_lr(
    model: nn.Module | ExperimentConfig | str | Path,
    train_set: EvalSource | None = None,
    val_set: EvalSource | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    task: Literal["detection", "instance", "semantic"] | None = None,
    min_lr: float = 1e-6,
    max_lr: float = 1.0,
    num_steps: int = 100,
) -> LrCurve:
    """Find a learning rate for a training, as the command `detseg find-lr` does. Neither the model nor the global
    generators of torch, NumPy and Python are changed.

    Args:
        model, train_set, val_set, image_size, batch_size, num_workers, settings, task: as ``detseg.train`` takes them.
        min_lr, max_lr: the range of ``optimizer.lr``.
        num_steps: steps from one to the other, 20 to 5000.

    Raises:
        ConfigError: a setting or argument is wrong; one line for each.
        DetsegError: the data does not fit the model or is wrong, or memory is not enough.
    """
    leave_if_starting()
    named = {"data.image_size": image_size, "data.batch_size": batch_size, "data.num_workers": num_workers}
    config, _, own = from_arguments("detseg.find_lr", model, train_set, val_set, named, settings, task)
    generators = random_state()
    try:
        return range_test(config, min_lr, max_lr, num_steps, replace(own, model=copy.deepcopy(own.model)))
    finally:
        restore_random_state(generators)


@messages_on_console()
def range_test(
    config: ExperimentConfig, min_lr: float = 1e-6, max_lr: float = 1.0, num_steps: int = 100, own: Own | None = None
) -> LrCurve:
    """The test on what ``config`` describes; arguments and errors as for ``find_lr``.

    Args:
        own: the model, which is trained, and the data sets that Python gives.
    """
    rates, own, config = _rates(min_lr, max_lr, num_steps), own or Own(), resolve_data(config)
    seed_generators(config.seed)
    config, train_set, val_set = open_data(config, own)
    tested = _tested(config)
    trained = build_task(tested, train_set.classes, load_pretrained=True, model=own.model)
    data = build_data(tested, train_set, val_set)
    # Without a thread that refreshes it: loaders may fork while it holds the console's lock.
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None)
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
    with TemporaryDirectory(prefix="detseg-find-lr-") as folder, bar:
        trained.guard = steps = _RisingRate(rates, bar)
        trainer = build_bare_trainer(tested, Path(folder))
        batches = _Batches(data.train_dataloader(), config.trainer.max_epochs, steps)
        with loader_errors(), training_memory_errors(trainer, tested), interrupts_kept(trainer):
            trainer.fit(trained, train_dataloaders=batches)
    del trainer, trained, batches, data
    gc.collect()  # ends the loader's processes
    losses = np.array(steps.losses)
    return LrCurve(rates[: len(losses)], losses, steps.stopped, config.optimizer.lr)


def _rates(min_lr: float, max_lr: float, num_steps: int) -> Floats:
    numbers = isinstance(min_lr, float | int) and isinstance(max_lr, float | int)
    if not numbers or not 0 < min_lr < max_lr < math.inf:
        raise ConfigError(f"the rates to test: expected 0 < min < max, got {shown(min_lr)} and {shown(max_lr)}")
    if not isinstance(num_steps, int) or not _FEWEST_STEPS <= num_steps <= _MOST_STEPS:
        expected = f"a whole number from {_FEWEST_STEPS} to {_MOST_STEPS}"
        raise ConfigError(f"steps of the test: expected {expected}, got {shown(num_steps)}")
    return np.geomspace(min_lr, max_lr, num_steps)


def _tested(config: ExperimentConfig) -> ExperimentConfig:
    """The settings with rates of 1 and its multiples, no schedule, no average, and in one process the steps of all."""
    accumulated = config.trainer.accumulate_grad_batches * num_processes(config.trainer)
    trainer = config.trainer.model_copy(update={"ema_decay": 0.0, "accumulate_grad_batches": accumulated})
    optimizer = config.optimizer.model_copy(update={"lr": 1.0})
    return config.model_copy(update={"optimizer": optimizer, "schedule": _CONSTANT, "trainer": trainer})


class _RisingRate(StepGuard):
    """Notes the loss of each step before it is made, sets its rate, and says when the test is over."""

    def __init__(self, rates: Floats, bar: Progress) -> None:
        super().__init__()
        self.rates, self.bar = rates, bar
        self.shown = bar.add_task("finding optimizer.lr", total=len(rates))
        self.losses, self.lowest = list[float](), math.inf  # the latter smoothed
        self.stopped: str | None = None  # why, in words, before the last rate

    @property
    def is_over(self) -> bool:
        """Whether there is no further step."""
        return self.stopped is not None or len(self.losses) == len(self.rates)

    def begin_epoch(self, model: nn.Module) -> None:
        """No step is undone."""

    def check(self, step: StepContext, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the step is made: not the last one, by which weights may become infinite."""
        rate = float(self.rates[len(self.losses)])
        self._note(float(torch.stack([seen.terms["loss"] for seen in step.batches]).mean()), rate)
        if self.is_over:
            optimizer.zero_grad(set_to_none=True)
            return False
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate  # initially 1, or its multiple for the backbone
        return True

    def _note(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            if not self.losses:
                raise DetsegError(f"the loss of the first batch is {loss}; detseg train says what it comes from")
            self.stopped = f"the loss is {loss} at a rate of {rate:.2g}"
            return
        self.losses.append(loss)
        line = f"finding optimizer.lr: step {len(self.losses)} of {len(self.rates)}, rate {rate:.1e}, loss {loss:.4g}"
        self.bar.update(self.shown, advance=1, description=line, refresh=True)
        smoothed = smooth_last(self.rates[: len(self.losses)], np.array(self.losses))
        self.lowest = min(self.lowest, smoothed)
        if smoothed - self.lowest > _DIVERGED * abs(self.lowest):
            self.stopped = f"the loss diverges at a rate of {rate:.2g}"


class _Batches:
    """The batches of the training, epoch by epoch, until the test is over."""

    def __init__(self, loader: Any, num_epochs: int, steps: _RisingRate) -> None:
        self.loader, self.num_epochs, self.steps = loader, num_epochs, steps

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        for epoch in itertools.cycle(range(self.num_epochs)):
            self.loader.batch_sampler.set_epoch(epoch)
            for batch in self.loader:
                yield batch
                if self.steps.is_over:
                    return
