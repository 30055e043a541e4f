"""Whether a run can resume from a checkpoint with the settings, classes and data of today.

A resumed run may change the settings of ``MAY_CHANGE``. Any other that differs, a new one too, is refused: it would not
fit the checkpoint's tensors, be overruled by its state, or make another run of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from detseg.checkpoint import ENTRY, epochs_ended
from detseg.config.load import config_from_dict, config_to_dict
from detseg.data.datasets.fingerprint import Fingerprint
from detseg.errors import CheckpointError, ConfigError
from detseg.messages import quoted
from detseg.structures import ClassTable

logger = logging.getLogger("detseg")

MAY_CHANGE = frozenset(
    {
        "run_dir",
        *(f"model.{key}" for key in ("score_threshold", "nms_iou", "max_detections")),
        # Where the data is; what it is, classes and fingerprints tell.
        *(f"data.{key}" for key in ("root", "years", "download", "classes", "train_split", "val_split", "test_split")),
        *(f"data.{split}_{what}" for split in ("train", "val", "test") for what in ("images", "annotations", "masks")),
        *(f"data.{key}" for key in ("num_workers", "on_bad_sample", "max_bad_fraction", "on_change")),
        "data.batch_size",  # if the images of all processes stay as many
        *(f"trainer.{key}" for key in ("max_epochs", "max_time", "save_every_steps", "validate_every", "num_previews")),
        *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm")),
        *(f"trainer.{key}" for key in ("precision", "compile", "gradient_clip_norm", "on_nan", "max_nan_steps")),
        *(f"trainer.{key}" for key in ("early_stopping_patience", "fast_dev_run")),
    }
)
"""Settings that a resumed run may change: they count, and the state is restored."""


def check_resumable(
    checkpoint: Mapping[str, Any],
    classes: ClassTable,
    config: Mapping[str, Any],
    max_epochs: int | None,
    world_size: int = 1,
) -> None:
    """Refuse a checkpoint that this run cannot resume from.

    Args:
        checkpoint: a whole checkpoint of ours.
        classes: of the data.
        config: resolved settings as plain data; empty: not compared.
        max_epochs: where the run is to end; None: nowhere.
        world_size: number of processes now; 1 × 16 images may resume as 4 × 4.

    Raises:
        CheckpointError: other classes, other settings than may change, or nothing left to train.
    """
    entry = checkpoint.get(ENTRY, {})
    names = tuple(entry.get("classes", {}).get("names", ()))
    if names != classes.names:
        raise CheckpointError(
            f"the checkpoint's classes are {list(names)}, the data's are {list(classes.names)}; resume with the data "
            f"that the run began with, or start a new run"
        )
    then = entry.get("config", {})
    if then and config:
        changed = list(_changes(_completed(then), config))
        changed += _other_global_batch(then, config, entry.get("world_size", 1), world_size)
        if changed:
            raise CheckpointError(
                f"the run cannot be resumed with other settings than it began with: {'; '.join(changed)}; set them as "
                f"they were, or start a new run"
            )
    reason = why_over(checkpoint, config, max_epochs)
    if reason is not None:
        raise CheckpointError(reason)


def why_over(checkpoint: Mapping[str, Any], config: Mapping[str, Any], max_epochs: int | None) -> str | None:
    """Why a run has nothing left to train, and what to raise to resume it; None: it has. Arguments: as above."""
    done, entry = epochs_ended(checkpoint), checkpoint[ENTRY]
    over = f"nothing is left to train: the checkpoint has {done} epochs and trainer.max_epochs is {max_epochs}"
    if max_epochs is not None and done >= max_epochs:
        return f"{over}; raise it to resume"
    then, now = (_at(settings, "trainer", "early_stopping_patience") for settings in (entry.get("config", {}), config))
    if entry.get("over") and now is not None and (then is None or now <= then):
        return (
            f"nothing is left to train: early stopping ended the run after epoch {done}; raise "
            f"trainer.early_stopping_patience to resume"
        )
    return None


@dataclass(frozen=True)
class DataGuard:
    """Compares the data of today with that of a checkpoint.

    Attributes:
        fingerprints: of each data set by its name, ``train`` and ``val``; kept in every checkpoint.
        on_change: what happens when they differ.
    """

    fingerprints: dict[str, Fingerprint]
    on_change: Literal["error", "warn"]

    def check(self, then: Mapping[str, Mapping[str, object]] | None) -> None:
        """Compare with the fingerprints that the checkpoint holds; None: it is of a version that kept none.

        Raises:
            CheckpointError: the data is another, and that is an error.
        """
        now, then = self.fingerprints, then or {}
        if any(then[name].get("version") != now[name]["version"] for name in now if name in then):
            logger.warning(
                "the data was not compared with that of the run's start: another version of detseg wrote it down"
            )
            return
        changes = [line for name in now for line in _data_changes(name, then.get(name, {}), now[name])]
        if not changes:
            return
        message = f"the data is not what the run began with: {'; '.join(changes)}"
        if self.on_change == "error":
            raise CheckpointError(f"{message}; bring the data back, or resume with what it is now: data.on_change=warn")
        logger.warning(f"{message}; the run resumes with what it is now (data.on_change=warn)")


def _changes(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """The settings below ``path`` that differ and must not; of another kind of section (``name``), that alone."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        if then != now and path not in MAY_CHANGE:
            yield f"{path} was {quoted(then)} and is {quoted(now)}"
        return
    for key in ["name"] if then.get("name") != now.get("name") else {**then, **now}:
        yield from _changes(then.get(key), now.get(key), f"{path}.{key}".lstrip("."))


def _other_global_batch(
    then: Mapping[str, Any], now: Mapping[str, Any], world_size_then: int, world_size: int
) -> list[str]:
    """What differs in the number of images that all processes see at a time, by which a run counts its batches."""
    size_then, size = _at(then, "data", "batch_size"), _at(now, "data", "batch_size")
    if size_then is None or size is None or size_then * world_size_then == size * world_size:
        return []
    was = f"data.batch_size was {size_then} in each of {world_size_then} processes"
    return [f"{was} and is {size} in each of {world_size}"]


def _completed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of an older version with those that it did not know yet, at their defaults, which it went by."""
    try:
        return config_to_dict(config_from_dict(settings))
    except ConfigError:  # a task made in Python may carry a part of them
        return settings


def _at(settings: Mapping[str, Any], section: str, key: str) -> Any:
    return settings.get(section, {}).get(key)


def _data_changes(name: str, then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """What differs between two fingerprints of the same version; nothing where ``then`` is empty."""
    if then.get("images", now["images"]) != now["images"]:
        yield f"{name}: {then['images']} images, now {now['images']}"  # so that all digests differ as well
        return
    what = {
        "names": "the names of the images, or their order, changed",
        "annotations": "the annotations changed",
        "files": "the image files changed (sizes)",
        "masks": "the mask files changed (sizes)",
        "pipeline": "the pipeline of data.augmentation.albumentations changed",
    }
    for key, line in what.items():
        if then.get(key, now[key]) != now[key]:
            yield f"{name}: {line}"
