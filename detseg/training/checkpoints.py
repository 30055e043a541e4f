"""How a run's checkpoints reach the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from detseg.checkpoint import BEST, LAST, read_raw_checkpoint, save_atomically


class AtomicCheckpointIO(CheckpointIO):
    """Writes whole files or none, and reads tensors and plain data only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        save_atomically(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read ``path``; pickled objects are refused whatever ``weights_only`` says."""
        return read_raw_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Delete ``path`` if it is there."""
        Path(path).unlink(missing_ok=True)


class BestAndLast(Checkpoint):
    """Keeps ``last.ckpt``, from which a run resumes, after every epoch, and ``best.ckpt``, the best epoch.

    Lightning's ``ModelCheckpoint`` writes its last file only when it writes its best one, and forgets the best score
    when the folder has moved: a resumed run would begin at the best epoch, and overwrite it with a worse one.

    Args:
        folder: where to write.
        metric: name of the logged metric that decides, as ``val/AP``; higher is better.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder = folder
        self.metric = metric
        self.best: float | None = None
        self._new: float | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the metric down; it is the same in every process."""
        self._new = float(trainer.callback_metrics[self.metric])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves; an epoch without a validation cannot be the best."""
        new, self._new = self._new, None
        improved = new is not None and self._improves(new, bool(trainer.strategy.broadcast(self._best_exists())))
        if improved:
            self.best = new
        # The best one first: a run that is killed in between resumes before this epoch, and finds it the best again.
        if improved:
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)

    def state_dict(self) -> dict[str, Any]:
        """The best metric so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the best metric of the checkpoint."""
        self.best = state_dict["best"]

    def _best_exists(self) -> bool:
        return (self.folder / BEST).is_file()

    def _improves(self, new: float, best_exists: bool) -> bool:
        # Of two equal epochs the first stays. Where the metric is not defined (NaN: no objects), the newest is kept.
        return not best_exists or self.best is None or not new <= self.best
