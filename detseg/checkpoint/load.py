"""The trained model of a checkpoint of either kind, chosen by its suffix."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from detseg.checkpoint.ckpt_file import read_raw_checkpoint
from detseg.checkpoint.format import ENTRY, WEIGHTS_SUFFIX, ModelCheckpoint, class_table_of, epochs_ended
from detseg.checkpoint.safetensors_file import read_weights
from detseg.errors import CheckpointError
from detseg.messages import one_line

_AVERAGE_PREFIX = "average.model."
_MODEL_PREFIX = "model."


def read_model_checkpoint(path: Path) -> ModelCheckpoint:
    """The part of a ``.ckpt`` or ``.safetensors`` file that a predictor needs.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    if path.suffix == WEIGHTS_SUFFIX:
        return read_weights(path)
    checkpoint = read_raw_checkpoint(path)
    entry = checkpoint[ENTRY]
    try:
        classes = class_table_of(entry["classes"])
        if not isinstance(entry["config"], dict):
            raise TypeError("config: expected a mapping")
        state: dict[str, Tensor] = checkpoint["state_dict"]
        averaged = any(name.startswith(_AVERAGE_PREFIX) for name in state)
        prefix = _AVERAGE_PREFIX if averaged else _MODEL_PREFIX
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return ModelCheckpoint(entry["config"], classes, weights, epochs_ended(checkpoint))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({one_line(error)})") from error
