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
    """Keeps ``last.ckpt``, from which a run resumes, after every epoch, and ``best.ckpt``, the epoch of the best AP.

    Lightning's ``ModelCheckpoint`` writes its last file only when it writes its best one, and forgets the best score
    when the folder has moved: a resumed run would begin at the best epoch, and overwrite it with a worse one.

    Args:
        folder: where to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best_ap: float | None = None
        self._new_ap: float | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the AP down; it is the same in every process."""
        self._new_ap = float(trainer.callback_metrics["val/AP"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves; an epoch without a validation cannot be the best."""
        new, self._new_ap = self._new_ap, None
        improved = new is not None and self._improves(new, bool(trainer.strategy.broadcast(self._best_exists())))
        if improved:
            self.best_ap = new
        # The best one first: a run that is killed in between resumes before this epoch, and finds it the best again.
        if improved:
            trainer.save_checkpoint(self.folder / BEST)
        trainer.save_checkpoint(self.folder / LAST)

    def state_dict(self) -> dict[str, Any]:
        """The best AP so far."""
        return {"best_ap": self.best_ap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the best AP of the checkpoint."""
        self.best_ap = state_dict["best_ap"]

    def _best_exists(self) -> bool:
        return (self.folder / BEST).is_file()

    def _improves(self, new: float, best_exists: bool) -> bool:
        # Of two equal epochs the first stays. Where no AP is defined (NaN: no objects), the newest is kept.
        return not best_exists or self.best_ap is None or not new <= self.best_ap
