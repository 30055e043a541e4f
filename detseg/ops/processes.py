"""Sums over the W processes of a training, for losses divided by a count over the global batch.

DDP averages gradients over the processes. The loss of the global batch, ``sum of all / count of all``, is the
mean over W processes of ``own sum / (count of all / W)``, which is the loss of each process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_ALONE = ContextVar("alone", default=False)


@contextmanager
def counts_of_this_process() -> Iterator[None]:
    """Within the ``with`` block losses are normalised by the counts of this process; no other one is waited for."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def num_processes(training: bool) -> int:
    """W; 1 where the calling module is not in ``training`` mode: then processes have different numbers of batches and
    must not wait for each other."""
    together = training and not _ALONE.get() and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if together else 1


def total_over_processes(own: Tensor, training: bool) -> Tensor:
    """The sum of a floating-point tensor of one shape over the processes; ``own`` itself if not in ``training`` mode.

    In training all processes must call it equally often. The gradient of the own tensor is multiplied by W, since the
    mean over the processes divides it by W.
    """
    world_size = num_processes(training)
    if world_size == 1:
        return own
    total = own.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    # The second term is 0, but has a gradient.
    return total + world_size * (own - own.detach()) if own.requires_grad else total


def shared_normaliser(own: Tensor | float, training: bool, like: Tensor) -> Tensor:
    """The divisor of the losses of this process, a float32 scalar: ``max(count of all processes, 1) / W``.

    ``own``: the count of this process, a number or a scalar tensor; ``like``: a tensor on the device to compute on.
    """
    # Created on the device: a copy from the CPU would wait for the GPU.
    count = own.float() if isinstance(own, Tensor) else torch.full((), own, dtype=torch.float32, device=like.device)
    return total_over_processes(count, training).clamp(min=1) / num_processes(training)
