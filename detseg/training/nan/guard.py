"""Checks every step before it is made: a loss or gradient that is not finite reaches neither weights nor checkpoint."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from detseg.errors import DetsegError
from detseg.training.distributed.processes import Processes
from detseg.training.nan.diagnosis import StepContext, diagnose

logger = logging.getLogger("detseg")

_KEPT_NORMS = 50
_ADVICE = "lower optimizer.lr, or set trainer.precision=float32"


class StepGuard:
    """Decides, once per step, whether it is made.

    Where a strategy shards the parameters (FSDP), only the losses are checked.

    Args:
        on_nan: stop the run, or skip the step, where a loss or the gradient is not finite.
        max_steps: most steps of a run that are skipped.

    Attributes:
        num_skipped: steps of the run that were skipped.
        norms: of the gradients of the last 50 steps of this process, before clipping.
    """

    def __init__(self, on_nan: Literal["stop", "skip"] = "stop", max_steps: int = 10) -> None:
        self.on_nan, self.max_steps = on_nan, max_steps
        self.num_skipped = 0
        self.norms: deque[float] = deque(maxlen=_KEPT_NORMS)

    def begin_epoch(self, model: nn.Module) -> None:
        """Copy the model's buffers, which every forward pass changes."""
        self._buffers = BufferSnapshot(model.buffers())

    def check(self, step: StepContext, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the step is made. All processes decide alike.

        Args:
            step: its losses, and what a diagnosis needs.
            optimizer: whose gradients are complete and not clipped yet. They are dropped where the step is skipped, so
                that the optimiser changes nothing, neither by momentum nor by decay; the buffers are restored.

        Raises:
            DetsegError: a loss or the gradient is not finite, and the step is not to be skipped.
        """
        norm_on_device = _gradient_norm(optimizer) if step.has_whole_gradients else None
        losses_are_finite, norm = _read([batch.terms["loss"] for batch in step.batches], norm_on_device)
        if norm_on_device is not None:
            self.norms.append(norm)
        if losses_are_finite and math.isfinite(norm):
            self._buffers.update()
            return True
        skip = self.on_nan == "skip" and self.num_skipped < self.max_steps
        is_first_or_last = not skip or self.num_skipped == 0
        line = diagnose(step, self._buffers.restore, list(self.norms), run_samples=is_first_or_last)
        where = f"epoch {step.epoch}, step {step.number}"
        if not skip:
            over = f"{self.num_skipped} steps of the run were skipped already (trainer.max_nan_steps); "
            raise DetsegError(f"{where}: {line}; {over if self.num_skipped else ''}if no sample is at fault, {_ADVICE}")
        self.num_skipped += 1
        logger.warning(f"{where}: skipped ({self.num_skipped} of at most {self.max_steps}): {line}")
        optimizer.zero_grad(set_to_none=True)
        return False


class BufferSnapshot:
    """A copy of buffers (statistics of batch norm), by which a forward pass is undone."""

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self._groups: dict[torch.dtype, list[Tensor]] = {}  # joined, so that a GPU makes one copy of each
        for buffer in buffers:
            self._groups.setdefault(buffer.dtype, []).append(buffer)
        self.update()

    def update(self) -> None:
        """Copy the buffers as they are now; does not wait for a GPU."""
        self._copies = {key: torch.cat([b.detach().flatten() for b in group]) for key, group in self._groups.items()}

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers the values of the copy."""
        for key, group in self._groups.items():
            parts: Sequence[Tensor] = torch.split(self._copies[key], [b.numel() for b in group])
            for buffer, part in zip(group, parts, strict=True):
                buffer.copy_(part.view_as(buffer))


def check_weights(model: nn.Module, processes: Processes, where: str) -> None:
    """Refuse to validate or save weights that a step with a finite gradient has made NaN or infinite; all processes
    must call it.

    Raises:
        DetsegError: a weight is NaN or infinite; ``where`` begins the message.
    """
    named = dict(model.named_parameters())
    finite = torch.stack([weight.detach().isfinite().all() for weight in named.values()]).tolist() if named else []
    if processes.any(not all(finite)):
        bad = [name for name, is_finite in zip(named, finite, strict=True) if not is_finite]
        which = f" ({bad[0]}{f' and {len(bad) - 1} more' if len(bad) > 1 else ''})" if bad else ""
        raise DetsegError(f"{where}: a weight is not finite any more{which}; {_ADVICE}")


def _gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _read(losses: list[Tensor], norm: Tensor | None) -> tuple[bool, float]:
    """Whether the losses of all processes are finite, and the norm of the gradient; 0 where it was not computed."""
    # The sum of a batch's terms is finite only if all are.
    bad = (~torch.stack(losses).isfinite()).any().float()
    if dist.is_available() and dist.is_initialized():
        # The gradient is the mean over the processes, but a term may be NaN without one.
        dist.all_reduce(bad)
    numbers = bad[None] if norm is None else torch.stack([bad, norm.to(bad)])
    is_bad, *norms = numbers.tolist()  # of all in a step, this alone waits for a GPU
    return not is_bad, norms[0] if norms else 0.0
