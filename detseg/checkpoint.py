"""Reading and writing checkpoint files: tensors and plain data only, whole or not at all.

A checkpoint of detseg is what Lightning writes, plus one entry of ours, ``detseg``: format version, resolved settings
and class table.  Nothing in it is unpickled into code (``weights_only=True``).
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from detseg.errors import CheckpointError, one_line
from detseg.structures import ClassTable

ENTRY = "detseg"
FORMAT = 1
BEST, LAST = "best.ckpt", "last.ckpt"
FOLDER = "checkpoints"
"""Folder of a run directory that holds its checkpoints."""

_AVERAGE_PREFIX = "average.model."
_MODEL_PREFIX = "model."


@dataclass(frozen=True)
class ModelCheckpoint:
    """What a predictor needs of a checkpoint.

    Attributes:
        config: the resolved settings as plain data.
        classes: the class table that the model was trained with.
        weights: the model's state; the averaged weights where the run kept an average.
        epoch: epochs of training that had ended.
    """

    config: dict[str, Any]
    classes: ClassTable
    weights: dict[str, Tensor]
    epoch: int


def model_entry(config: dict[str, Any], classes: ClassTable) -> dict[str, Any]:
    """The plain data that turns a Lightning checkpoint into one of ours."""
    table = {"names": list(classes.names), "source_ids": list(classes.source_ids)}
    return {"format": FORMAT, "config": config, "classes": table}


def run_dir_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint lies in; the checkpoint's own folder, where it was taken out of its run."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == FOLDER else folder


def save_atomically(checkpoint: dict[str, Any], path: Path) -> None:
    """Write to a file beside ``path``, sync it, and rename: a crash leaves the old file or the new one, never half.

    Raises:
        CheckpointError: the disk refused (full, read-only, ...).
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: could not be written ({one_line(error)}); the previous file is untouched"
        ) from error
    finally:  # also when the user interrupts
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_raw_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Everything in a checkpoint of ours.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(beside)}" if beside else ""
        raise CheckpointError(f"{path}: no such checkpoint file{hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle formats that it then refuses
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain data, or is damaged; it was not loaded (a detseg checkpoint "
            f"is safe to read, this file is none)"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # what torch raises on damaged bytes is not a closed list
        raise CheckpointError(f"{path}: damaged or not a checkpoint; take another one of the run directory") from error
    entry = checkpoint.get(ENTRY) if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: not a detseg checkpoint (it has no {ENTRY!r} entry)")
    if entry.get("format") != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {entry.get('format')}, this version reads format {FORMAT}")
    _rename_settings(entry.get("config"))
    return checkpoint


def _rename_settings(config: Any) -> None:
    """Bring the settings of an older version to the names of today."""
    model = config.get("model") if isinstance(config, dict) else None
    backbone = model.get("backbone") if isinstance(model, dict) else None
    if isinstance(backbone, dict) and "frozen_stages" in backbone:
        backbone["freeze"] = backbone.pop("frozen_stages") or "none"


def read_model_checkpoint(path: Path) -> ModelCheckpoint:
    """The part of a checkpoint that a predictor needs.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    checkpoint = read_raw_checkpoint(path)
    entry = checkpoint[ENTRY]
    try:
        classes = ClassTable(tuple(entry["classes"]["names"]), tuple(entry["classes"]["source_ids"]))
        state: dict[str, Tensor] = checkpoint["state_dict"]
        averaged = any(name.startswith(_AVERAGE_PREFIX) for name in state)
        prefix = _AVERAGE_PREFIX if averaged else _MODEL_PREFIX
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return ModelCheckpoint(entry["config"], classes, weights, int(checkpoint["epoch"]) + 1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({error})") from error
