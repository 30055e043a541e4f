"""``trainer.budget``: how many epochs fit into a time, by the speed of some steps and of a part of a validation."""

from __future__ import annotations

import copy
import gc
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from detseg.checkpoint import LAST
from detseg.config.load import is_stated
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.loading.processes import loader_errors
from detseg.errors import ConfigError
from detseg.messages import console, counted
from detseg.structures import Batch
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO
from detseg.training.callbacks.oom import training_memory_errors
from detseg.training.seeding import random_state, restore_random_state
from detseg.training.setup.build import Own, build_data, build_task
from detseg.training.setup.facts import num_processes
from detseg.training.setup.recipe import NUM_VALIDATIONS, with_choices
from detseg.training.setup.trainer import build_bare_trainer, interrupts_kept

logger = logging.getLogger("detseg")

_PART, _SHORTEST, _LONGEST = 0.02, 8.0, 30.0
"""Of the budget, seconds: that measuring takes, of training and validation each at most."""
_FIRST_BATCHES = 3
"""That are not counted, since they wait for loader processes and for memory."""
_ENDLESS = 10**6
_MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Speed:
    """Seconds of an epoch and of a validation, each with the checkpoint that follows, and until the first step."""

    epoch: float
    validation: float
    start: float = 0.0

    def total(self, epochs: int, validate_every: int) -> float:
        """Seconds of a training; the last epoch is always validated."""
        return epochs * self.epoch + -(-epochs // validate_every) * self.validation

    def most_epochs(self, seconds: float, validate_every: int | None) -> tuple[int, int]:
        """The most epochs that fit into a time, at least 1, and epochs from one validation to the next; where it is not
        stated, None, that for ``NUM_VALIDATIONS`` of them."""
        low, high = 1, _MOST_EPOCHS
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.total(middle, validate_every or _every(middle)) <= seconds
            low, high = (middle, high) if fits else (low, middle - 1)
        return low, validate_every or _every(low)


def _every(epochs: int) -> int:
    return max(1, round(epochs / NUM_VALIDATIONS))


def within_budget(config: ExperimentConfig, train_set: EvalSource, val_set: EvalSource, own: Own) -> ExperimentConfig:
    """The settings with as many epochs as fit into ``trainer.budget``, by measuring; weights and random generators of
    the training are not touched.

    Args:
        config: the settings; without a budget, and in a dev run, they are returned as they are.
        train_set, val_set: the data.
        own: the user's own model, and when the budget began.

    Raises:
        ConfigError: a setting does not go with so few epochs.
    """
    if config.trainer.budget is None or config.trainer.fast_dev_run:
        return config
    with console.status("measuring how long an epoch takes"):
        speed = measure(config, train_set, val_set, own)
    left = config.trainer.budget_seconds - (time.monotonic() - own.begun) - speed.start
    stated = config.trainer.validate_every if is_stated(config, "trainer.validate_every") else None
    epochs, every = speed.most_epochs(left, stated)
    takes = f"an epoch takes {speed.epoch:.1f} s here, a validation {speed.validation:.1f} s"
    what = f"trainer.max_epochs={epochs}, validate_every={every}: what fits into {config.trainer.budget}; {takes}"
    if speed.total(epochs, every) > left:
        logger.warning(f"{what}; {counted(epochs, 'epoch')} is more than the budget")
    else:
        logger.info(what)
    values = {"trainer.max_epochs": epochs, "trainer.validate_every": every, "trainer.budget": None}
    return with_choices(config, values)


def measure(config: ExperimentConfig, train_set: EvalSource, val_set: EvalSource, own: Own) -> Speed:
    """Train and validate for some seconds on a copy of the model."""
    seconds = min(max(_PART * config.trainer.budget_seconds, _SHORTEST), _LONGEST)
    generators = random_state()
    model = copy.deepcopy(own.model)
    task = build_task(config, train_set.classes, load_pretrained=False, model=model)
    data = build_data(config, train_set, val_set)
    with TemporaryDirectory(prefix="detseg-budget-") as folder:
        trainer = build_bare_trainer(config, Path(folder))
        steps = _Timed(data.train_dataloader(), seconds, once=False)
        images = _Timed(data.val_dataloader(), seconds, once=True)
        with loader_errors(), training_memory_errors(trainer, config), interrupts_kept(trainer):
            begin = time.monotonic()
            trainer.fit(task, train_dataloaders=steps)
            start = steps.first - begin
            trainer.validate(task, dataloaders=images, verbose=False)
            begin = time.monotonic()
            trainer.save_checkpoint(Path(folder) / LAST)
            files = cast(AtomicCheckpointIO, trainer.strategy.checkpoint_io)
            files.close()  # waits until it is on the disk
            saving = time.monotonic() - begin
    speed = Speed(steps.of_all() + saving, images.of_all(begin) + saving, start + images.first - images.asked)
    del trainer, task, data, steps, images
    gc.collect()  # ends the loaders' processes
    restore_random_state(generators)
    return speed


def check_budget(config: ExperimentConfig) -> None:
    """Raise a ConfigError if several processes are to train within a budget, which would have to agree."""
    if config.trainer.budget is None:
        return
    if num_processes(config.trainer) > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("trainer.budget: is for a training in one process; set trainer.max_epochs instead")


class _Timed:
    """The batches of a loader, again and again until a time is over, or once.

    Attributes:
        number: batches so far.
        asked, first, last: when the first one was asked for, when it was there, and when the last one was.
    """

    def __init__(self, loader: Any, seconds: float, once: bool) -> None:
        self.loader, self.seconds, self.once = loader, seconds, once
        self.number, self.asked, self.first, self.last = 0, 0.0, 0.0, 0.0
        self._counted_from = 0, 0.0  # a batch, and when it was there

    def __len__(self) -> int:
        return len(self.loader) if self.once else _ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        self.asked = time.monotonic()
        for epoch in range(1 if self.once else _ENDLESS):
            if not self.once:
                self.loader.batch_sampler.set_epoch(epoch)
            for batch in self.loader:
                self.last = time.monotonic()
                self.first = self.first or self.last
                if self.number <= _FIRST_BATCHES and not self.once:
                    self._counted_from = self.number, self.last
                is_over = self.last - self.asked > self.seconds and self.number > _FIRST_BATCHES
                if is_over:
                    return
                self.number += 1
                yield batch

    def of_all(self, end: float | None = None) -> float:
        """Seconds of all batches of the loader, by those that were counted; ``end``: when the last one was done, else
        it is not counted."""
        if end is not None:
            return (end - self.first) * len(self.loader) / max(self.number, 1)
        number, begin = self._counted_from
        return (self.last - begin) * len(self.loader) / max(self.number - number, 1)
