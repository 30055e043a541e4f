"""Where a run stands besides its tensors: what a checkpoint's ``detseg`` entry holds of it, and how it resumes.

Lightning's own resuming in the middle of an epoch leaves out hooks, and the validation of an epoch that had all its
batches. Here a resumed run begins the epoch again, as far as Lightning knows: the checkpoint has the state of the loops
at the epoch's beginning, and for batches that are done the loader yields None, which makes no step (``TrainLoader``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import CheckpointError
from detseg.training.distributed.processes import Processes
from detseg.training.nan.guard import StepGuard
from detseg.training.nan.seeding import random_state, restore_random_state
from detseg.training.optim.batchnorm_warmup import BatchNormWarmup

_OPTIMIZER_STEPS = "epoch_loop.automatic_optimization.optim_progress"
"""Lightning's key of the steps in the state of its loops; ``tests/test_kills.py`` fails where it changes."""


class LossMeans:
    """Means of loss terms over the images of an epoch, of which a resumed run keeps the first part (Lightning's own
    would begin at zero); the sums stay on the device, so that no step waits for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums: dict[str, Tensor] = {}
        self._num_images = 0

    def add(self, terms: Mapping[str, Tensor], num_images: int) -> None:
        """Add the terms of a batch, each a mean over its images."""
        self._num_images += num_images
        for name, value in terms.items():
            value = value.detach()
            value = value.double() if value.device.type != "mps" else value
            self._sums[name] = self._sums.get(name, 0) + value * num_images

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over the images of all processes; empty where there were none."""
        parts = self.state(processes)  # of a process without a batch it has no terms
        num_images = sum(part["images"] for part in parts)
        means = {
            name: np.array(sum(part["sums"].get(name, 0.0) for part in parts) / num_images)
            for name in sorted({name for part in parts for name in part["sums"]})
        }
        return {name: float(value) for name, value in processes.from_first(means).items()}

    def state(self, processes: Processes) -> list[dict[str, Any]]:
        """The sums of each process as plain data, in the first process; elsewhere empty."""
        own = {name: np.array(float(value)) for name, value in self._sums.items()}
        parts = processes.gather({**own, "": np.array(self._num_images)})
        return [{"images": int(part.pop("")), "sums": {k: float(v) for k, v in part.items()}} for part in parts]

    def load(self, state: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Resume from a ``state``; with another number of processes, the first one takes all of it."""
        self.reset()
        for part in state[rank : rank + 1] if len(state) == world_size else (state if rank == 0 else []):
            terms = {name: torch.tensor(value, dtype=torch.float64) for name, value in part["sums"].items()}
            self.add(terms, 1)
            self._num_images += int(part["images"]) - 1


class RunState:
    """Place in the epoch, sums of the losses, skipped steps, batch norm in its warm-up, random generators.

    Args:
        warmup: of the model that trains.
        guard: which counts the skipped steps.

    Attributes:
        train_means: losses of the present epoch.
        resumed_at: epochs that had ended, and batches of the next one that were done, where the run resumes.
    """

    def __init__(self, warmup: BatchNormWarmup, guard: StepGuard) -> None:
        self._warmup, self._guard = warmup, guard
        self.train_means = LossMeans()
        self.resumed_at: Mapping[str, int] = {"epoch": 0, "batch": 0}
        self._resumed_means: list[dict[str, Any]] | None = None
        self._loops_at_epoch_start: dict[str, Any] | None = None

    def begin_training(self, trainer: L.Trainer) -> None:
        """Have the loader begin where the run stood.

        Raises:
            CheckpointError: that is in the middle of an epoch, and the loader is none of ours.
        """
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, EpochBatchSampler):
            sampler.begin_at(self.resumed_at["epoch"], self.resumed_at["batch"])
        elif self.resumed_at["batch"]:
            raise CheckpointError(
                "the checkpoint is from the middle of an epoch, where only a loader of train_loader can resume; take "
                "one from the end of an epoch"
            )

    def begin_epoch(self, trainer: L.Trainer, processes: Processes) -> None:
        """Begin the means at zero, or where they were in the middle of a resumed epoch."""
        loops = copy.deepcopy(trainer.fit_loop.state_dict())
        for counts in loops["epoch_progress"].values():
            counts.update(dict.fromkeys(counts, trainer.current_epoch))
        self._loops_at_epoch_start = loops
        self.train_means.reset()
        if self._resumed_means is not None:
            self.train_means.load(self._resumed_means, processes.rank, processes.world_size)
            self._resumed_means = None

    def save(self, trainer: L.Trainer, processes: Processes, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Bring a checkpoint of Lightning's to the beginning of its epoch; all processes must call it.

        Returns:
            Plain data and tensors for the ``detseg`` entry.
        """
        # ``current_epoch`` counts an epoch only after the hooks in which checkpoints are saved.
        epochs = trainer.fit_loop.epoch_progress.state_dict()["current"]
        is_between = epochs["processed"] == epochs["ready"]
        if not is_between and self._loops_at_epoch_start is not None:
            loops = copy.deepcopy(self._loops_at_epoch_start)
            loops[_OPTIMIZER_STEPS] = checkpoint["loops"]["fit_loop"][_OPTIMIZER_STEPS]
            checkpoint["loops"]["fit_loop"] = loops
        return {
            "place": {"epoch": epochs["processed"], "batch": 0 if is_between else trainer.fit_loop.batch_idx + 1},
            "over": bool(trainer.should_stop),  # early stopping has ended the run
            "world_size": trainer.world_size,
            "means": self.train_means.state(processes),
            "fresh_norms": self._warmup.names,
            "skipped_steps": self._guard.num_skipped,
            "random": random_state(),
        }

    def load(self, entry: Mapping[str, Any]) -> None:
        """Take up what ``save`` returned."""
        if "place" not in entry:  # a checkpoint of an older version, from the end of an epoch
            return
        self.resumed_at = entry["place"]
        self._resumed_means = entry["means"] if self.resumed_at["batch"] else None
        self._warmup.keep(entry["fresh_norms"])
        self._guard.num_skipped = int(entry.get("skipped_steps", 0))
        restore_random_state(entry["random"])
