"""What is said and written of a step whose numbers are not finite."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from detseg.data.loading.sampling import EpochBatchSampler
from detseg.messages import printable
from detseg.training.nan_bundle import (
    BundleBatch,
    BundleSample,
    BundleTensors,
    NanBundle,
    split_random_state,
)

if TYPE_CHECKING:
    from detseg.training.step_guard import SeenBatch
    from detseg.training.task import Task

Norms = list[tuple[str, float]]
"""Parameters and the norms of their gradients."""

_MAX_SAMPLES = 8
_MAX_PARAMETERS = 10


def gradient_norms(model: nn.Module) -> Norms:
    """The parameters that have a gradient; those whose norm is not finite first, then the largest."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return []
    # In float64: squares of large numbers that are finite are not, in float32.
    norms = [float(torch.linalg.vector_norm(gradient.detach().cpu().double())) for _, gradient in named]
    entries = [(name, norm) for (name, _), norm in zip(named, norms, strict=True)]
    return sorted(entries, key=lambda entry: (math.isfinite(entry[1]), -entry[1] if math.isfinite(entry[1]) else 0.0))


def gradient_sentence(norms: Norms) -> str:
    """Where the gradient is not finite, or largest."""
    if not norms:
        return "no gradient"
    num_bad = sum(not math.isfinite(norm) for _, norm in norms)
    name, norm = norms[0]
    if num_bad:
        return f"gradient not finite in {num_bad} of {len(norms)} parameters, first {name}"
    return f"largest gradient {norm:.4g} of {name}"


def terms_sentence(terms: Mapping[str, float]) -> str:
    """Loss terms with their values, those that are not finite first; the sum only where it alone is not."""
    parts = {name: value for name, value in terms.items() if name != "loss"}
    if all(math.isfinite(value) for value in parts.values()) and not math.isfinite(terms["loss"]):
        parts = dict(terms)
    ordered = sorted(parts.items(), key=lambda term: math.isfinite(term[1]))
    return ", ".join(f"{name} {value:.4g}" for name, value in ordered)


def sentence(task: Task, batches: Sequence[SeenBatch], norms: Norms | None) -> str:
    """Which term, which samples, and the largest gradient; ``norms``: None where they are sharded."""
    numbers = [_floats(batch) for batch in batches]
    bad = [i for i, terms in enumerate(numbers) if not math.isfinite(terms["loss"])]
    kind = "loss" if bad else "gradient"
    indices = [index for i in (bad or range(len(batches))) for index in batches[i].indices]
    samples = ", ".join(_named(task, index) for index in indices[:_MAX_SAMPLES])
    more = f", ... ({len(indices)} in all)" if len(indices) > _MAX_SAMPLES else ""
    gradient = "gradients are sharded and were not looked at" if norms is None else gradient_sentence(norms)
    shown = terms_sentence(numbers[bad[0] if bad else 0])
    return f"the {kind} is not finite ({shown}); samples {samples}{more}; {gradient}"


def bundle_of(
    task: Task, batches: Sequence[SeenBatch], norms: Norms, last_norms: list[float], random: dict[str, Any]
) -> NanBundle:
    """What ``bundle.json`` says of the step that was about to be made.

    Args:
        task: whose step it is.
        batches: of the step, of this process.
        norms: of the gradient at fault, by parameter.
        last_norms: of the gradients of the last steps.
        random: the ``random_state`` before the step.
    """
    trainer = task.trainer
    sampler = _sampler(task)
    rank, world_size = task.processes.rank, task.processes.world_size
    entries = [_entry(task, sampler, rank, batch.number, batch.indices, _floats(batch)) for batch in batches]
    if sampler is not None:
        for other in sorted(set(range(world_size)) - {rank}):
            theirs = copy.copy(sampler)
            theirs.rank = other
            entries += [_entry(task, theirs, other, batch.number, [], {}) for batch in batches]
    fields, _ = split_random_state(random)
    return NanBundle(
        format=1,
        config=task.config,
        class_names=list(task.classes.names),
        source_ids=list(task.classes.source_ids),
        seed=task.seed,
        epoch=task.current_epoch,
        step=task.global_step + 1,
        rank=rank,
        world_size=world_size,
        device=task.device.type,
        num_threads=torch.get_num_threads(),
        precision=str(trainer.precision),
        accumulate_batches=trainer.accumulate_grad_batches,
        num_samples=0 if sampler is None else sampler.num_samples,
        batches=entries,
        gradient_norms=last_norms,
        largest_gradients=norms[:_MAX_PARAMETERS],
        versions=_versions(),
        **fields,
    )


def bundle_tensors(
    task: Task, buffers: Mapping[str, Tensor], random: dict[str, Any], *, sharded: bool
) -> BundleTensors:
    """The model before the step: its weights, which the step has not changed yet, and its buffers as they were."""
    state = {} if sharded else dict(task.model.state_dict())
    state |= {name: buffer for name, buffer in buffers.items() if name in state}
    return BundleTensors(state, split_random_state(random)[1])


def _floats(batch: SeenBatch) -> dict[str, float]:
    values = torch.stack([value.float() for value in batch.terms.values()]).tolist()
    return dict(zip(batch.terms, values, strict=True))


def _sampler(task: Task) -> EpochBatchSampler | None:
    sampler = getattr(task.trainer.train_dataloader, "batch_sampler", None)
    return sampler if isinstance(sampler, EpochBatchSampler) else None


def _path(task: Task, index: int) -> str | None:
    """Where the image of a sample lies, if the data set is one that knows."""
    source = getattr(getattr(task.trainer.train_dataloader, "dataset", None), "source", None)
    path = getattr(source, "path", None)
    return None if path is None else str(path(index))


def _named(task: Task, index: int) -> str:
    path = _path(task, index)
    return str(index) if path is None else f"{index} ({printable(Path(path).name)})"


def _entry(
    task: Task,
    sampler: EpochBatchSampler | None,
    rank: int,
    number: int,
    indices: list[int],
    terms: dict[str, float],
) -> BundleBatch:
    requests = [] if sampler is None else sampler.batch(task.current_epoch, number)
    samples = [
        BundleSample(index=r.index, height=r.height, width=r.width, mix=r.mix, path=_path(task, r.index))
        for r in requests
    ]
    indices = indices or [sample.index for sample in samples]
    return BundleBatch(rank=rank, number=number, samples=samples, indices=indices, terms=terms)


def _versions() -> dict[str, str]:
    try:
        own = version("detseg")
    except PackageNotFoundError:  # run from a checkout
        own = "not installed"
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {"detseg": own, "torch": torch.__version__, "numpy": np.__version__, "python": python}
