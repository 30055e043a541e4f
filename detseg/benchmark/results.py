"""The numbers of a benchmark, the table that shows them, and the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("detseg", "torch", "torchvision", "lightning", "numpy", "opencv-python-headless", "albumentations", "timm")


@dataclass(frozen=True)
class Measurement:
    """One thing that was measured: a value for each repetition, at least one.

    ``share`` is the fraction of the whole that it is a part of; None: it is a whole itself.
    """

    stage: str
    name: str
    unit: str
    values: tuple[float, ...]
    share: float | None = None
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
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": num_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _number(value: float) -> str:
    """Three significant digits, without powers of ten."""
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"
