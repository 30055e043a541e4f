"""``.ckpt`` files: written completely or not at all, and checked on reading, since ``torch.load`` checks too little.

torch writes zip archives with a CRC-32 of every record, but does not compare it on reading. It also reads compressed
records, and tensors and lists that are small in the file and huge once somebody copies them.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detseg.atomic_write import atomic_write
from detseg.checkpoint.format import (
    ENTRY,
    EXPORT_SUFFIXES,
    FORMAT,
    WEIGHTS_SUFFIX,
    ModelCheckpoint,
    class_table_of,
    epochs_ended,
    run_checkpoint,
)
from detseg.checkpoint.safetensors_file import read_weights
from detseg.config.schema.section import rename_settings
from detseg.errors import CheckpointError, ForeignFileError
from detseg.messages import one_line, shown

_MAX_ITEMS = 1_000_000  # our checkpoints have some ten thousand tensors, numbers and names
_MAX_GROWTH = 16  # tensors that share memory count each
_FOLDER_BIT = 0x10
"""torch leaves memory uninitialised for a record with this attribute, and zipfile reads it as any other."""
_MODEL, _AVERAGE = "model.", "average.model."


def save_atomically(
    checkpoint: dict[str, Any], path: Path, *, previous: Path | None = None, copy: Path | None = None
) -> None:
    """Write a checkpoint; a crash leaves the old file or the new one, never half of one.

    Args:
        checkpoint: tensors and plain data.
        path: the file.
        previous: the new name of the file that was there before, so that the newest two are kept.
        copy: a second file of the same content, which is written first.

    Raises:
        CheckpointError: the disk refused (full, read-only, ...).
    """
    try:
        if copy is not None:
            with atomic_write(copy) as file:
                torch.save(checkpoint, file)
        with atomic_write(path, previous=previous) as file:
            torch.save(checkpoint, file)
    except (OSError, RuntimeError) as error:  # torch's own error of a full disk does not say so: the free space does
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        with suppress(OSError):
            reason += f"; {shutil.disk_usage(path.parent).free // 10**6} MB are free there"
        before = "the previous file is untouched" if path.exists() else "there is no previous file"
        raise CheckpointError(f"{path}: could not be written ({reason}); {before}") from error


def read_raw_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Everything in a checkpoint of ours; CheckpointError: missing, damaged, or not ours."""
    if not path.is_file():
        where, pattern = (path, "**/*.ckpt") if path.is_dir() else (path.parent, "*.ckpt")
        beside = sorted(file.relative_to(where).as_posix() for file in where.glob(pattern))
        what = "is a folder, not a checkpoint" if where == path else "no such checkpoint file"
        hint = f"; there are {', '.join(beside[:5])}" if beside else ""
        raise CheckpointError(f"{path}: {what}{hint}")
    if path.suffix == WEIGHTS_SUFFIX:
        raise CheckpointError(f"{path}: holds weights alone; a run resumes from a .ckpt file of its run directory")
    if path.suffix in EXPORT_SUFFIXES:
        raise CheckpointError(f"{path}: is an export; give the run, or the checkpoint, that it was made of")
    checkpoint: dict[str, Any] = read_archive(path, map_location)
    entry = checkpoint.get(ENTRY) if isinstance(checkpoint, dict) else None
    if not isinstance(entry, dict):
        raise ForeignFileError(f"{path}: not a detseg checkpoint (it has no {ENTRY!r} entry)")
    found = entry.get("format")
    if type(found) is not int or found != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {shown(found)}, this version reads format {FORMAT}")
    if isinstance(entry.get("config"), dict):
        entry["config"], _ = rename_settings(entry["config"])
    return checkpoint


def read_model_checkpoint(path: Path) -> ModelCheckpoint:
    """What a predictor needs of a ``.ckpt`` or ``.safetensors`` file, or of the best checkpoint of a run directory;
    CheckpointError: as above."""
    path = run_checkpoint(path)
    if path.suffix == WEIGHTS_SUFFIX:
        return read_weights(path)
    checkpoint = read_raw_checkpoint(path)
    entry = checkpoint[ENTRY]
    try:
        if not isinstance(entry["config"], dict):
            raise TypeError("config: expected a mapping")
        state: dict[str, Tensor] = checkpoint["state_dict"]
        prefix = _AVERAGE if any(name.startswith(_AVERAGE) for name in state) else _MODEL
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return ModelCheckpoint(entry["config"], class_table_of(entry["classes"]), weights, epochs_ended(checkpoint))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({one_line(error)})") from error


def read_archive(path: Path, map_location: Any = "cpu") -> Any:
    """What ``torch.save`` wrote, read after the CRC-32 of every record was compared. CheckpointError: the file is
    damaged, or holds more than tensors and plain data."""
    _check_archive(path)
    return load_tensors(path, map_location)


def load_tensors(path: Path, map_location: Any = "cpu") -> Any:
    """Tensors and plain data by ``torch.load``, no more of them than fit into the file; its bytes are not verified.
    CheckpointError: the file holds other things, or pretends to hold more."""
    try:
        with path.open("rb") as file:  # not the path: torch goes by its suffix
            content = torch.load(file, map_location=map_location, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what torch raises is not a closed list
        raise CheckpointError(
            f"{path}: holds more than tensors and plain data, or is damaged; it was not loaded, since that could run a "
            f"program; save model.state_dict(), or take another file"
        ) from error
    if not _is_bounded(content, path.stat().st_size):
        raise CheckpointError(f"{path}: damaged or not a checkpoint: it pretends to hold far more than its file does")
    return content


def _check_archive(path: Path) -> None:
    kind, damage = CheckpointError, None
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            total, size = sum(record.file_size for record in records), path.stat().st_size
            if any(r.compress_type != zipfile.ZIP_STORED or r.external_attr & _FOLDER_BIT for r in records):
                damage = "it holds compressed records or folders"
            elif total > size:
                damage = f"its records say {total} bytes, and the file has {size}"
            elif (broken := archive.testzip()) is not None:
                damage = f"{shown(broken)} does not have its CRC-32"
    except Exception as error:  # what zipfile raises on damaged bytes is not a closed list
        kind, damage = ForeignFileError, one_line(error)
    if damage is not None:
        advice = "take another file of the run directory, or copy it again"
        raise kind(f"{path}: damaged or not a checkpoint: {damage}; {advice}")


def _is_bounded(content: Any, num_bytes: int) -> bool:
    """Whether walking through the content and copying it takes time and memory that fit a file of ``num_bytes``."""
    num_items, num_tensor_bytes, waiting = 1, 0, [content]
    while waiting:
        match waiting.pop():
            case Tensor() as tensor:
                num_tensor_bytes += tensor.numel() * tensor.element_size()
            case Mapping() as mapping:
                num_items += 2 * len(mapping)
                waiting += [*mapping.keys(), *mapping.values()]
            case list() | tuple() | set() as items:
                num_items += len(items)
                waiting += items
        if num_items > _MAX_ITEMS or num_tensor_bytes > _MAX_GROWTH * num_bytes:
            return False
    return True
