"""The loader: how fast it is by the number of its processes, and what an image takes in one of them."""

from __future__ import annotations

import copy
import gc
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import isfunction
from typing import Any

import cv2
import torch

from detseg.benchmark.clock import Clock, Stopwatch
from detseg.benchmark.effort import Effort
from detseg.benchmark.measurement import Findings, Measurement, parts_of_whole
from detseg.benchmark.subject import Subject
from detseg.errors import DataError
from detseg.structures import Batch

STAGE = "loader"
DECODE, AUGMENT, COLLATE = "read and decode", "letterbox, augment", "collate"

_BLOCK_SECONDS = 0.6

_MIXED_IMAGES = 32
"""Images of a repetition where there are mosaics: the loader keeps some decoded, so that single batches differ."""


def measure_loader(subject: Subject, workers: list[int], effort: Effort, findings: Findings) -> None:
    """Times the parts of loading in this process, then the whole with each number of processes."""
    findings.measurements += _parts(subject, effort)
    for num_workers in workers:
        rates = tuple(_rates(subject, num_workers, effort))
        name = f"{num_workers} worker{'' if num_workers == 1 else 's'}"
        notes = ["in the training's own process"] if not num_workers else []
        notes += ["as configured"] if num_workers == subject.config.data.num_workers else []
        findings.measurements.append(Measurement(STAGE, name, "images/s", rates, note="; ".join(notes)))
        findings.facts.setdefault("loader_rates", {})[num_workers] = findings.measurements[-1].median


def endless(loader: Any) -> Generator[Any]:
    """What a loader or sampler yields for the first epoch, again and again."""
    while True:
        yield from loader


@contextmanager
def batches_by(subject: Subject, num_workers: int) -> Iterator[Iterator[Batch]]:
    """Training batches from so many loader processes, which end with the block."""
    loader = subject.loaders(num_workers).train_dataloader()
    batches = endless(loader)
    try:
        yield batches
    finally:
        batches.close()
        del batches, loader
        if num_workers:
            gc.collect()  # ends the processes, also where something still refers to them in a circle


def _rates(subject: Subject, num_workers: int, effort: Effort) -> list[float]:
    """Images a second of each repetition: a block of batches, none of which was loaded beforehand."""
    rates = []
    with batches_by(subject, num_workers) as batches:
        for _ in range(max(num_workers, 1)):  # the processes start
            next(batches)
        for _ in effort.repetitions():
            images, begin = 0, time.perf_counter()
            # Whole rounds of the processes: their batches come in bursts.
            while images == 0 or (effort.steps is None and time.perf_counter() - begin < _BLOCK_SECONDS):
                images += sum(len(next(batches)) for _ in range(max(num_workers, 1)))
            rates.append(images / (time.perf_counter() - begin))
    return rates


def timed_source(source: Any, stopwatch: Stopwatch) -> Any:
    """The same data set, of a kind of its own whose methods are timed: whichever of them a loader reads by."""
    kind = type(source)
    names = [name for name in dir(kind) if name == "__getitem__" or not name.startswith("_")]
    methods = {name: _timed(getattr(kind, name), stopwatch) for name in names if isfunction(getattr(kind, name))}
    timed = copy.copy(source)
    timed.__class__ = type(kind.__name__, (kind,), methods)
    return timed


def _timed(method: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        if not stopwatch.is_running:  # the loader is being made
            return method(*arguments, **options)
        with stopwatch.part(DECODE):
            return method(*arguments, **options)

    return call


def _parts(subject: Subject, effort: Effort) -> list[Measurement]:
    """Milliseconds an image in this process, which computes with one thread as loader processes do."""
    stopwatch = Stopwatch(Clock())
    loader = subject.loaders(0, timed_source(subject.train_set, stopwatch)).train_dataloader()
    requests = endless(loader.batch_sampler)
    augmentation = subject.config.data.augmentation
    mixes = max(augmentation.mosaic, augmentation.mixup) > 0
    num_batches = math.ceil(_MIXED_IMAGES / subject.batch_size) if mixes else 1
    rounds: list[dict[str, float]] = []
    with _one_thread():
        _load_one(loader, next(requests), stopwatch)
        stopwatch.take()
        for _ in effort.repetitions():
            images = sum(_load_one(loader, next(requests), stopwatch) for _ in range(num_batches))
            taken = stopwatch.take(divided_by=images / 1000)
            rounds.append({name: taken.get(name, 0.0) for name in (DECODE, AUGMENT, COLLATE)})
    whole = tuple(sum(values.values()) for values in rounds)
    notes = {DECODE: "nothing for pictures that are kept decoded for mosaics: of a small set, all"} if mixes else {}
    return [
        *parts_of_whole(STAGE, "ms/image", rounds, notes),
        Measurement(STAGE, "an image, on one core", "ms/image", whole),
    ]


def _load_one(loader: Any, requests: list[Any], stopwatch: Stopwatch) -> int:
    """Load a batch as a loader process makes it, and as the training takes it; returns the number of its images."""
    with stopwatch.part(AUGMENT):
        examples = loader.dataset.__getitems__(requests)
        with stopwatch.part(COLLATE):
            packed = loader.collate_fn(examples)
            if isinstance(packed, DataError):
                raise packed
            packed.unpack()
    return len(requests)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, opencv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(opencv)
