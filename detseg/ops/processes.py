"""Sums over the processes of a training, so that a loss that is divided by a count divides by that of the global batch.

Gradients are averaged over the processes (DDP, FSDP).  The loss of the global batch, ``sum over all / count of all``,
is the mean over W processes of ``own sum / (count of all / W)``: that quotient is what each process minimises.

W: number of processes.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes(training: bool) -> int:
    """W; 1 outside of training, where the processes go through different numbers of batches and must not wait.

    Args:
        training: whether the module that asks is in training mode.
    """
    together = training and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if together else 1


def total_over_processes(own: Tensor, training: bool) -> Tensor:
    """The sum of a tensor over the processes; in training, all of them must call it, equally often.

    Its gradient reaches the own tensor W times: each process knows its own part of the sum's gradient alone, and the
    mean over the processes is the whole one again.

    Args:
        own: of any floating dtype and shape, the shape being the same in all processes.
        training: whether the module that asks is in training mode; if not, the own tensor is returned.
    """
    world_size = num_processes(training)
    if world_size == 1:
        return own
    total = own.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    # The second term is 0, but has a gradient.
    return total + world_size * (own - own.detach()) if own.requires_grad else total


def shared_normaliser(own: Tensor | float, training: bool, like: Tensor, at_least: float = 1.0) -> Tensor:
    """What a process divides the sum of its losses by: ``max(count of all processes, at_least) / W``.

    Args:
        own: the count of this process, a number or a scalar.
        training: as in ``total_over_processes``.
        like: a tensor on the device that is computed on.
        at_least: a smaller count is this one.

    Returns:
        a float32 scalar.
    """
    # Filled on the device, so that a GPU is not waited for.
    count = own.float() if isinstance(own, Tensor) else torch.full((), own, dtype=torch.float32, device=like.device)
    return total_over_processes(count, training).clamp(min=at_least) / num_processes(training)
