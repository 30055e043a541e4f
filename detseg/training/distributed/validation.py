"""A validation that the processes share: the same model in all, one set of numbers, computed once."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from detseg.metrics.interface import Evaluator, Result
from detseg.training.distributed.processes import Processes


@torch.no_grad()
def take_buffers_of_first(module: nn.Module, processes: Processes) -> None:
    """Give every process the floating buffers of the first one, whose checkpoint it is that is saved: the statistics
    of batch normalisation are each process's own."""
    if processes.world_size == 1:
        return
    buffers = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    first = processes.from_first({name: buffer.float().cpu().numpy() for name, buffer in buffers.items()})
    for name, buffer in buffers.items():
        buffer.copy_(torch.from_numpy(first[name]))


def score_together(evaluator: Evaluator, processes: Processes) -> tuple[Result | None, dict[str, float]]:
    """What all processes have collected, scored by the first one, whose evaluator then holds everything.

    Returns:
        The result in the first process, None elsewhere; and its headline, in all of them.
    """
    if processes.world_size == 1:
        result = evaluator.compute()
        return result, result.headline
    states = processes.gather(evaluator.state())
    for state in states[1:]:
        evaluator.merge(state)
    own = evaluator.compute() if processes.rank == 0 else None
    numbers = processes.from_first({} if own is None else {name: np.array(x) for name, x in own.headline.items()})
    return own, {name: float(value) for name, value in numbers.items()}
