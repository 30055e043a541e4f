"""What a checkpoint holds, and the names of its files.

A ``.ckpt`` file is a checkpoint of Lightning with one more entry, ``detseg``: format version, resolved settings, class
table, and the position of the run. A ``.safetensors`` file has the weights, settings and classes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detseg.structures import ClassTable

ENTRY = "detseg"
FORMAT = 1
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
FOLDER = "checkpoints"  # folder of a run directory that holds its checkpoints
WEIGHTS_SUFFIX = ".safetensors"
EXPORT_SUFFIXES = (".onnx", ".xml", ".pt2")


@dataclass(frozen=True)
class ModelCheckpoint:
    """What a predictor needs of a checkpoint."""

    config: dict[str, Any]  # the resolved settings as plain data
    classes: ClassTable  # the class table that the model was trained with
    weights: dict[str, Tensor]  # the model's state; the averaged weights if the run kept an average
    epoch: int  # number of epochs that the model was trained for


def model_entry(config: dict[str, Any], classes: ClassTable) -> dict[str, Any]:
    """The entry that turns a Lightning checkpoint into one of ours, as plain data."""
    return {"format": FORMAT, "config": config, "classes": class_entry(classes)}


def class_entry(classes: ClassTable) -> dict[str, Any]:
    """A class table as plain data."""
    return {"names": list(classes.names), "source_ids": list(classes.source_ids)}


def class_table_of(entry: Mapping[str, Any]) -> ClassTable:
    """The class table that ``class_entry`` wrote. KeyError, TypeError, ValueError: it is none."""
    names, source_ids = tuple(entry["names"]), tuple(entry["source_ids"])
    if not names or any(type(name) is not str for name in names) or any(type(i) is not int for i in source_ids):
        raise TypeError("classes: expected names and whole numbers")
    return ClassTable(names, source_ids)


def epochs_ended(checkpoint: Mapping[str, Any]) -> int:
    """Number of complete epochs that the run of a checkpoint was trained for."""
    place = checkpoint[ENTRY].get("place")  # those of older versions are from the end of an epoch
    return int(checkpoint["epoch"]) + 1 if place is None else int(place["epoch"])


def run_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run directory; any other path is a checkpoint itself."""
    return run / FOLDER / BEST if (run / FOLDER).is_dir() else run


def run_dir_of(checkpoint: Path) -> Path:
    """The run directory of a checkpoint; the checkpoint's own folder if it was taken out of its run."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == FOLDER else folder
