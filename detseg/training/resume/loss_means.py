"""Means of losses over an epoch that a resumed run continues; Lightning's own would begin at zero in the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detseg.training.distributed.processes import Processes


class LossMeans:
    """Sums of loss terms over the images of an epoch; the sums stay on the device, so that no step waits for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums: dict[str, Tensor] = {}
        self._num_images = 0

    def add(self, terms: Mapping[str, Tensor], num_images: int) -> None:
        """Add the terms of a batch, each a mean over its images or as good as one."""
        self._num_images += num_images
        for name, value in terms.items():
            value = value.detach()
            value = value.double() if value.device.type != "mps" else value
            self._sums[name] = self._sums.get(name, 0) + value * num_images

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over the images of all processes; empty where there were none."""
        parts = self.state(processes)  # one that had no batch has no terms
        num_images = sum(part["images"] for part in parts)
        means = {
            name: np.array(sum(part["sums"].get(name, 0.0) for part in parts) / num_images)
            for name in sorted({name for part in parts for name in part["sums"]})
        }
        return {name: float(value) for name, value in processes.from_first(means).items()}

    def state(self, processes: Processes) -> list[dict[str, Any]]:
        """The sums of each process as plain data, in the first process; elsewhere empty."""
        own = {name: np.array(float(value)) for name, value in self._sums.items()}
        several = processes.gather({**own, "": np.array(self._num_images)})
        return [
            {"images": int(part.pop("")), "sums": {name: float(value) for name, value in part.items()}}
            for part in several
        ]

    def load(self, state: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Go on from a ``state``; with another number of processes, the first one takes all of it."""
        self.reset()
        mine = state[rank : rank + 1] if len(state) == world_size else (state if rank == 0 else [])
        for part in mine:
            self._num_images += int(part["images"])
            for name, value in part["sums"].items():
                self._sums[name] = self._sums.get(name, 0) + torch.tensor(float(value), dtype=torch.float64)
