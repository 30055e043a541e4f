"""The stages of a benchmark, each timed from outside by calling what a training calls."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from detseg.benchmark.results import OVERHEAD, STEP_PARTS, Diagnosis, Results, diagnose, machine_facts, num_cores
from detseg.benchmark.setup import Setup, open_setup
from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import checked_sample
from detseg.data.loading.processes import loader_errors
from detseg.errors import ConfigError
from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import stack_images, to_float
from detseg.structures import Batch
from detseg.tasks import kind_of
from detseg.training.distributed import Processes
from detseg.training.optim.optimizers import build_optimizer
from detseg.training.setup.trainer import build_bare_trainer

STAGES = ("start", "loader", "step", "validation", "predictor")

_COMPILED_WARM_UP = 40
"""Steps until compiled networks have settled: nothing is compiled while normalisation averages its first batches."""
_ENDLESS = 10**6  # batches of an epoch, as far as the schedule knows: the learning rate stays at its beginning


@loader_errors()
def benchmark(
    config: ExperimentConfig,
    stages: Sequence[str] = STAGES,
    *,
    synthetic: bool = False,
    workers: Sequence[int] = (),
    steps: int | None = None,
    checkpoint: Path | None = None,
) -> tuple[Results, Diagnosis]:
    """Time the stages of a training.

    Args:
        config: the settings.
        stages: some of ``STAGES``.
        synthetic: use synthetic images instead of the data.
        workers: numbers of loader processes to try besides that of the settings; empty: 0, 1, 2, 4, ... to the cores.
        steps: repetitions of each measurement; None: as many as fit into a few seconds, 3 to 50.
        checkpoint: weights for the model; None: random ones.

    Raises:
        DetsegError: the settings or the data are wrong, or a stage is unknown.
    """
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"--stages: expected some of {', '.join(STAGES)}, got {unknown[0]!r}")
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps: expected at least 1, got {steps}")
    results = Results(facts={"machine": machine_facts()})
    counts = set(workers) or {0, *(2**i for i in range(num_cores().bit_length()))}
    with warnings.catch_warnings(), open_setup(config, synthetic, checkpoint, results) as setup:
        warnings.simplefilter("ignore")  # a training shows them; here they would stand in the table
        results.facts["config"] = config_to_dict(setup.config)
        if "loader" in stages:
            time_loader(setup, results, steps, sorted(counts | {config.data.num_workers}))
        if "step" in stages:
            time_steps(setup, results, steps)
        if "validation" in stages:
            time_validation(setup, results, steps)
        if "predictor" in stages:
            time_predictor(setup, results, steps)
        results.measurements = [m for m in results.measurements if m.stage in stages]
        return results, diagnose(results, setup.config, len(setup.train_set), len(setup.val_set))


def timer() -> float:
    """Seconds, once a GPU has done all its work: parts that are timed one by one take longer there than together."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def repetitions(steps: int | None, seconds: float) -> Iterator[int]:
    """0, 1, 2, ...: ``steps`` numbers, or as many as the seconds allow, 3 to 50."""
    begin = time.perf_counter()
    for number in range(50 if steps is None else steps):
        if steps is None and number >= 3 and time.perf_counter() - begin > seconds:
            return
        yield number


def time_loader(setup: Setup, results: Results, steps: int | None, workers: Sequence[int]) -> None:
    """What reading an image takes, and images per second with each number of loader processes."""
    reading = []
    for number in repetitions(steps, 2.0):
        begin = time.perf_counter()
        checked_sample(setup.train_set, number % len(setup.train_set), setup.config.data.input_hw)
        reading.append(1000 * (time.perf_counter() - begin))
    results.add("loader", "read and decode", "ms/image", reading)
    rates = results.facts["loader_rates"] = {}
    for num_workers in workers:
        values = []
        at_once = max(num_workers, 1)  # batches of several processes come in bursts
        with setup.batches(num_workers) as batches:
            list(itertools.islice(batches, at_once))  # the processes start
            for _ in repetitions(steps, 4.0):
                begin, images = time.perf_counter(), 0
                while not images or (steps is None and time.perf_counter() - begin < 0.6):
                    images += sum(map(len, itertools.islice(batches, at_once)))
                values.append(images / (time.perf_counter() - begin))
        note = "as configured" if num_workers == setup.config.data.num_workers else ""
        results.add("loader", f"data.num_workers={num_workers}", "images/s", values, note)
        rates[num_workers] = float(np.median(values))


class _TrainingBatches:
    """What ``trainer.fit`` trains on, which asks for the next batch when a step is over: so long the step took."""

    def __init__(self, setup: Setup, steps: int | None) -> None:
        self.setup, self.steps = setup, steps
        self.whole: list[float] = []  # milliseconds of a step on batches held in memory
        self.fed: list[float] = []  # images per second on batches fresh from the loader, as it is configured
        self.waits: list[float] = []  # percent of that time in which training waited for the loader

    def __len__(self) -> int:
        return _ENDLESS

    def __iter__(self) -> Iterator[Batch]:
        settings, num_workers = self.setup.config.trainer, self.setup.config.data.num_workers
        block = settings.accumulate_grad_batches * math.ceil(3 / settings.accumulate_grad_batches)
        held = itertools.cycle(self.setup.first_batches(3))
        yield from itertools.islice(held, block * (math.ceil(_COMPILED_WARM_UP / block) if settings.compile else 1))
        for _ in repetitions(self.steps, 10.0):
            begin = timer()
            yield from itertools.islice(held, block)
            self.whole.append(1000 * (timer() - begin) / block)
        with self.setup.batches(num_workers) as batches:
            yield from itertools.islice(batches, max(num_workers, 2))  # the processes start
            for _ in repetitions(self.steps, 8.0):
                begin, waited, images = timer(), 0.0, 0
                for _ in range(max(block, num_workers)):
                    asked = time.perf_counter()
                    batch = next(batches)
                    waited, images = waited + time.perf_counter() - asked, images + len(batch)
                    yield batch
                seconds = timer() - begin
                self.fed.append(images / seconds)
                self.waits.append(100 * waited / seconds)


def time_steps(setup: Setup, results: Results, steps: int | None) -> None:
    """Steps in Lightning's loop with training's trainer, whole and fed by the loader; then their parts."""
    trainer, batches = build_bare_trainer(setup.config, setup.folder / "run"), _TrainingBatches(setup, steps)
    trainer.fit(setup.task, train_dataloaders=batches)
    parts = _parts_of_step(setup, steps)
    surplus = float(np.median(batches.whole)) - sum(float(np.median(values)) for values in parts.values())
    batch_size, num_workers = setup.config.data.num_images, setup.config.data.num_workers
    results.add_parts("step", "ms", parts | {OVERHEAD: [max(surplus, 0.0)]})
    results.add("step", "whole step", "ms", batches.whole, f"a batch of {batch_size}, held in memory")
    results.add("step", "training", "images/s", [1000 * batch_size / ms for ms in batches.whole])
    results.add("step", "training with the loader", "images/s", batches.fed, f"data.num_workers={num_workers}")
    results.add("step", "waiting for the loader", "%", batches.waits)


def _parts_of_step(setup: Setup, steps: int | None) -> dict[str, list[float]]:
    """Milliseconds of the parts of a step; the losses' time is that of ``model.losses`` without ``model.forward``."""
    settings, task = setup.config.trainer, setup.task.to(setup.device).train()
    model, optimizer = task.model, build_optimizer(setup.config.optimizer, task.model)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    held = itertools.cycle(setup.first_batches(3))
    rows: list[tuple[float, ...]] = []
    for _ in itertools.chain([-1], repetitions(steps, 10.0)):
        marks = [timer()]
        batch = next(held).to(setup.device)
        images = to_float(batch.images)
        marks.append(timer())
        with torch.autocast(setup.device.type, torch.bfloat16, enabled=setup.precision == "bfloat16"):
            model(images)
            marks.append(timer())
            total = sum(model.losses(images, task.targets(batch)).values())
        marks.append(timer())
        total.backward()
        marks.append(timer())
        if settings.gradient_clip_norm:
            clip_grad_norm_(parameters, settings.gradient_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if task.average is not None:
            task.average.update(model, _ENDLESS)
        marks.append(timer())
        copy, forward, losses, backward, update = (1000 * np.diff(marks)).tolist()
        rows.append((copy, forward, max(losses - forward, 0.0), backward, update / settings.accumulate_grad_batches))
    return dict(zip(STEP_PARTS, map(list, zip(*rows[1:], strict=True)), strict=True))  # the first one warms up


def time_validation(setup: Setup, results: Results, steps: int | None) -> None:
    """Images per second of validation, on as many batches as there is time for, then scored."""
    task: Any = setup.task.to(setup.device).eval()
    task.processes = Processes()
    task.on_validation_epoch_start()
    rates, num_images = [], 0
    with setup.batches(setup.config.data.num_workers, validation=True) as batches:
        for number in repetitions(None if steps is None else steps + 1, 6.0):
            begin = timer()
            if (batch := next(batches, None)) is None:
                break
            task.validation_step(batch.to(setup.device), number)
            rates.append(len(batch) / (timer() - begin))
            num_images += len(batch)
    rates = rates[1:] or rates  # the first one warms up
    task.evaluator.compute()  # the first time, libraries are imported
    begin = timer()
    task.evaluator.compute()
    scoring = timer() - begin
    results.add("validation", "validation", "images/s", rates)
    results.add("validation", "scoring", "s", [scoring], f"of {num_images} images")
    together = 1 / (1 / float(np.median(rates)) + scoring / num_images)
    results.add("validation", "validation, scoring", "images/s", [together])


@torch.no_grad()
def time_predictor(setup: Setup, results: Results, steps: int | None) -> None:
    """Predictions for validation images, one at a time, with the weights that validation sees."""
    kind, input_hw = kind_of(setup.config.model), setup.config.data.input_hw
    predictor: Any = kind.predictor()(setup.task.evaluated_model, setup.train_set.classes, input_hw, setup.device)
    val_set: Any = setup.val_set  # of files, since settings name it
    rows = []
    for number in itertools.chain([0, 1], repetitions(steps, 4.0)):
        marks = [timer()]
        image = predictor.read(val_set.path(number % len(val_set)))
        marks.append(timer())
        letterboxed = Letterbox.fit((image.shape[0], image.shape[1]), input_hw).apply(image)
        images = to_float(stack_images([letterboxed]).to(setup.device))
        marks.append(timer())
        predictor.model(images)
        marks.append(timer())
        predictor(image)
        marks.append(timer())
        rows.append(1000 * np.diff(marks))
    read, preprocess, network, whole = np.array(rows[2:]).T  # the first ones warm up
    postprocess = (whole - preprocess - network).clip(0)
    results.add("predictor", "read and decode", "ms", read.tolist())
    parts = {"preprocess": preprocess, "network": network, "postprocess": postprocess}
    results.add_parts("predictor", "ms", {name: values.tolist() for name, values in parts.items()})
    results.add("predictor", "an image", "ms", whole.tolist(), "from the array to the result")
