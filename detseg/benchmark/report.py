"""The findings as a table of plain text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detseg.benchmark.measurement import Findings, Measurement
from detseg.benchmark.verdict import Verdict
from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig

SCHEMA = "detseg benchmark 1"
"""Raised whenever the JSON changes its form."""

TITLES = {
    "start": "start-up",
    "loader": "loader",
    "copy": "host to device",
    "step": "training step",
    "validation": "validation",
    "predictor": "predictor, one image",
    "memory": "memory",
}
_WIDTHS = (32, 10, 19, 9, 6)
"""Of the columns name, median, extremes, unit, share."""


def as_lines(findings: Findings, verdict: Verdict) -> Iterator[str]:
    """The table, what was left out, the bottleneck and the advice."""
    yield from _heading(findings)
    number = 0
    notes: list[str] = []
    for stage in dict.fromkeys(m.stage for m in findings.measurements):
        yield ""
        yield _row(TITLES[stage], "median", "min - max", "unit", "share")
        for m in findings.measurements:
            if m.stage == stage:
                mark = ""
                if m.note:
                    number += 1
                    mark = f" [{number}]"
                    notes.append(f"[{number}] {m.note}")
                yield _line(m, mark)
    yield ""
    yield from notes
    yield from (f"left out: {what}: {why}" for what, why in findings.skipped.items())
    yield ""
    yield f"bottleneck: {verdict.bottleneck}"
    yield f"advice: {verdict.advice}"


def as_json(findings: Findings, verdict: Verdict, config: ExperimentConfig) -> dict[str, Any]:
    """Everything as plain data: all values of all repetitions with their units, machine, versions, settings."""
    return {
        "schema": SCHEMA,
        **findings.facts,
        "measurements": [m.to_dict() for m in findings.measurements],
        "skipped": findings.skipped,
        "verdict": {"rule": verdict.rule, "bottleneck": verdict.bottleneck, "advice": verdict.advice},
        "config": config_to_dict(config),
    }


def _heading(findings: Findings) -> Iterator[str]:
    facts, machine = findings.facts, findings.facts["machine"]
    versions = machine["versions"]
    device = machine["gpu"] if facts["device"] == "cuda" else facts["device"]
    cores = f"{machine['cores']} cores, torch takes {machine['threads']}"
    yield f"machine: {machine['processor']}, {cores}; training computes on {device}"
    yield f"versions: python {versions['python']}, torch {versions['torch']}, detseg {versions.get('detseg', '?')}"
    flops = facts.get("gflops_per_image")
    yield f"model: {facts['model']}" + ("" if flops is None else f", {flops:.3g} GFLOPs to predict an image")
    yield f"weights: {facts['weights']}; precision: {facts['precision']}"
    yield f"data: {facts['data']}"


def _line(m: Measurement, mark: str) -> str:
    extremes = f"{_number(min(m.values))} - {_number(max(m.values))}" if len(m.values) > 1 else ""
    share = "" if m.share is None else f"{m.share:.1%}"
    return _row(m.name, _number(m.median), extremes, m.unit, share) + mark


def _row(*cells: str) -> str:
    name, median, extremes, unit, share = cells
    widths = _WIDTHS
    numbers = f"{median:>{widths[1]}} {extremes:>{widths[2]}}  {unit:<{widths[3]}} {share:>{widths[4]}}"
    return f"{name:<{widths[0]}} {numbers}".rstrip()


def _number(value: float) -> str:
    """Three digits that count, and no powers of ten."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
