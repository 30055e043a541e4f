"""Reading and writing checkpoint files: tensors and plain data only, whole or not at all.

A checkpoint of detseg is what Lightning writes, plus one entry of ours, ``detseg``: format version, resolved settings,
class table, where the run stands, and a checksum of everything.  Nothing in it is unpickled into code
(``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from detseg.checkpoint_bounds import growing_archive, is_bounded
from detseg.config.renamed import rename_settings
from detseg.errors import CheckpointError
from detseg.messages import one_line, shown
from detseg.structures import ClassTable
from detseg.whole_files import atomic_write

ENTRY = "detseg"
FORMAT = 1
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
FOLDER = "checkpoints"
"""Folder of a run directory that holds its checkpoints."""

WEIGHTS_SUFFIX = ".safetensors"
"""By which files of weights alone are recognised."""

_CHECKSUM = "sha256"

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


def epochs_ended(checkpoint: Mapping[str, Any]) -> int:
    """Whole epochs that the run of a checkpoint had trained."""
    place = checkpoint[ENTRY].get("place")  # those of older versions are from the end of an epoch
    return int(checkpoint["epoch"]) + 1 if place is None else int(place["epoch"])


def run_dir_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint lies in; the checkpoint's own folder, where it was taken out of its run."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == FOLDER else folder


def save_atomically(
    checkpoint: dict[str, Any], path: Path, *, previous: Path | None = None, copy: Path | None = None
) -> None:
    """Write to a file beside ``path``, sync it, and rename: a crash leaves the old file or the new one, never half.

    Args:
        checkpoint: of ours; its checksum is added.
        path: where to.
        previous: the name that the file that is there gets, so that the newest two are kept.
        copy: a second file of the same content, written before ``path`` is.

    Raises:
        CheckpointError: the disk refused (full, read-only, ...).
    """
    partial = _partial(path)
    entry = checkpoint.get(ENTRY)
    if isinstance(entry, dict):
        entry[_CHECKSUM] = content_digest({**checkpoint, ENTRY: _without_checksum(entry)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if copy is not None:
            with partial.open("rb") as source, atomic_write(copy) as file:
                shutil.copyfileobj(source, file)
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
        _sync(path.parent)  # the names, too
    except (OSError, RuntimeError) as error:
        raise _not_written(path, error) from error
    finally:  # also when the user interrupts
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _not_written(path: Path, error: Exception) -> CheckpointError:
    """The error of a disk that refuses; torch's own words of a full one say nothing of it."""
    room = ""
    with suppress(OSError):
        room = f"; {shutil.disk_usage(path.parent).free // 10**6} MB are free there"
    before = "the previous file is untouched" if path.exists() else "there is none of before"
    return CheckpointError(f"{path}: could not be written ({one_line(error)}{room}); {before}")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _sync(path: Path) -> None:
    with suppress(PermissionError):  # Windows opens no folders, and needs none synced
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def content_digest(content: Any) -> str:
    """SHA-256 of tensors and plain data: of what is kept, not of the bytes of a file.

    Raises:
        TypeError: something else is in it.
    """
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Any) -> Iterator[Any]:
    """Everything in ``content`` in a fixed order, as bytes that no other content has."""
    match content:
        case Tensor():
            yield f"{content.dtype}{tuple(content.shape)}".encode()
            yield content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        case Mapping():
            yield b"{%d" % len(content)
            for key, value in content.items():
                yield from _pieces(key)
                yield from _pieces(value)
        case list() | tuple():
            yield b"[%d" % len(content)
            for value in content:
                yield from _pieces(value)
        case None | bool() | int() | float() | str():
            text = repr(content).encode("utf-8", "surrogatepass")
            yield b"=%d:" % len(text)
            yield text
        case _:
            raise TypeError(f"a checkpoint holds tensors and plain data, not {type(content).__name__}")


def _without_checksum(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != _CHECKSUM}


def read_raw_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Everything in a checkpoint of ours.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    if not path.is_file():
        beside = sorted(file.name for file in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(beside)}" if beside else ""
        raise CheckpointError(f"{path}: no such checkpoint file{hint}")
    if path.suffix == WEIGHTS_SUFFIX:
        raise CheckpointError(f"{path}: holds weights alone; a run goes on from a .ckpt file of its run directory")
    if (reason := growing_archive(path)) is not None:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {reason}; it was not loaded")
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
    if not is_bounded(checkpoint, path):
        raise CheckpointError(f"{path}: damaged or not a checkpoint: it pretends to hold far more than its file does")
    entry = checkpoint.get(ENTRY) if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: not a detseg checkpoint (it has no {ENTRY!r} entry)")
    found = entry.get("format")
    if type(found) is not int or found != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {shown(found)}, this version reads format {FORMAT}")
    if not _is_whole(checkpoint, entry):
        raise CheckpointError(
            f"{path}: damaged: its content does not have the checksum that it was written with; take another one of "
            f"the run directory"
        )
    if isinstance(entry.get("config"), dict):
        entry["config"] = rename_settings(entry["config"])
    return checkpoint


def _is_whole(checkpoint: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a checkpoint holds what was written; those of older versions do not say."""
    if _CHECKSUM not in entry:
        return True
    try:
        digest = content_digest({**checkpoint, ENTRY: _without_checksum(entry)})
    except (TypeError, ValueError, RecursionError, RuntimeError):  # what was written was tensors and plain data
        return False
    return type(entry[_CHECKSUM]) is str and entry[_CHECKSUM] == digest


def read_model_checkpoint(path: Path) -> ModelCheckpoint:
    """The part of a checkpoint that a predictor needs; also from a file of ``detseg.safe_weights``.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    if path.suffix == WEIGHTS_SUFFIX:
        from detseg.safe_weights import read_weights  # builds on this module

        return read_weights(path)
    checkpoint = read_raw_checkpoint(path)
    entry = checkpoint[ENTRY]
    try:
        classes = class_table_of(entry["classes"])
        if not isinstance(entry["config"], dict):
            raise TypeError("config is no mapping")
        state: dict[str, Tensor] = checkpoint["state_dict"]
        averaged = any(name.startswith(_AVERAGE_PREFIX) for name in state)
        prefix = _AVERAGE_PREFIX if averaged else _MODEL_PREFIX
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return ModelCheckpoint(entry["config"], classes, weights, epochs_ended(checkpoint))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({one_line(error)})") from error


def class_table_of(entry: dict[str, Any]) -> ClassTable:
    """The class table that plain data describes.

    Raises:
        KeyError, TypeError, ValueError: it describes none.
    """
    names, source_ids = tuple(entry["names"]), tuple(entry["source_ids"])
    if not names or any(type(name) is not str for name in names) or any(type(i) is not int for i in source_ids):
        raise TypeError("classes: expected names and whole numbers")
    return ClassTable(names, source_ids)
