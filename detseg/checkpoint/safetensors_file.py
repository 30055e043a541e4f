"""``.safetensors`` files: weights, settings and classes for prediction and evaluation, which other programs can read.

The metadata holds text only: ``format``, ``config`` and ``classes`` as JSON, ``epoch``, and ``sha256`` of all of it and
of the weights, since the file format has no checksum.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detseg.atomic_write import atomic_write
from detseg.checkpoint.format import ModelCheckpoint, class_entry, class_table_of
from detseg.config.schema.section import rename_settings
from detseg.errors import CheckpointError, ForeignFileError
from detseg.messages import one_line, shown

FORMAT = "detseg-weights-1"


def write_weights(path: Path, checkpoint: ModelCheckpoint) -> None:
    """Write a safetensors file, completely or not at all, over an existing one; CheckpointError: the disk refused."""
    # Copies: the format takes no tensors that share memory, and none that are not contiguous.
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in checkpoint.weights.items()}
    texts = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config),
        "classes": json.dumps(class_entry(checkpoint.classes)),
        "epoch": str(checkpoint.epoch),
    }
    try:
        with atomic_write(path) as file:
            file.write(save(weights, metadata=texts | {"sha256": _sha256(texts, weights)}))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written ({one_line(error)})") from error


def read_weights(path: Path) -> ModelCheckpoint:
    """What ``write_weights`` wrote; CheckpointError: missing, damaged, or not ours."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, has only keys()
    except MemoryError:
        raise
    except Exception as error:  # what safetensors and torch raise on damaged bytes is not a closed list
        raise CheckpointError(
            f"{path}: damaged, or not a safetensors file ({shown(one_line(error))}); export it again"
        ) from error
    if texts.get("format") != FORMAT:
        raise ForeignFileError(
            f"{path}: not weights of detseg: its metadata say format {shown(texts.get('format'))}, this version reads "
            f"{FORMAT!r}; `detseg export-weights` makes such a file of a checkpoint"
        )
    if texts.pop("sha256", None) != _sha256(texts, weights):
        raise CheckpointError(f"{path}: damaged: its content does not have its checksum; export it again")
    try:
        config, classes = json.loads(texts["config"]), json.loads(texts["classes"])
        if not isinstance(config, dict) or not isinstance(classes, dict):
            raise TypeError("config, classes: expected mappings")
        return ModelCheckpoint(rename_settings(config)[0], class_table_of(classes), weights, int(texts["epoch"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: an entry is missing or malformed ({shown(one_line(error))})") from error


def _sha256(texts: dict[str, str], weights: dict[str, Tensor]) -> str:
    # Each sorted by name: the file format does not keep their order.
    digest = hashlib.sha256(b"[2{%d" % len(texts))
    for name, text in sorted(texts.items()):
        digest.update(_with_length(name) + _with_length(text))
    digest.update(b"{%d" % len(weights))
    for name, tensor in sorted(weights.items()):
        digest.update(_with_length(name) + f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _with_length(text: str) -> bytes:
    content = repr(text).encode("utf-8", "surrogatepass")
    return b"=%d:%b" % (len(content), content)
