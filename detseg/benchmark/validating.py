"""Validation as training and ``tools/evaluate.py`` make it: loading, network, decoding, NMS, the evaluator's work."""

from __future__ import annotations

import gc
import time
from typing import Any

from detseg.benchmark.clock import Clock, Stopwatch
from detseg.benchmark.effort import Effort
from detseg.benchmark.measurement import Findings, Measurement, parts_of_whole
from detseg.benchmark.seams import LOADING, REST, VALIDATION_ORDER, timed_calls, validation_seams
from detseg.benchmark.subject import Subject
from detseg.training.processes import Processes

STAGE = "validation"
RATE, SCORING = "validation", "scoring"


def measure_validation(subject: Subject, effort: Effort, findings: Findings) -> None:
    """Validates on as many batches as there is time for, then scores them."""
    task: Any = subject.task
    task.to(subject.device).eval()
    task.processes = Processes()
    task.on_validation_epoch_start()
    stopwatch = Stopwatch(Clock(subject.device))
    loader = subject.loaders(subject.config.data.num_workers).val_dataloader()
    batches = iter(loader)
    rounds: list[dict[str, float]] = []
    rates: list[float] = []
    num_images = 0
    with timed_calls(stopwatch, validation_seams(task)):
        first = next(batches)
        task.validation_step(first.to(subject.device), 0)  # warms up; its images count in the scoring
        num_images += len(first)
        for number in effort.repetitions(1.5):
            begin = time.perf_counter()
            with stopwatch.part(LOADING):
                batch = next(batches, None)
            if batch is None:
                break
            with stopwatch.part(REST):
                task.validation_step(batch.to(subject.device), number + 1)
            rates.append(len(batch) / (time.perf_counter() - begin))
            taken = stopwatch.take(divided_by=len(batch) / 1000)
            rounds.append({name: taken[name] for name in sorted(taken, key=VALIDATION_ORDER.index)})
            num_images += len(batch)
    del batches, loader
    if subject.config.data.num_workers:
        gc.collect()  # ends the processes
    _report(subject, rounds, rates, num_images, findings)


def _report(
    subject: Subject, rounds: list[dict[str, float]], rates: list[float], num_images: int, findings: Findings
) -> None:
    scoring: list[float] = []
    for _ in range(2):  # the first time, libraries are imported
        with Clock().timing(scoring):
            subject.task.evaluator.compute()
    if rounds:
        findings.measurements += [
            *parts_of_whole(STAGE, "ms/image", rounds),
            Measurement(STAGE, RATE, "images/s", tuple(rates)),
        ]
    else:
        findings.skipped[f"{STAGE}: its parts"] = "the validation set has a single batch, which warms up"
    findings.facts["scored_images"] = num_images
    note = f"of {num_images} images; grows at least in proportion to their number"
    findings.measurements.append(Measurement(STAGE, SCORING, "s", (scoring[1],), note=note))
