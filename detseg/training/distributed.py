"""Several processes that train one model: what they tell each other besides gradients, a validation that they share and
SLURM.

Messages are small numbers and arrays in host memory, in a gloo group of their own. A GPU's queue is not waited for, and
NCCL's watchdog does not end a run whose first process scores a validation for long. Only tensors travel, no pickles.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import nn

from detseg.errors import DetsegError, RunStoppedError
from detseg.metrics.interface import Evaluator, Result

Arrays = Mapping[str, npt.NDArray[Any]]

_PATIENCE = timedelta(days=2)
"""How long a process waits for the others; one that has died is noticed at once, since its connection closes."""

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport")
"""What gloo says of a process that has died."""


class Processes:
    """All processes of a run: this one is number ``rank`` of ``world_size``. Every method is called by all of them, in
    the same order. To be made once the process group is there (Lightning: from ``on_fit_start`` on).
    """

    def __init__(self) -> None:
        alone = not (dist.is_available() and dist.is_initialized())
        self.rank, self.world_size = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
        self._group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.world_size > 1 else None

    def any(self, flag: bool) -> bool:
        """Whether the flag of any process is set."""
        return bool(self.total(np.array([float(flag)]))[0]) if self._group is not None else flag

    def total(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The sums of float64 numbers over the processes, of the shape that all have."""
        if self._group is None:
            return numbers
        numbers = np.ascontiguousarray(numbers, dtype=np.float64)
        parts = [torch.empty(numbers.shape, dtype=torch.float64) for _ in range(self.world_size)]
        dist.all_gather(parts, torch.from_numpy(numbers), group=self._group)
        # Added in the order of the processes, so that every process, and every run, has the same last bits.
        return np.asarray(torch.stack(parts).sum(dim=0).numpy())

    def gather(self, arrays: Arrays) -> list[dict[str, npt.NDArray[Any]]]:
        """Each process's arrays, in the order of the processes, in the first one; elsewhere nothing."""
        if self._group is None:
            return [dict(arrays)]
        own = _packed(arrays)
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(own)]), group=self._group)
        if self.rank:
            dist.send(own, 0, group=self._group)
            return []
        several = [own]
        for rank in range(1, self.world_size):
            buffer = torch.empty(int(sizes[rank]), dtype=torch.uint8)
            dist.recv(buffer, rank, group=self._group)
            several.append(buffer)
        return [_unpacked(buffer) for buffer in several]

    def from_first(self, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The first process's arrays, in all of them; the others' argument is not looked at."""
        if self._group is None:
            return dict(arrays)
        own = _packed(arrays) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(own)])
        dist.broadcast(size, 0, group=self._group)
        buffer = own if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(buffer, 0, group=self._group)
        return _unpacked(buffer)


def _packed(arrays: Arrays) -> torch.Tensor:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(buffer: torch.Tensor) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(buffer.numpy().tobytes()), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@contextmanager
def first_speaks(rank: int, world_size: int) -> Iterator[None]:
    """Within it, what all processes notice is said by the first one: that another has ended, and that the run has
    stopped as it was asked to. The others exit without a message. DetsegError: another process has ended; SystemExit:
    the same, or the run has stopped, in a process that is not the first."""
    try:
        yield
    except RunStoppedError:
        if rank == 0:
            raise
        raise SystemExit(0) from None  # another code would make torchrun kill the first
    except RuntimeError as error:
        is_lost = isinstance(error, dist.DistError) or any(words in str(error) for words in _LOST)
        if world_size == 1 or not is_lost:
            raise
        if rank:
            raise SystemExit(2) from error
        raise DetsegError(
            "another process of this run has ended, and so does this one; its error is above, or it was killed, from "
            "outside or for lack of memory"
        ) from error


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
    """What all processes have collected, scored by the first one: its result there (elsewhere None), and the headline
    in all of them."""
    if processes.world_size == 1:
        result = evaluator.compute()
        return result, result.headline
    states = processes.gather(evaluator.state())
    for state in states[1:]:
        evaluator.merge(state)
    own = evaluator.compute() if processes.rank == 0 else None
    numbers = processes.from_first({} if own is None else {name: np.array(x) for name, x in own.headline.items()})
    return own, {name: float(value) for name, value in numbers.items()}


def slurm_environment() -> list[SLURMEnvironment]:
    """SLURM's numbers of the processes, without Lightning's own saving and requeueing; nothing where SLURM has not
    started this process, or has by way of torchrun, which knows better."""
    by_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if by_slurm else []
