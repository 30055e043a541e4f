"""Checkpoints: their content (format) and two kinds of files (ckpt_file, safetensors_file); weights of other programs
(foreign_file)."""

from __future__ import annotations

from detseg.checkpoint.ckpt_file import read_model_checkpoint, read_raw_checkpoint, save_atomically
from detseg.checkpoint.foreign_file import read_tensors
from detseg.checkpoint.format import (
    BEST,
    ENTRY,
    FOLDER,
    LAST,
    PREVIOUS,
    ModelCheckpoint,
    epochs_ended,
    model_entry,
    run_checkpoint,
    run_dir_of,
)
from detseg.checkpoint.safetensors_file import write_weights

__all__ = [
    "BEST",
    "ENTRY",
    "FOLDER",
    "LAST",
    "PREVIOUS",
    "ModelCheckpoint",
    "epochs_ended",
    "model_entry",
    "read_model_checkpoint",
    "read_raw_checkpoint",
    "read_tensors",
    "run_checkpoint",
    "run_dir_of",
    "save_atomically",
    "write_weights",
]
