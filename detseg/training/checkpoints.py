"""How a run's checkpoints reach the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from detseg.checkpoint import read_raw_checkpoint, save_atomically


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


def best_and_last(folder: Path) -> ModelCheckpoint:
    """Keeps ``best.ckpt``, the epoch of the best validation AP, and ``last.ckpt``, from which a run resumes."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor="val/AP",
        mode="max",
        save_last=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
        auto_insert_metric_name=False,
    )
