"""Early stopping whose settings are those of today and whose counts are those of the checkpoint."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Stops a run after ``patience`` validations without a higher ``metric``; Lightning's would resume with the
    patience of the checkpoint, so that raising it had no effect.

    Args:
        metric: name of the logged metric, as ``val/AP``; it may be NaN (no objects).
        patience: validations.
    """

    def __init__(self, metric: str, patience: int) -> None:
        super().__init__(metric, patience=patience, mode="max", check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best metric and the validations since."""
        super().load_state_dict({**state_dict, "patience": self.patience})
