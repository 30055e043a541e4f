"""Steps that are not finite: a loss or gradient that is NaN or infinite reaches neither weights nor checkpoint, and is
diagnosed in the process in which it happened.

Batch, weights, buffers and seed are at hand there: each sample is run alone, to name those at fault and their loss
terms. What was found is written as ``diagnosis.json`` (plain data) beside the images of these samples.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from detseg.draw import write_image
from detseg.errors import DataError, DetsegError
from detseg.messages import listed, one_line, printable
from detseg.ops.processes import counts_of_this_process
from detseg.structures import Batch, UInt8Array
from detseg.training.distributed import Processes
from detseg.training.optim.freezing import NORMALIZATION
from detseg.training.seeding import random_state, restore_random_state

logger = logging.getLogger("detseg")

_KEPT_NORMS, _MAX_IMAGES, _MAX_PARAMETERS = 50, 8, 10
_ADVICE = "lower optimizer.lr, or set trainer.precision=float32"


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A batch on the device, its number in the epoch from 0, and its detached loss terms with their sum ``loss``."""

    number: int
    batch: Batch
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class StepContext:
    """A step whose gradient is complete and which is not made yet."""

    epoch: int  # from 1
    number: int  # of the step, from 1
    batches: Sequence[StepBatch]  # of the step, of this process
    model: nn.Module
    processes: Processes
    # The loss terms of a batch and their sum ``loss``, with the seed and precision of the step.
    losses: Callable[[StepBatch], Mapping[str, Tensor]]
    draw: Callable[[Batch], UInt8Array]  # the image of a batch of one sample as the network sees it, with its targets
    # Where the image of a sample lies, by its position in the data set; None: the data set does not know.
    path: Callable[[int], str | None]
    run_dir: Path | None  # where the diagnosis is written; None: nothing is written
    run: Mapping[str, Any]  # precision, device, seed and settings, for ``diagnosis.json``


class StepGuard:
    """Decides, once per step, whether it is made.

    Args:
        on_nan: stop the run, or skip the step, where a loss or the gradient is not finite.
        max_steps: most steps of a run that are skipped; ``num_skipped`` were.
    """

    def __init__(self, on_nan: Literal["stop", "skip"] = "stop", max_steps: int = 10) -> None:
        self.on_nan, self.max_steps = on_nan, max_steps
        self.num_skipped = 0
        self._norms: deque[float] = deque(maxlen=_KEPT_NORMS)  # of gradients of this process, before clipping

    @property
    def gradient_norm(self) -> float:
        """Of the last step that was looked at, before clipping; NaN before the first."""
        return self._norms[-1] if self._norms else math.nan

    def begin_epoch(self, model: nn.Module) -> None:
        """Copy the model's buffers, which every forward pass changes."""
        self._buffers = _Buffers(model.buffers())

    def check(self, step: StepContext, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the step is made, by its losses and the optimiser's gradients, complete and not clipped yet. All
        processes decide alike. Where it is skipped, buffers are restored, and gradients dropped, so that the optimiser
        changes nothing, neither by momentum nor by decay. DetsegError: a loss or the gradient is not finite, and the
        step is not to be skipped."""
        losses_are_finite, norm = _read([batch.terms["loss"] for batch in step.batches], optimizer)
        self._norms.append(norm)
        if losses_are_finite and math.isfinite(norm):
            self._buffers.update()
            return True
        skip = self.on_nan == "skip" and self.num_skipped < self.max_steps
        is_first_or_last = not skip or self.num_skipped == 0
        line = _diagnose(step, self._buffers.restore, list(self._norms), run_samples=is_first_or_last)
        where = f"epoch {step.epoch}, step {step.number}"
        if not skip:
            over = f"{self.num_skipped} steps of the run were skipped already (trainer.max_nan_steps); "
            raise DetsegError(f"{where}: {line}; {over if self.num_skipped else ''}if no sample is at fault, {_ADVICE}")
        self.num_skipped += 1
        logger.warning(f"{where}: skipped ({self.num_skipped} of at most {self.max_steps}): {line}")
        optimizer.zero_grad(set_to_none=True)
        return False


class _Buffers:
    """A copy of buffers (statistics of batch norm), by which a forward pass is undone."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self._groups: dict[torch.dtype, list[Tensor]] = {}  # joined, so that a GPU makes one copy of each
        for buffer in buffers:
            self._groups.setdefault(buffer.dtype, []).append(buffer)
        self.update()

    def update(self) -> None:
        self._copies = {key: torch.cat([b.detach().flatten() for b in group]) for key, group in self._groups.items()}

    @torch.no_grad()
    def restore(self) -> None:
        for key, group in self._groups.items():
            parts: Sequence[Tensor] = torch.split(self._copies[key], [b.numel() for b in group])
            for buffer, part in zip(group, parts, strict=True):
                buffer.copy_(part.view_as(buffer))


def check_weights(model: nn.Module, processes: Processes, where: str) -> None:
    """Raise a DetsegError, which begins with ``where``, if a weight is NaN or infinite, as a step with a finite
    gradient may have made it; all processes must call it."""
    named = dict(model.named_parameters())
    finite = torch.stack([weight.detach().isfinite().all() for weight in named.values()]).tolist() if named else []
    if processes.any(not all(finite)):
        bad = [name for name, is_finite in zip(named, finite, strict=True) if not is_finite]
        which = f" ({bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''})" if bad else ""
        raise DetsegError(f"{where}: a weight is not finite any more{which}; {_ADVICE}")


def _read(losses: list[Tensor], optimizer: torch.optim.Optimizer) -> tuple[bool, float]:
    """Whether the losses of all processes are finite, and the norm of the gradient."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    # The sum of a batch's terms is finite only if all are.
    bad = (~torch.stack(losses).isfinite()).any().float()
    if dist.is_available() and dist.is_initialized():
        # The gradient is the mean over the processes, but a term may be NaN without one.
        dist.all_reduce(bad)
    # Of all in a step, this alone waits for a GPU.
    is_bad, norm = torch.stack([bad, get_total_norm(gradients).to(bad)]).tolist()
    return not is_bad, norm


@dataclass(frozen=True)
class _SampleResult:
    """What the sample at position ``index`` of the data set gave alone; ``at_fault`` are its terms that are not finite,
    or where all are, those whose gradient is not."""

    batch: int
    index: int
    path: str | None
    terms: dict[str, float]
    at_fault: list[str]
    image: UInt8Array | None


def _diagnose(step: StepContext, restore: Callable[[], None], last_norms: list[float], run_samples: bool) -> str:
    """Find the samples at fault, by running each alone if ``run_samples``, and write what was found; all processes must
    call it. ``restore`` gives the model's buffers the values from before the step; they have them afterwards, too.

    Returns:
        One line, the same in all processes: that of the first that has found a sample, else of the first whose loss is
        not finite.
    """
    processes, results, failure = step.processes, None, ""
    if run_samples:
        try:
            results = _run_samples(step, restore)
        except Exception as error:  # it must not hide what it was to explain, nor leave other processes waiting
            failure = f"running the samples alone failed ({type(error).__name__}: {one_line(error)}); "
    restore()
    found = any(result.at_fault for result in results or [])
    own = any(not math.isfinite(float(batch.terms["loss"])) for batch in step.batches)
    speaker = int(np.argmax(processes.total(np.eye(processes.world_size)[processes.rank] * (2 * found + own))))
    line = _report(step, results, failure, last_norms) if processes.rank == speaker else ""
    lines = processes.gather({"line": np.array(line)})
    return str(processes.from_first(lines[speaker] if lines else {})["line"])


@torch.enable_grad()
def _run_samples(step: StepContext, restore: Callable[[], None]) -> list[_SampleResult]:
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


def _run_sample(step: StepContext, seen: StepBatch, i: int, restore: Callable[[], None]) -> _SampleResult:
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
    return _SampleResult(seen.number, index, step.path(index), numbers, at_fault, step.draw(one) if at_fault else None)


def _has_finite_gradient(term: Tensor, model: nn.Module) -> bool:
    if not term.requires_grad:
        return True
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)


def _report(step: StepContext, results: list[_SampleResult] | None, failure: str, last_norms: list[float]) -> str:
    """Write the diagnosis; returns the line that says what is in it."""
    numbers = [_floats(seen.terms) for seen in step.batches]
    worst = next((terms for terms in numbers if _not_finite(terms)), numbers[0])
    kind = "loss" if _not_finite(worst) else "gradient"
    verdict = failure + _verdict(step, results)
    norms = _gradient_norms(step.model)
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
        # JSON has no NaN and no infinity: they are written as text.
        plain = json.loads(json.dumps(content), parse_constant=lambda name: str(float(name)))
        (folder / "diagnosis.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
        images = [(result, result.image) for result in results or [] if result.image is not None]
        for result, image in images[:_MAX_IMAGES]:
            write_image(folder / f"batch{result.batch:05d}_sample{result.index:07d}.png", image)
    except (OSError, DataError) as error:
        return f"{line}; the diagnosis could not be written ({one_line(error)})"
    return f"{line}; details in {folder}"


def _verdict(step: StepContext, results: list[_SampleResult] | None) -> str:
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


def _faults(result: _SampleResult) -> str:
    if _not_finite(result.terms):
        return ", ".join(f"{name} {result.terms[name]:.4g}" for name in result.at_fault)
    return f"gradient of {', '.join(result.at_fault)}"


def _named(index: int, path: str | None) -> str:
    return str(index) if path is None else f"{index} ({printable(Path(path).name)})"
