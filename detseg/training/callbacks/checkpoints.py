"""How a run's checkpoints reach the disk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from detseg.checkpoint import BEST, LAST, PREVIOUS, read_raw_checkpoint, save_atomically


class AtomicCheckpointIO(CheckpointIO):
    """Writes whole files or none, in a thread beside the training, and reads tensors and plain data only.

    The training waits for the copy to memory, and for an earlier file that is still being written. An error of the
    disk is raised by the next call: ``raise_failure`` at each step, ``flush`` at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint; ``storage_options``: those of ``save_atomically``."""
        self.flush()
        write = partial(save_atomically, in_memory(checkpoint), Path(path), **(storage_options or {}))
        self._writing = self._thread.submit(write)

    def raise_failure(self) -> None:
        """Raise what kept a file from being written (CheckpointError), if that is known by now; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.flush()

    def flush(self) -> None:
        """Wait until everything is on the disk; raises CheckpointError where the disk refused."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Finish what is being written, whatever comes of it."""
        self._thread.shutdown(wait=True)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read ``path``; pickled objects are refused whatever ``weights_only`` says."""
        self.flush()
        return read_raw_checkpoint(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        self.flush()
        Path(path).unlink(missing_ok=True)


def in_memory(content: Any) -> Any:
    """A copy that training does not change any more, in the memory of the host."""
    match content:
        case Tensor():
            return content.detach().to("cpu", copy=True)
        case Mapping():
            return {key: in_memory(value) for key, value in content.items()}
        case list():
            return [in_memory(value) for value in content]
        case tuple():
            return tuple(in_memory(value) for value in content)
        case _:
            return content


class BestAndLast(Checkpoint):
    """Keeps ``last.ckpt``, from which a run resumes, and the one before, ``previous.ckpt``: after every epoch, every so
    many steps, and when the run is asked to stop; and ``best.ckpt``, the best epoch.

    Lightning's ``ModelCheckpoint`` writes its last file only when it writes its best one, and forgets the best score
    when the folder has moved.

    Args:
        folder: where to write, by ``files``.
        metric: name of the logged metric that decides, as ``val/AP``; higher is better.
        every_steps: optimiser steps from one save within an epoch to the next; None: none.
    """

    def __init__(self, folder: Path, metric: str, files: AtomicCheckpointIO, every_steps: int | None = None) -> None:
        self.folder, self.metric, self.files, self.every_steps = folder, metric, files, every_steps
        self.best: float | None = None
        self._new: float | None = None
        self._step = 0
        self._saved_step = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.files.raise_failure()
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        if stepped and self.every_steps is not None and self._step % self.every_steps == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._new = float(trainer.callback_metrics[self.metric])  # the same in every process

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves; an epoch without a validation cannot be the best."""
        new, self._new = self._new, None
        improved = new is not None and self._improves(new, bool(trainer.strategy.broadcast(self._best_exists())))
        if improved:
            self.best = new
        self.save(trainer, best=improved)

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """Save where the run stands; ``best``: as the best file too, which is written first: a run that is killed in
        between resumes before this epoch, and finds it the best again."""
        options = {"previous": self.folder / PREVIOUS, "copy": self.folder / BEST if best else None}
        trainer.save_checkpoint(self.folder / LAST, storage_options=options)
        self._saved_step = trainer.global_step

    def save_unless_saved(self, trainer: L.Trainer) -> None:
        """Save unless that was done after this step: the file before is worth more than a second one of the same."""
        if self._saved_step != trainer.global_step:
            self.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def _best_exists(self) -> bool:
        self.files.flush()
        return (self.folder / BEST).is_file()

    def _improves(self, new: float, best_exists: bool) -> bool:
        # Of two equal epochs the first stays. Where the metric is not defined (NaN: no objects), the newest is kept.
        return not best_exists or self.best is None or not new <= self.best
