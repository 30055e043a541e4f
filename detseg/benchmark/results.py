"""The numbers of a benchmark, the machine that they were measured on, a table; what limits a training, and what to try.

The diagnosis is by the first rule that holds; docs/benchmarking.md lists them.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import TwoStageConfig
from detseg.training.setup.trainer import resolve_precision

_PACKAGES = ("detseg", "torch", "torchvision", "lightning", "numpy", "albumentations", "timm")

COPY, FORWARD, LOSSES, BACKWARD = "copy to the device, to float", "forward", "assignment, losses", "backward"
UPDATE, OVERHEAD = "clipping, optimiser, EMA", "Lightning, logging, NaN guard"
STEP_PARTS = (COPY, FORWARD, LOSSES, BACKWARD, UPDATE)
"""The parts of a step that are timed; the overhead is what is left of the whole."""

_WAITING_PERCENT = 15
_WORTH_WORKERS = 1.15  # times more images per second that another number of workers must give to be advised
_VALIDATION_FRACTION = 0.25
_LIMITS = {OVERHEAD: 0.25, COPY: 0.15, UPDATE: 0.25, LOSSES: 0.3}
"""Part of a step → from which fraction of the step on it is the bottleneck."""


@dataclass(frozen=True)
class Measurement:
    """One thing that was measured."""

    stage: str
    name: str
    unit: str
    values: tuple[float, ...]  # of each repetition, at least one
    share: float | None = None  # the fraction of the whole that it is a part of; None: it is a whole itself
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)


@dataclass
class Results:
    """Measurements in the order of the table, and facts about machine, model and data as plain data."""

    measurements: list[Measurement] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, stage: str, name: str, unit: str, values: Sequence[float], note: str = "") -> None:
        """Add a measurement that is no part of another one."""
        self.measurements.append(Measurement(stage, name, unit, tuple(values), None, note))

    def add_parts(self, stage: str, unit: str, parts: Mapping[str, Sequence[float]]) -> None:
        """Add the parts of a whole, name → values, with the fraction that each has of the sum of the medians."""
        medians = {name: statistics.median(values) for name, values in parts.items()}
        for name, values in parts.items():
            share = medians[name] / (sum(medians.values()) or 1.0)
            self.measurements.append(Measurement(stage, name, unit, tuple(values), share))

    def median(self, stage: str, name: str) -> float | None:
        """The median of a measurement; None: it was not made."""
        return next((m.median for m in self.measurements if (m.stage, m.name) == (stage, name)), None)

    def shares(self, stage: str) -> dict[str, float]:
        """The fractions of the parts of a stage."""
        return {m.name: m.share for m in self.measurements if m.stage == stage and m.share is not None}

    def lines(self) -> Iterator[str]:
        """What was measured, and a table of the stages."""
        machine = self.facts["machine"]
        versions = ", ".join(f"{name} {machine['versions'].get(name, '?')}" for name in ("python", "torch", "detseg"))
        yield f"machine: {machine['processor']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}; {versions}"
        yield f"model: {self.facts['model']}"
        yield f"data: {self.facts['data']}"
        for stage in dict.fromkeys(m.stage for m in self.measurements):
            yield f"\n{stage:<33} {'median':>9} {'min - max':>17}  unit       share"
            for m in self.measurements:
                if m.stage == stage:
                    span = f"{_number(min(m.values))} - {_number(max(m.values))}" if len(m.values) > 1 else ""
                    share = "" if m.share is None else f"{m.share:.1%}"
                    line = f"  {m.name:<31} {_number(m.median):>9} {span:>17}  {m.unit:<9} {share:>6}  {m.note}"
                    yield line.rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, with the values of all repetitions."""
        return self.facts | {"measurements": [vars(m) | {"median": m.median} for m in self.measurements]}


def num_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def machine_facts() -> dict[str, Any]:
    """Processor, cores, GPU, operating system and versions, as plain data."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, flags=re.MULTILINE)
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": num_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def _number(value: float) -> str:
    """Three significant digits, without powers of ten."""
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


@dataclass(frozen=True)
class Diagnosis:
    """What the numbers say, and what to try first: one line each."""

    bottleneck: str
    advice: str


def diagnose(results: Results, config: ExperimentConfig, num_train: int, num_val: int) -> Diagnosis:
    """The diagnosis by the first rule that holds; the last arguments are the sizes of the data sets."""
    step, fed = results.median("step", "training"), results.median("step", "training with the loader")
    if step is None or fed is None:
        return Diagnosis("training steps were not timed", "leave out --stages, or add step to it")
    waiting = results.median("step", "waiting for the loader") or 0.0
    if waiting >= _WAITING_PERCENT:
        rates = f"the step could take {step:.3g} images/s, gets {fed:.3g}"
        line = f"the loader: {rates}, and waits {waiting:.0f}% of the time"
        return Diagnosis(line, _faster_loader(results, config, step))
    every, epochs = config.trainer.validate_every, config.trainer.max_epochs
    if (rate := results.median("validation", "validation, scoring")) and not results.facts["synthetic"]:
        fraction = 1 / (1 + every * (num_train / fed) / (num_val / rate))
        if fraction >= _VALIDATION_FRACTION and every < epochs:
            advice = f"set trainer.validate_every={min(epochs, 2 * every)}"
            return Diagnosis(f"validation: it takes {fraction:.0%} of the whole training", advice)
    shares = results.shares("step")
    larger = f"set data.batch_size={2 * config.data.num_images} (with optimizer.lr to match)"
    smaller = "lower data.image_size, or take a smaller model.backbone"
    remedies = {OVERHEAD: larger, COPY: smaller, UPDATE: larger, LOSSES: smaller}
    if isinstance(config.model, TwoStageConfig):  # the second stage is part of the losses
        remedies[LOSSES] = "lower model.rpn.post_nms_top_n_train and model.roi_heads.batch_size_per_image"
    for part, limit in _LIMITS.items():
        if shares[part] >= limit:
            return Diagnosis(f"{part}: {shares[part]:.0%} of a step", remedies[part])
    line = f"the network: forward and backward are {shares[FORWARD] + shares[BACKWARD]:.0%} of a step"
    device = results.facts["device"]
    if config.trainer.precision == "float32" and resolve_precision("auto", device) == "bfloat16":
        return Diagnosis(line, "set trainer.precision=auto: bfloat16 is computed natively here")
    if not config.trainer.compile:
        return Diagnosis(line, "try trainer.compile=true (a CPU needs a C++ compiler), and run this benchmark again")
    return Diagnosis(line, smaller)


def _faster_loader(results: Results, config: ExperimentConfig, step: float) -> str:
    rates: dict[int, float] = results.facts.get("loader_rates", {})
    now, num_workers = rates.get(config.data.num_workers), config.data.num_workers
    if now is None:
        return "raise data.num_workers; with the stage loader timed, a number could be named"
    # Without processes, loading and training take turns, which never feeds a step fully.
    others = {number: rate for number, rate in rates.items() if number}
    enough = [number for number in sorted(others) if others[number] >= step]
    best = enough[0] if enough else max(others, key=lambda number: others[number], default=0)
    if best and (others[best] >= _WORTH_WORKERS * now or (not num_workers and enough)):
        return f"set data.num_workers={best}: that gives {others[best]:.3g} images/s"
    decoding, whole = results.median("loader", "read and decode") or 0.0, 1000 * max(num_workers, 1) / now
    times = f"{decoding:.3g} of {whole:.3g} ms an image"
    if decoding >= whole / 2:
        return f"store the images no larger than data.image_size: reading takes {times}"
    return f"take something out of data.augmentation: reading takes only {times}"
