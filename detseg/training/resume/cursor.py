"""Where in an epoch a run is, and how a checkpoint from the middle of one is read back.

Lightning's own way of going on in the middle of an epoch leaves out hooks, and the validation of an epoch that had all
its batches.  Here a resumed run begins the epoch again with all that this entails, as far as Lightning knows; for the
batches that are done, the loader yields None, and no step is made (``TrainLoader``).
"""

from __future__ import annotations

import copy
from typing import Any

import lightning as L

_OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress"


class EpochCursor:
    """Follows the epochs of a trainer's ``fit``."""

    def __init__(self) -> None:
        self._at_epoch_start: dict[str, Any] | None = None

    def begin_epoch(self, trainer: L.Trainer) -> None:
        """Take down how the loops stand; to be called when an epoch begins."""
        loops = copy.deepcopy(trainer.fit_loop.state_dict())
        done = trainer.current_epoch
        for counts in loops["epoch_progress"].values():
            counts.update(dict.fromkeys(counts, done))
        self._at_epoch_start = loops

    def place(self, trainer: L.Trainer) -> dict[str, int]:
        """Epochs that have ended, and batches that the present one has had."""
        ended = _epochs_ended(trainer)
        return {"epoch": ended, "batch": 0 if _between_epochs(trainer) else trainer.fit_loop.batch_idx + 1}

    def rewrite(self, trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
        """Make the loops of a checkpoint of this moment those of the beginning of its epoch; the steps stay counted."""
        if self._at_epoch_start is None or _between_epochs(trainer):
            return
        loops = copy.deepcopy(self._at_epoch_start)
        loops[_OPTIMIZER] = checkpoint["loops"]["fit_loop"][_OPTIMIZER]
        checkpoint["loops"]["fit_loop"] = loops


def _epochs_ended(trainer: L.Trainer) -> int:
    # ``current_epoch`` counts an epoch only after the hooks in which checkpoints are saved.
    return int(trainer.fit_loop.epoch_progress.state_dict()["current"]["processed"])


def _between_epochs(trainer: L.Trainer) -> bool:
    return _epochs_ended(trainer) == int(trainer.fit_loop.epoch_progress.state_dict()["current"]["ready"])
