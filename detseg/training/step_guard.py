"""Looks at every step before it is made: a loss or gradient that is not finite reaches neither weights nor checkpoint.

Such a step stops the run or is skipped, and leaves a bundle from which ``tools/replay.py`` finds the sample.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from detseg.errors import DetsegError
from detseg.messages import one_line
from detseg.structures import Batch
from detseg.training.nan_bundle import write_bundle
from detseg.training.nan_report import Norms, bundle_of, bundle_tensors, gradient_norms, sentence
from detseg.training.processes import Processes
from detseg.training.random_state import random_state

if TYPE_CHECKING:
    from detseg.training.task import Task

_KEPT_NORMS = 50
_MEND = "lower optimizer.lr, or set trainer.precision=float32"


@dataclass(frozen=True, slots=True)
class SeenBatch:
    """A batch of a step that is still to be made.

    Attributes:
        number: within the epoch, from 0.
        indices: positions of its samples in the data set.
        terms: its loss terms and their sum ``loss``, on the device.
    """

    number: int
    indices: list[int]
    terms: Mapping[str, Tensor]


class BufferSnapshot:
    """A copy of a model's buffers, which a forward pass changes: the statistics of batch normalisation."""

    def __init__(self, model: nn.Module) -> None:
        self.named = dict(model.named_buffers())
        # By dtype, as the fused copy wants them.
        dtypes = {buffer.dtype for buffer in self.named.values()}
        self._groups = [[b for b in self.named.values() if b.dtype == dtype] for dtype in dtypes]
        self._copies = [[buffer.clone() for buffer in group] for group in self._groups]

    @property
    def before(self) -> dict[str, Tensor]:
        """The copies by the buffers' names."""
        copies = {
            id(buffer): copy
            for group, copies in zip(self._groups, self._copies, strict=True)
            for buffer, copy in zip(group, copies, strict=True)
        }
        return {name: copies[id(buffer)] for name, buffer in self.named.items()}

    @torch.no_grad()
    def take(self) -> None:
        """Copy the buffers as they are now; nothing waits for a GPU."""
        for group, copies in zip(self._groups, self._copies, strict=True):
            torch._foreach_copy_(copies, group)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring the buffers back."""
        for group, copies in zip(self._groups, self._copies, strict=True):
            torch._foreach_copy_(group, copies)


class StepGuard:
    """Keeps what the next optimiser step is made of, and decides whether it is made.

    Where a strategy shards the parameters (FSDP), so are the gradients: Lightning computes their norm, only the losses
    are looked at, and the bundle has no weights, so that it cannot be replayed.

    Args:
        on_nan: what to do where a loss or the gradient is not finite.
        max_steps: so many steps of a run are skipped at most.
        say: is told of every skipped step, in the first process.

    Attributes:
        num_skipped: steps of the run that were skipped.
        dropped: whether the step at hand is skipped.
        norms: of the gradients of the last steps, before clipping.
    """

    def __init__(
        self, on_nan: Literal["stop", "skip"] = "stop", max_steps: int = 10, say: Callable[[str], object] = print
    ) -> None:
        self.on_nan, self.max_steps, self.say = on_nan, max_steps, say
        self.num_skipped = 0
        self.dropped = False
        self.norms: deque[float] = deque(maxlen=_KEPT_NORMS)
        self._norm: Tensor | None = None
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget what was not stepped on."""
        self.batches: list[SeenBatch] = []
        self._buffers: BufferSnapshot | None = None  # taken anew: a model that was moved has other buffers

    def before_forward(self, model: nn.Module) -> None:
        """Keep what a step changes before it is made; to be called before each batch."""
        if self.batches:  # a further one of the same step
            return
        if self._buffers is None:
            self._buffers = BufferSnapshot(model)
        self.buffers = self._buffers
        self.buffers.take()
        self.random = random_state()

    def after_forward(self, batch: Batch, number: int, terms: Mapping[str, Tensor]) -> None:
        """Keep what came of a batch; ``number``: within the epoch, from 0."""
        detached = {name: value.detach() for name, value in terms.items()}
        self.batches.append(SeenBatch(number, list(batch.indices), detached))

    def check(self, task: Task, optimizer: torch.optim.Optimizer) -> list[SeenBatch]:
        """Look at the losses and the gradient of the step that is about to be made; all processes decide alike.

        Args:
            task: whose step it is.
            optimizer: whose gradients are complete and not clipped yet.

        Returns:
            the batches of the step; none where it is skipped: then there are no gradients any more, so that the
            optimiser changes nothing, neither by momentum nor by decay, and the buffers are as before the step.

        Raises:
            DetsegError: the step is at fault, and is not to be skipped.
        """
        batches, self.batches, self.dropped, self._norm = self.batches, [], False, None
        if not batches:
            return []
        whole = isinstance(task.trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        self._norm = _gradient_norm(optimizer) if whole else None
        at_fault, norm = _read(batches, self._norm)
        if self._norm is not None:
            self.norms.append(norm)
        if not at_fault and math.isfinite(norm):
            return batches
        self.dropped = self.on_nan == "skip" and self.num_skipped < self.max_steps
        line = self._report(task, batches, whole)
        where = f"epoch {task.current_epoch + 1}, step {task.global_step + 1}"
        if not self.dropped:
            over = f"{self.num_skipped} steps of the run were skipped already (trainer.max_nan_steps); "
            raise DetsegError(f"{where}: {line}; {over if self.num_skipped else ''}if no sample is at fault, {_MEND}")
        self.num_skipped += 1
        self.say(f"{where}: skipped ({self.num_skipped} of at most {self.max_steps}): {line}")
        optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()
        return []

    def clip(self, optimizer: torch.optim.Optimizer, max_norm: float) -> bool:
        """Clip the gradients to a norm, by the one that ``check`` has computed; with torch's own arithmetic.

        Returns:
            whether it was done, or there is nothing to clip.
        """
        if self.dropped:
            return True
        if self._norm is None:
            return False
        clip_grads_with_norm_(_parameters(optimizer), max_norm, self._norm)
        return True

    def _report(self, task: Task, batches: list[SeenBatch], whole: bool) -> str:
        """Leave the bundle; what is to be said is the same in all processes."""
        processes: Processes = task.processes
        own = any(not math.isfinite(float(batch.terms["loss"])) for batch in batches)
        flags = processes.total(np.eye(processes.world_size)[processes.rank] * own)
        speaker = int(np.argmax(flags > 0))  # the first process at fault; where none is, the first
        line = ""
        if processes.rank == speaker:
            gradients = gradient_norms(task.model) if whole else None
            line = sentence(task, batches, gradients)
            if getattr(task.trainer, "fast_dev_run", False):
                line += "; fast_dev_run left no bundle"
            else:
                line += "; " + self._leave_bundle(task, batches, gradients)
        lines = processes.gather({"line": np.frombuffer(line.encode(errors="backslashreplace"), dtype=np.uint8)})
        chosen = processes.from_first(lines[speaker] if lines else {})
        return chosen["line"].tobytes().decode()

    def _leave_bundle(self, task: Task, batches: list[SeenBatch], gradients: Norms | None) -> str:
        """Write the bundle; what to do with it."""
        name = f"nan_epoch{task.current_epoch + 1:03d}_step{task.global_step + 1:05d}"
        folder = Path(task.trainer.default_root_dir) / name
        bundle = bundle_of(task, batches, gradients or [], list(self.norms), self.random)
        tensors = bundle_tensors(task, self.buffers.before, self.random, sharded=gradients is None)
        try:
            write_bundle(folder, bundle, tensors)
        except OSError as error:
            return f"the bundle {folder} could not be written ({one_line(error)})"
        if not (bundle.config and bundle.num_samples and tensors.weights):  # made in Python, or sharded
            return f"its numbers are in {folder}"
        return f"python tools/replay.py {folder} finds the sample"


def check_weights(task: Task) -> None:
    """Refuse to validate or save a model that a step has made worthless: one that was finite, but too large.

    All processes must call it.

    Raises:
        DetsegError: a weight is NaN or infinite.
    """
    named = dict(task.model.named_parameters())
    finite = torch.stack([weight.detach().isfinite().all() for weight in named.values()]).tolist() if named else []
    if task.processes.any(not all(finite)):
        bad = [name for name, is_finite in zip(named, finite, strict=True) if not is_finite]
        which = f" ({bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''})" if bad else ""
        where = f"epoch {task.current_epoch + 1}, step {task.global_step}"
        raise DetsegError(f"{where}: a weight is not finite any more{which}; {_MEND}")


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    return get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])


def _read(batches: Sequence[SeenBatch], norm: Tensor | None) -> tuple[bool, float]:
    """Whether a loss of any process is not finite, and the norm of the gradient; 0 where there is none."""
    # The sum of a batch's terms is finite only if all are.
    bad = (~torch.stack([batch.terms["loss"] for batch in batches]).isfinite()).any().float()
    if dist.is_available() and dist.is_initialized():
        # The gradient is the mean over the processes, but a term may be NaN without one.
        dist.all_reduce(bad)
    numbers = bad[None] if norm is None else torch.stack([bad, norm.to(bad)])
    at_fault, *norms = numbers.tolist()  # of all in a step, this alone waits for a GPU
    return bool(at_fault), norms[0] if norms else 0.0
