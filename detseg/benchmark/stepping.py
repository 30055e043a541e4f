"""Training steps as Lightning makes them: whole, in parts, and fed by the loader.

The trainer, the task, its optimiser and its guard are those of a training; of its callbacks those are left out that
save or listen to signals.  Lightning asks for the next batch when a step is over, so that the one who hands out the
batches holds the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from rich.console import Console

from detseg.benchmark.clock import Clock, Stopwatch
from detseg.benchmark.effort import Effort
from detseg.benchmark.loading import batches_by
from detseg.benchmark.measurement import Findings, Measurement, parts_of_whole
from detseg.benchmark.seams import AVERAGE, CLIPPING, OPTIMISER, REST, STEP_ORDER, step_seams, timed_calls
from detseg.benchmark.subject import Subject
from detseg.config.schema.experiment import ExperimentConfig
from detseg.experiment import build_trainer
from detseg.structures import Batch
from detseg.training.checkpoints import BestAndLast
from detseg.training.stopping import StopWhenAsked

STAGE, COPY_STAGE = "step", "copy"
WHOLE, IN_PARTS, RATE = "whole step", "whole step, timed in parts", "training alone"
TOGETHER, WAITING = "training with the loader", "of that, waiting for the loader"

_HELD_BATCHES = 3
"""Different batches that the steps are made with."""

_COMPILED_WARM_UP = 40
"""Steps until compiled networks have settled: while normalisation is fresh (``FreshNorms``), nothing is compiled."""

_ENDLESS = 10**6
"""Batches of an epoch, as far as the schedule knows: the rate stays at its beginning, the weights where they are."""

_ROUNDS = 5
"""Of a few whole steps, then as many in parts."""

_LONGER = 3.0
"""The steps get so many times the seconds of other measurements: they matter most."""


class HandedOut:
    """Batches for ``trainer.fit`` to train on, and what the steps between them took.

    Args:
        subject: what is trained.
        trainer: by whom.
        effort: how often.

    Attributes:
        whole: seconds of a step, of each round.
        parts: seconds of the parts of a step by name, of each round.
        fed: images a second with the loader, of each round.
        waits: share of that time in which the training waited for it.
        warm_up: seconds of the first steps.
    """

    def __init__(self, subject: Subject, trainer: Any, effort: Effort) -> None:
        self.subject, self.trainer, self.effort = subject, trainer, effort
        self.held = subject.training_batches(_HELD_BATCHES)
        self.clock = Clock(trainer.strategy.root_device)
        self.whole: list[float] = []
        self.parts: list[dict[str, float]] = []
        self.fed: list[float] = []
        self.waits: list[float] = []
        self.warm_up: list[float] = []
        self._handed = 0

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        accumulated = self.subject.config.trainer.accumulate_grad_batches
        least = _COMPILED_WARM_UP if self.subject.config.trainer.compile else len(self.held)
        with self.clock.timing(self.warm_up):
            yield from self._next(accumulated * math.ceil(least / accumulated))
        warm: list[float] = []
        with self.clock.timing(warm):
            yield from self._next(accumulated)
        block = self._block(warm[0] / accumulated, accumulated)
        stopwatch = Stopwatch(self.clock)
        seams = step_seams(self.trainer, self.subject.task)
        for _ in islice(self.effort.repetitions(_LONGER), _ROUNDS if self.effort.steps is None else None):
            seconds: list[float] = []
            with self.clock.timing(seconds):
                yield from self._next(block)
            self.whole.append(seconds[0] / block)
            with timed_calls(stopwatch, seams):
                for _ in range(block):
                    with stopwatch.part(REST):
                        yield from self._next(1)
            self.parts.append(stopwatch.take(divided_by=block))
        yield from self._loaded(max(block, self.subject.config.data.num_workers))

    def _block(self, seconds: float, accumulated: int) -> int:
        """Steps in a row, so that the rounds, which have two blocks each, take the time that there is."""
        if self.effort.steps is not None:
            return accumulated
        wanted = _LONGER * self.effort.seconds / (2 * _ROUNDS * max(seconds, 1e-6) * accumulated)
        return accumulated * max(1, math.floor(wanted))

    def _next(self, num: int) -> Iterator[Batch]:
        for _ in range(num):
            yield self.held[self._handed % len(self.held)]
            self._handed += 1

    def _loaded(self, block: int) -> Iterator[Batch]:
        """Blocks of batches fresh from the loader, as it is configured."""
        num_workers = self.subject.config.data.num_workers
        with batches_by(self.subject, num_workers) as batches:
            for _ in range(max(num_workers, 2)):  # the processes start
                yield next(batches)
            for _ in islice(self.effort.repetitions(_LONGER / 2), _ROUNDS if self.effort.steps is None else None):
                begin, images = self.clock.mark(), 0
                waited: list[float] = []
                for _ in range(block):
                    with Clock().timing(waited):  # the program's time: the device may have work meanwhile
                        batch = next(batches)
                    images += len(batch)
                    yield batch
                seconds = self.clock.seconds(begin, self.clock.mark())
                self.fed.append(images / seconds)
                self.waits.append(sum(waited) / seconds)


def measure_steps(subject: Subject, effort: Effort, findings: Findings) -> None:
    """Trains for some steps, and puts down what they took.

    Args:
        subject: what is trained; its weights hardly change, its statistics of normalisation do.
        effort: how often.
        findings: where it is put down.
    """
    config = _one_process(subject.config)
    silent = Console(quiet=True, force_terminal=False)  # on a terminal there would be a progress bar
    trainer: Any = build_trainer(config, subject.folder / "run", f"val/{subject.task.criterion}", silent)
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, BestAndLast | StopWhenAsked)]
    steps = HandedOut(subject, trainer, effort)
    if steps.clock.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(steps.clock.device)
    try:
        trainer.fit(subject.task, train_dataloaders=steps)
    except SystemExit as leaving:  # how Lightning passes Ctrl-C on
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    _report(subject, steps, findings)


def _one_process(config: ExperimentConfig) -> ExperimentConfig:
    """The settings of one epoch in one process on one device, without pictures."""
    changes: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}
    changes |= {"max_epochs": 1, "num_previews": 0, "early_stopping_patience": None, "fast_dev_run": False}
    return config.model_copy(update={"trainer": config.trainer.model_copy(update=changes)})


def _report(subject: Subject, steps: HandedOut, findings: Findings) -> None:
    images, accumulated = len(steps.held[0]), subject.config.trainer.accumulate_grad_batches
    num_workers = subject.config.data.num_workers
    notes = {}
    if accumulated > 1:
        once = f"once in trainer.accumulate_grad_batches={accumulated} steps; here its share of one"
        notes = dict.fromkeys((OPTIMISER, CLIPPING, AVERAGE), once)
    rounds = [{name: 1000 * parts[name] for name in sorted(parts, key=STEP_ORDER.index)} for parts in steps.parts]
    in_parts = tuple(sum(values.values()) for values in rounds)
    rates = tuple(images / seconds for seconds in steps.whole)
    synchronised = "" if steps.clock.device.type == "cpu" else "slower than the whole: it waits for the device"
    findings.measurements += [
        *parts_of_whole(STAGE, "ms", rounds, notes),
        Measurement(STAGE, IN_PARTS, "ms", in_parts, note=synchronised),
        Measurement(STAGE, WHOLE, "ms", tuple(1000 * seconds for seconds in steps.whole)),
        Measurement(STAGE, RATE, "images/s", rates, note=f"batches of {images}, held in memory"),
        Measurement(STAGE, TOGETHER, "images/s", tuple(steps.fed), note=f"data.num_workers={num_workers}"),
        Measurement(STAGE, WAITING, "%", tuple(100 * share for share in steps.waits)),
    ]
    if subject.config.trainer.compile:
        note = "with all that is compiled meanwhile; a training pays it once"
        name = f"the first {_COMPILED_WARM_UP} steps"
        findings.measurements.append(Measurement(STAGE, name, "s", tuple(steps.warm_up), note=note))


def measure_copies(subject: Subject, effort: Effort, findings: Findings) -> None:
    """Times what a training batch takes to the device; on a CPU there is nothing to copy."""
    if subject.device.type == "cpu":
        findings.skipped[COPY_STAGE] = "the training computes on the CPU: nothing is copied"
        return
    clock = Clock(subject.device)
    (batch,) = subject.training_batches(1)
    held = batch.pin_memory() if subject.device.type == "cuda" else batch
    seconds: list[float] = []
    for _ in effort.repetitions(0.25):
        with clock.timing(seconds):
            held.to(subject.device)
    values = tuple(1000 * value for value in seconds[1:] or seconds)
    megabytes = batch.images.nbytes / 1e6
    findings.measurements.append(Measurement(COPY_STAGE, f"a batch of {megabytes:.1f} MB", "ms", values))
