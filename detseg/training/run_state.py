"""Where a run stands besides its tensors: what a checkpoint's ``detseg`` entry keeps of it, and how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import CheckpointError
from detseg.training.cursor import EpochCursor
from detseg.training.loss_means import LossMeans
from detseg.training.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from detseg.training.task import Task


class RunState:
    """Place in the epoch, sums of the losses, skipped steps, fresh normalisations and random generators.

    Attributes:
        train_means: losses of the present epoch.
        resumed_at: epochs that had ended, and batches of the next one that were done, where the run goes on.
    """

    def __init__(self) -> None:
        self.train_means = LossMeans()
        self.resumed_at: Mapping[str, int] = {"epoch": 0, "batch": 0}
        self._resumed_means: list[dict[str, Any]] | None = None
        self._cursor = EpochCursor()

    def begin_training(self, task: Task) -> None:
        """Have the loader begin where the run stood.

        Raises:
            CheckpointError: that is in the middle of an epoch, and the loader is none of ours.
        """
        sampler = getattr(task.trainer.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, EpochBatchSampler):
            sampler.begin_at(self.resumed_at["epoch"], self.resumed_at["batch"])
        elif self.resumed_at["batch"]:
            raise CheckpointError(
                "the checkpoint is from the middle of an epoch, where only a loader of train_loader "
                "can go on; take one from the end of an epoch"
            )

    def begin_epoch(self, task: Task) -> None:
        """Begin the means anew, or where they were in the middle of a resumed epoch."""
        self._cursor.begin_epoch(task.trainer)
        self.train_means.reset()
        if self._resumed_means is not None:
            self.train_means.load(self._resumed_means, task.processes.rank, task.processes.world_size)
            self._resumed_means = None

    def save(self, task: Task, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Bring a checkpoint of Lightning's to the beginning of its epoch; all processes must call it.

        Returns:
            plain data and tensors for the ``detseg`` entry.
        """
        self._cursor.rewrite(task.trainer, checkpoint)
        return {
            "place": self._cursor.place(task.trainer),
            "over": bool(task.trainer.should_stop),  # early stopping has ended the run
            "world_size": task.trainer.world_size,
            "means": self.train_means.state(task.processes),
            "fresh_norms": task.fresh_norms.names,
            "skipped_steps": task.guard.num_skipped,
            "random": random_state(),
        }

    def load(self, task: Task, entry: Mapping[str, Any]) -> None:
        """Take up what ``save`` returned."""
        if "place" not in entry:  # a checkpoint of an older version, from the end of an epoch
            return
        self.resumed_at = entry["place"]
        self._resumed_means = entry["means"] if self.resumed_at["batch"] else None
        task.fresh_norms.keep(entry["fresh_norms"])
        task.guard.num_skipped = int(entry.get("skipped_steps", 0))
        restore_random_state(entry["random"])
