"""What processes tell each other, over real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from detseg.errors import DetsegError, RunStoppedError
from detseg.ops.processes import num_processes, shared_normaliser, total_over_processes
from detseg.training.distributed import Processes, first_speaks, take_buffers_of_first
from detseg.training.resume import LossMeans
from tests.forked import run_together


def exchange() -> dict[str, Any]:
    """Everything that two processes can exchange, as each of them sees it."""
    dist.init_process_group("gloo")
    processes = Processes()
    rank = processes.rank
    own = {"rank": np.array(rank), "ragged": np.arange(3 * rank, dtype=np.int16), "none": np.zeros((0, 4))}
    means = LossMeans()
    if rank == 0:  # the other one has had no batch
        means.add({"loss": torch.tensor(2.0), "box": torch.tensor(1.0)}, 3)
        means.add({"loss": torch.tensor(6.0), "box": torch.tensor(5.0)}, 1)
    norm = nn.BatchNorm2d(2)
    norm.running_mean = torch.tensor([1.0, 2.0]) + 10 * rank
    take_buffers_of_first(norm, processes)
    seen = {
        "place": (processes.rank, processes.world_size),
        "any": [processes.any(False), processes.any(rank == 1)],
        "total": processes.total(np.array([1.5, rank])).tolist(),
        "gathered": [{name: (str(x.dtype), x.tolist()) for name, x in part.items()} for part in processes.gather(own)],
        "first": processes.from_first({"names": np.array(["é", "b"])} if rank == 0 else {})["names"].tolist(),
        "means": means.means(processes),
        "running_mean": norm.running_mean.tolist(),
        "total loss": overlap_gradient(rank),
        "normaliser": normalisers(rank),
    }
    dist.destroy_process_group()
    return seen


def overlap_gradient(rank: int) -> tuple[float, float]:
    """The square of 2 x + 3 y, of which each process knows one term, and its slope, averaged as DDP does."""
    weight = torch.tensor(float(rank + 2), requires_grad=True)  # x is 2 in one process, y is 3 in the other
    total = total_over_processes((rank + 2) * weight, training=True)
    (slope,) = torch.autograd.grad(total**2, weight)
    return float(total**2), float(slope) / dist.get_world_size()


def normalisers(rank: int) -> list[float]:
    """Of counts 3 and 4; of counts 0; of numbers that are on the device; in evaluation."""
    like = torch.zeros(1)
    values: list[Tensor] = [
        shared_normaliser(3 + rank, True, like),
        shared_normaliser(0, True, like),
        shared_normaliser(torch.tensor(0.25), True, like),
        shared_normaliser(3 + rank, False, like),
    ]
    return [float(value) for value in values]


@pytest.fixture(scope="module")
def seen() -> list[dict[str, Any]]:
    return run_together(exchange, 2)


def test_flags_sums_means_and_statistics_are_the_same_in_both(seen: list[dict[str, Any]]) -> None:
    assert [each["place"] for each in seen] == [(0, 2), (1, 2)]
    for each in seen:
        assert each["any"] == [False, True]
        assert each["total"] == [3.0, 1.0]
        assert each["means"] == {"box": 2.0, "loss": 3.0}  # over all images, though the second process had none
        assert each["running_mean"] == [1.0, 2.0]  # of the first
        assert each["first"] == ["é", "b"]


def test_arrays_of_any_size_reach_the_first(seen: list[dict[str, Any]]) -> None:
    none = ("float64", [])
    assert seen[0]["gathered"] == [
        {"rank": ("int64", 0), "ragged": ("int16", []), "none": none},
        {"rank": ("int64", 1), "ragged": ("int16", [0, 1, 2]), "none": none},
    ]
    assert seen[1]["gathered"] == []


def test_sums_and_counts_in_losses_are_those_of_the_whole(seen: list[dict[str, Any]]) -> None:
    # (2 · 2 + 3 · 3)² = 169; its slope is 2 · 13 · 2 by the first weight, 2 · 13 · 3 by the second.
    assert [each["total loss"] for each in seen] == [(169.0, 26.0 * 2), (169.0, 26.0 * 3)]
    assert seen[0]["normaliser"] == [3.5, 0.5, 0.5, 3.0]
    assert seen[1]["normaliser"] == [3.5, 0.5, 0.5, 4.0]


def test_a_single_process_has_its_own() -> None:
    own = torch.tensor([1.0, 2.0], requires_grad=True)
    assert total_over_processes(own, training=True) is own
    assert num_processes(training=True) == 1
    assert float(shared_normaliser(0, True, own)) == 1
    alone = Processes()
    assert (alone.rank, alone.world_size, alone.any(True), alone.any(False)) == (0, 1, True, False)
    arrays = {"a": np.arange(3)}
    assert alone.gather(arrays) == [arrays]
    assert alone.from_first(arrays) == arrays
    assert alone.total(np.array([2.0])).tolist() == [2.0]


def be_left_alone() -> str:
    """The last process leaves without a word; how those end that wait for it."""
    dist.init_process_group("gloo")
    processes = Processes()
    if processes.rank == 2:
        return "left"
    try:
        with first_speaks(processes.rank, processes.world_size):
            processes.any(True)
    except (DetsegError, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing noticed"


def test_when_a_process_dies_the_first_says_so_in_one_line() -> None:
    first, second, last = run_together(be_left_alone, 3)
    assert first.startswith("DetsegError: another process of this run has ended, and so does this one; its error is")
    assert "\n" not in first
    assert (second, last) == ("SystemExit: 2", "left")


def test_other_errors_stay_as_they_are_and_a_stop_is_said_once() -> None:
    with pytest.raises(RuntimeError, match="a bug of ours"), first_speaks(1, 2):
        raise RuntimeError("a bug of ours")
    with pytest.raises(RunStoppedError), first_speaks(0, 2):
        raise RunStoppedError("stopped")
    with pytest.raises(SystemExit) as caught, first_speaks(1, 2):
        raise RunStoppedError("stopped")
    assert caught.value.code == 0
