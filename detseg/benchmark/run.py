"""A benchmark from its settings to the verdict."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from detseg.atomic_write import atomic_write
from detseg.benchmark import loading, predicting, stepping, validating
from detseg.benchmark.effort import Effort
from detseg.benchmark.machine import STAGE as MEMORY
from detseg.benchmark.machine import count_flops, machine_facts, measure_memory, num_cores
from detseg.benchmark.measurement import Findings, Measurement
from detseg.benchmark.report import as_json, as_lines
from detseg.benchmark.subject import Subject, opened
from detseg.benchmark.verdict import Figures, Verdict, judge
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.rcnn import FasterRcnnConfig, MaskRcnnConfig
from detseg.errors import ConfigError
from detseg.training.precision import resolve_precision

STAGES = ("start", loading.STAGE, stepping.COPY_STAGE, stepping.STAGE, validating.STAGE, predicting.STAGE, MEMORY)
_COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Attributes:
        stages: of ``STAGES``.
        synthetic: on made-up pictures instead of the data.
        workers: numbers of loader processes to try; empty: 0, 1, 2, 4, ... up to the cores, and that of the settings.
        effort: how often.
        checkpoint: whose weights the model gets; None: it begins anew.
        import_seconds: what importing all that a training needs took in this process; None: it was imported before.
    """

    stages: tuple[str, ...] = STAGES
    synthetic: bool = False
    workers: tuple[int, ...] = ()
    effort: Effort = field(default_factory=Effort)
    checkpoint: Path | None = None
    import_seconds: float | None = None


def benchmark(config: ExperimentConfig, options: Options, report: Path | None = None) -> tuple[Findings, Verdict]:
    """Time each stage of a training, print a table with the bottleneck and an advice.

    Args:
        config: the settings.
        options: what is measured, and how.
        report: a JSON file for all numbers; None: none is written.

    Raises:
        DetsegError: the settings or the data are wrong, or a stage is unknown.
    """
    if unknown := [stage for stage in options.stages if stage not in STAGES]:
        raise ConfigError(f"--stages: expected some of {', '.join(STAGES)}, got {unknown[0]!r}")
    console = Console(markup=False, emoji=False, highlight=False)
    findings = Findings(facts={"machine": machine_facts()})
    if options.import_seconds is not None:
        note = "in this process: libraries that the system has cached load faster"
        findings.measurements.append(Measurement("start", "imports", "s", (options.import_seconds,), note=note))
    if report is not None and report.is_dir():
        raise ConfigError(f"--json: expected the name of a file, {report} is a folder")
    with warnings.catch_warnings(), opened(config, options.synthetic, options.checkpoint, findings) as subject:
        warnings.simplefilter("ignore")  # a training says them; here they would stand in the table
        _measure(subject, options, findings)
        verdict = judge(figures_of(subject, findings))
    findings.measurements = [m for m in findings.measurements if m.stage in options.stages]
    findings.facts.pop("loader_rates", None)
    for line in as_lines(findings, verdict):
        console.print(line, soft_wrap=True)
    if report is not None:
        with atomic_write(report, "w", encoding="utf-8") as file:
            json.dump(as_json(findings, verdict, subject.config), file, indent=2)
        console.print(f"written: {report}", soft_wrap=True)
    return findings, verdict


def _measure(subject: Subject, options: Options, findings: Findings) -> None:
    effort = options.effort
    stages: dict[str, Callable[[], object]] = {
        loading.STAGE: partial(
            loading.measure_loader, subject, _worker_counts(options, subject.config), effort, findings
        ),
        stepping.COPY_STAGE: partial(stepping.measure_copies, subject, effort, findings),
        stepping.STAGE: partial(stepping.measure_steps, subject, effort, findings),
        validating.STAGE: partial(validating.measure_validation, subject, effort, findings),
        predicting.STAGE: partial(predicting.measure_predictor, subject, effort, findings),
        MEMORY: partial(measure_memory, subject, findings),
    }
    count_flops(subject, findings)  # of the model as it is built: prediction prepares it to be computed otherwise
    said = Console(stderr=True, markup=False, emoji=False, highlight=False)
    for stage, measure in stages.items():
        if stage in options.stages:
            if said.is_terminal:
                said.print(f"measuring: {stage} ...", soft_wrap=True)
            measure()


def _worker_counts(options: Options, config: ExperimentConfig) -> list[int]:
    """Numbers of loader processes to try, that of the settings among them."""
    wanted = set(options.workers)
    if not wanted:
        wanted = {0} | {2**i for i in range(num_cores().bit_length()) if 2**i <= num_cores()}
    return sorted(wanted | {config.data.num_workers})


def figures_of(subject: Subject, findings: Findings) -> Figures:
    """The numbers that the rules look at."""
    config, median = subject.config, findings.median
    waiting = median(stepping.STAGE, stepping.WAITING)
    parts = [m for m in findings.measurements if m.stage == stepping.STAGE and m.share is not None]
    loading_parts = [m for m in findings.measurements if m.stage == loading.STAGE and m.share is not None]
    on_gpu = subject.device.type == "cuda"
    native = resolve_precision("auto", subject.device.type) == "bfloat16"
    compiles = on_gpu or any(map(shutil.which, _COMPILERS))
    return Figures(
        batch_size=subject.batch_size,
        num_workers=config.data.num_workers,
        num_cores=num_cores(),
        loader_rates=findings.facts.get("loader_rates", {}),
        loading={m.name: m.median for m in loading_parts},
        step_rate=median(stepping.STAGE, stepping.RATE),
        fed_rate=median(stepping.STAGE, stepping.TOGETHER),
        waiting=None if waiting is None else waiting / 100,
        shares={m.name: m.share for m in parts if m.share is not None},
        validation_share=_validation_share(subject, findings),
        validate_every=config.trainer.validate_every,
        max_epochs=config.trainer.max_epochs,
        on_gpu=on_gpu,
        lowers_precision=native and subject.precision == "float32",
        can_compile=compiles and not config.trainer.compile,
        two_stage=isinstance(config.model, FasterRcnnConfig | MaskRcnnConfig),
        memory_share=findings.facts.get("device_memory_share"),
    )


def _validation_share(subject: Subject, findings: Findings) -> float | None:
    """Of the time of a training, by the measured rates and the sizes of the sets; scoring grows in proportion."""
    rate = findings.median(stepping.STAGE, stepping.TOGETHER) or findings.median(stepping.STAGE, stepping.RATE)
    validated = findings.median(validating.STAGE, validating.RATE)
    scoring: Any = findings.median(validating.STAGE, validating.SCORING)
    num_scored = findings.facts.get("scored_images")
    if findings.facts["synthetic"] or not (rate and validated and num_scored):
        return None
    validation = len(subject.val_set) * (1 / validated + scoring / num_scored)
    training = subject.config.trainer.validate_every * len(subject.train_set) / rate
    share = validation / (validation + training)
    findings.facts["validation_share"] = share
    return float(share)
