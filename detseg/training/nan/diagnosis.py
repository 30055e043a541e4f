"""Diagnoses a step whose loss or gradient is not finite, in the process in which it happened.

Batch, weights, buffers and seed are at hand there: each sample is run alone, to name those at fault and their loss
terms. What was found is written as ``diagnosis.json`` (plain data) beside the images of these samples.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detseg.draw import write_image
from detseg.errors import DataError, DetsegError
from detseg.messages import listed, one_line, printable
from detseg.ops.processes import counts_of_this_process
from detseg.structures import Batch, UInt8Array
from detseg.training.distributed.processes import Processes
from detseg.training.nan.seeding import random_state, restore_random_state
from detseg.training.optim.freezing import NORMALIZATION

_MAX_IMAGES = 8
_MAX_PARAMETERS = 10


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A batch on the device, its ``number`` within the epoch from 0, and its detached loss terms with their sum
    ``loss``."""

    number: int
    batch: Batch
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class StepContext:
    """A step whose gradient is complete and which is not made yet.

    Attributes:
        epoch, number: of the step, from 1.
        batches: of the step, of this process.
        model: what is trained.
        processes: of the run.
        losses: the loss terms of a batch and their sum ``loss``, with the seed and precision of the step.
        draw: the image of a batch of one sample as the network sees it, with its targets.
        path: where the image of a sample lies, by its position in the data set; None: the data set does not know.
        run_dir: where the diagnosis is written; None: nothing is written.
        has_whole_gradients: whether each process has the whole gradient, unscaled; false with FSDP.
        run: precision, device, seed and settings, for ``diagnosis.json``.
    """

    epoch: int
    number: int
    batches: Sequence[StepBatch]
    model: nn.Module
    processes: Processes
    losses: Callable[[StepBatch], Mapping[str, Tensor]]
    draw: Callable[[Batch], UInt8Array]
    path: Callable[[int], str | None]
    run_dir: Path | None
    has_whole_gradients: bool
    run: Mapping[str, Any]


@dataclass(frozen=True)
class SampleResult:
    """What the sample at position ``index`` of the data set gave alone; ``at_fault`` are its terms that are not finite,
    or where all are, those whose gradient is not."""

    batch: int
    index: int
    path: str | None
    terms: dict[str, float]
    at_fault: list[str]
    image: UInt8Array | None


def diagnose(step: StepContext, restore: Callable[[], None], last_norms: list[float], run_samples: bool) -> str:
    """Find the samples at fault and write what was found; all processes must call it.

    Args:
        step: the step.
        restore: gives the model's buffers the values from before the step; they have them afterwards, too.
        last_norms: of the gradients of the last steps.
        run_samples: whether to run each sample alone; else only the numbers of the step are written.

    Returns:
        One line, the same in all processes: that of the first that has found a sample, else of the first whose loss is
        not finite.
    """
    processes, results, failure = step.processes, None, ""
    if run_samples and step.has_whole_gradients:
        try:
            results = _run_samples(step, restore)
        except Exception as error:  # it must not hide what it was to explain, nor leave other processes waiting
            failure = f"running the samples alone failed ({type(error).__name__}: {one_line(error)}); "
    restore()
    found = any(result.at_fault for result in results or [])
    own = any(not math.isfinite(float(batch.terms["loss"])) for batch in step.batches)
    speaker = int(np.argmax(processes.total(np.eye(processes.world_size)[processes.rank] * (2 * found + own))))
    line = _report(step, results, failure, last_norms) if processes.rank == speaker else ""
    lines = processes.gather({"line": np.frombuffer(line.encode(errors="backslashreplace"), dtype=np.uint8)})
    return processes.from_first(lines[speaker] if lines else {})["line"].tobytes().decode()


@torch.enable_grad()
def _run_samples(step: StepContext, restore: Callable[[], None]) -> list[SampleResult]:
    """Each sample alone, normalised by its own statistics, or by the running ones where it is too small."""
    modes = [(module, module.training) for module in step.model.modules()]
    generators = random_state()
    try:
        for module, _ in modes:
            if isinstance(module, nn.SyncBatchNorm):  # would wait for the other processes
                module.eval()
        with counts_of_this_process():
            return [_run_sample(step, seen, i, restore) for seen in step.batches for i in range(len(seen.batch))]
    finally:
        restore_random_state(generators)
        for module, mode in modes:
            module.training = mode


def _run_sample(step: StepContext, seen: StepBatch, i: int, restore: Callable[[], None]) -> SampleResult:
    batch = seen.batch
    one = replace(
        batch,
        images=batch.images[i : i + 1],
        targets=batch.targets[i : i + 1],
        indices=batch.indices[i : i + 1],
        semantic=None if batch.semantic is None else batch.semantic[i : i + 1],
    )
    alone = replace(seen, batch=one)
    restore()
    try:
        terms = step.losses(alone)
    except DetsegError:  # batch normalisation had a single value per channel
        for module in step.model.modules():
            if isinstance(module, NORMALIZATION):
                module.eval()
        terms = step.losses(alone)
    numbers = _floats(terms)
    at_fault = _not_finite(numbers)
    if not at_fault and not _has_finite_gradient(terms["loss"], step.model):
        parts = [name for name, term in terms.items() if not _has_finite_gradient(term, step.model)]
        at_fault = parts[1:] or parts  # the first is the sum
    index = batch.indices[i]
    return SampleResult(seen.number, index, step.path(index), numbers, at_fault, step.draw(one) if at_fault else None)


def _has_finite_gradient(term: Tensor, model: nn.Module) -> bool:
    if not term.requires_grad:
        return True
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)


def _report(step: StepContext, results: list[SampleResult] | None, failure: str, last_norms: list[float]) -> str:
    """Write the diagnosis; returns the line that says what is in it."""
    numbers = [_floats(seen.terms) for seen in step.batches]
    worst = next((terms for terms in numbers if _not_finite(terms)), numbers[0])
    kind = "loss" if _not_finite(worst) else "gradient"
    verdict = failure + _verdict(step, results)
    norms = _gradient_norms(step.model) if step.has_whole_gradients else []
    terms = sorted((name for name in worst if name != "loss"), key=lambda name: math.isfinite(worst[name]))
    shown = ", ".join(f"{name} {worst[name]:.4g}" for name in terms)
    line = f"the {kind} is not finite ({shown}); {verdict}; {_gradient(norms)}"
    if step.run_dir is None:
        return f"{line}; nothing was written"
    folder = step.run_dir / f"nan_epoch{step.epoch:03d}_step{step.number:05d}"
    content = {
        "epoch": step.epoch,
        "step": step.number,
        "process": step.processes.rank,
        "num_processes": step.processes.world_size,
        "not_finite": kind,
        "verdict": verdict,
        "batches": [
            {"number": seen.number, "samples": seen.batch.indices, "terms": terms}
            for seen, terms in zip(step.batches, numbers, strict=True)
        ],
        "samples_alone": [{k: v for k, v in vars(result).items() if k != "image"} for result in results or []],
        "largest_gradients": dict(norms[:_MAX_PARAMETERS]),
        "last_gradient_norms": last_norms,
        **step.run,
    }
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of the same step, from before the run was resumed
        folder.mkdir(parents=True)
        (folder / "diagnosis.json").write_text(json.dumps(_plain(content), indent=1, allow_nan=False), encoding="utf-8")
        images = [(result, result.image) for result in results or [] if result.image is not None]
        for result, image in images[:_MAX_IMAGES]:
            write_image(folder / f"batch{result.batch:05d}_sample{result.index:07d}.png", image)
    except (OSError, DataError) as error:
        return f"{line}; the diagnosis could not be written ({one_line(error)})"
    return f"{line}; details in {folder}"


def _verdict(step: StepContext, results: list[SampleResult] | None) -> str:
    bad = [name for name, weight in step.model.named_parameters() if not bool(weight.detach().isfinite().all())]
    if bad:
        return f"{len(bad)} weights were not finite before the step, first {bad[0]}: no sample is at fault"
    found = [result for result in results or [] if result.at_fault]
    if results and len(found) == len(results) > 1:
        return f"all {len(found)} samples are at fault: it is not the data"
    if found:
        return f"at fault: {listed([f'sample {_named(r.index, r.path)}: {_faults(r)}' for r in found])}"
    bad_batches = [seen for seen in step.batches if not math.isfinite(float(seen.terms["loss"]))]
    indices = [index for seen in bad_batches or step.batches for index in seen.batch.indices]
    samples = f"samples {listed([_named(index, step.path(index)) for index in indices])}"
    return samples if results is None else f"no sample is at fault alone: {samples}"


def _gradient_norms(model: nn.Module) -> list[tuple[str, float]]:
    """Parameters with the norms of their gradients: those that are not finite first, then the largest."""
    named = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]
    # In float64: in float32 the squares of large finite numbers are infinite.
    norms = [(name, float(torch.linalg.vector_norm(gradient.cpu().double()))) for name, gradient in named]
    return sorted(norms, key=lambda entry: (math.isfinite(entry[1]), -entry[1] if math.isfinite(entry[1]) else 0.0))


def _gradient(norms: list[tuple[str, float]]) -> str:
    if not norms:
        return "no gradient was looked at"
    num_bad = sum(not math.isfinite(norm) for _, norm in norms)
    name, norm = norms[0]
    if num_bad:
        return f"gradient not finite in {num_bad} of {len(norms)} parameters, first {name}"
    return f"largest gradient {norm:.4g} of {name}"


def _floats(terms: Mapping[str, Tensor]) -> dict[str, float]:
    values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _not_finite(terms: Mapping[str, float]) -> list[str]:
    """Loss terms that are not finite; their sum ``loss`` only where it alone is not."""
    names = [name for name, value in terms.items() if not math.isfinite(value)]
    return [name for name in names if name != "loss"] or names


def _faults(result: SampleResult) -> str:
    if _not_finite(result.terms):
        return ", ".join(f"{name} {result.terms[name]:.4g}" for name in result.at_fault)
    return f"gradient of {', '.join(result.at_fault)}"


def _named(index: int, path: str | None) -> str:
    return str(index) if path is None else f"{index} ({printable(Path(path).name)})"


def _plain(value: Any) -> Any:
    """The value with NaN and infinity, which JSON does not have, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
