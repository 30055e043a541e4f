"""A trained model as a safetensors file: weights, settings and classes for prediction and evaluation, readable by any
program of that format, and nothing to resume a run from.

The header's metadata holds text only: ``format``, ``config`` and ``classes`` as JSON, ``epoch``, and ``sha256``, the
``content_digest`` of all of it and of the weights.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detseg.checkpoint import ModelCheckpoint, class_table_of, content_digest
from detseg.config.renamed import rename_settings
from detseg.errors import CheckpointError
from detseg.messages import one_line, shown

FORMAT = "detseg-weights-1"


def write_weights(path: Path, checkpoint: ModelCheckpoint) -> None:
    """Write a safetensors file beside ``path``, sync it, and rename: whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        checkpoint: as ``read_model_checkpoint`` gives it.

    Raises:
        CheckpointError: the disk refused (full, read-only, ...).
    """
    # Copies: the format takes no tensors that share memory, and none that are not laid out row by row.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in checkpoint.weights.items()}
    classes = {"names": list(checkpoint.classes.names), "source_ids": list(checkpoint.classes.source_ids)}
    texts = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config),
        "classes": json.dumps(classes),
        "epoch": str(checkpoint.epoch),
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=texts | {"sha256": _digest(texts, tensors)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written ({one_line(error)})") from error
    finally:  # also when the user interrupts
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_weights(path: Path) -> ModelCheckpoint:
    """What ``write_weights`` wrote.

    Raises:
        CheckpointError: missing, damaged, or not ours.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = dict(file.metadata() or {})
            weights: dict[str, Tensor] = {}
            if texts.get("format") == FORMAT:
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, has only keys()
    except MemoryError:
        raise
    except Exception as error:  # what safetensors and torch raise on damaged bytes is not a closed list
        raise CheckpointError(
            f"{path}: damaged, or not a safetensors file ({shown(one_line(error))}); export it anew"
        ) from error
    if texts.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not weights of detseg: its metadata say format {shown(texts.get('format'))}, this version reads "
            f"{FORMAT!r}; tools/export_weights.py makes such a file of a checkpoint"
        )
    digest = texts.pop("sha256", None)
    if digest != _digest(texts, weights):
        raise CheckpointError(f"{path}: damaged: its content does not have its checksum; export it anew")
    try:
        config, classes = json.loads(texts["config"]), json.loads(texts["classes"])
        if not isinstance(config, dict) or not isinstance(classes, dict):
            raise TypeError("config, classes: expected mappings")
        return ModelCheckpoint(rename_settings(config), class_table_of(classes), weights, int(texts["epoch"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({shown(one_line(error))})") from error


def _digest(texts: dict[str, str], weights: dict[str, Tensor]) -> str:
    """Of both in the order of their names, since the format keeps tensors in another one than they came in."""
    return content_digest([dict(sorted(texts.items())), dict(sorted(weights.items()))])
