"""Where a run stands besides its tensors: what a checkpoint's ``detseg`` entry keeps of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L

from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import CheckpointError
from detseg.training.distributed.processes import Processes
from detseg.training.nan.guard import StepGuard
from detseg.training.nan.seeding import random_state, restore_random_state
from detseg.training.optim.batchnorm_warmup import FreshNorms
from detseg.training.resume.cursor import EpochCursor
from detseg.training.resume.loss_means import LossMeans


class RunState:
    """Place in the epoch, sums of the losses, skipped steps, fresh normalisations and random generators.

    Args:
        fresh_norms: of the model that trains.
        guard: which counts the skipped steps.

    Attributes:
        train_means: losses of the present epoch.
        resumed_at: epochs that had ended, and batches of the next one that were done, where the run goes on.
    """

    def __init__(self, fresh_norms: FreshNorms, guard: StepGuard) -> None:
        self._fresh_norms, self._guard = fresh_norms, guard
        self.train_means = LossMeans()
        self.resumed_at: Mapping[str, int] = {"epoch": 0, "batch": 0}
        self._resumed_means: list[dict[str, Any]] | None = None
        self._cursor = EpochCursor()

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
                "the checkpoint is from the middle of an epoch, where only a loader of train_loader "
                "can go on; take one from the end of an epoch"
            )

    def begin_epoch(self, trainer: L.Trainer, processes: Processes) -> None:
        """Begin the means at zero, or where they were in the middle of a resumed epoch."""
        self._cursor.begin_epoch(trainer)
        self.train_means.reset()
        if self._resumed_means is not None:
            self.train_means.load(self._resumed_means, processes.rank, processes.world_size)
            self._resumed_means = None

    def save(self, trainer: L.Trainer, processes: Processes, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Bring a checkpoint of Lightning's to the beginning of its epoch; all processes must call it.

        Returns:
            plain data and tensors for the ``detseg`` entry.
        """
        self._cursor.rewrite(trainer, checkpoint)
        return {
            "place": self._cursor.place(trainer),
            "over": bool(trainer.should_stop),  # early stopping has ended the run
            "world_size": trainer.world_size,
            "means": self.train_means.state(processes),
            "fresh_norms": self._fresh_norms.names,
            "skipped_steps": self._guard.num_skipped,
            "random": random_state(),
        }

    def load(self, entry: Mapping[str, Any]) -> None:
        """Take up what ``save`` returned."""
        if "place" not in entry:  # a checkpoint of an older version, from the end of an epoch
            return
        self.resumed_at = entry["place"]
        self._resumed_means = entry["means"] if self.resumed_at["batch"] else None
        self._fresh_norms.keep(entry["fresh_norms"])
        self._guard.num_skipped = int(entry.get("skipped_steps", 0))
        restore_random_state(entry["random"])
