"""Whether a run can go on from a checkpoint with the settings of today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detseg.checkpoint import ENTRY, epochs_ended
from detseg.config.load import config_from_dict, config_to_dict
from detseg.errors import CheckpointError, ConfigError
from detseg.structures import ClassTable

_KEPT = (
    *(("model", key) for key in ("name", "backbone", "neck", "head", "loss", "binary", "auxiliary_weight")),
    *(("model", key) for key in ("stride", "strides", "output_stride", "upsampling")),
    *(("model", key) for key in ("head_channels", "decoder_channels")),
    *(("model", key) for key in ("variant", "weights", "proposals", "regions", "mask")),
    ("optimizer",),
    ("schedule",),
    ("trainer", "ema_decay"),
    ("trainer", "ema_warmup_steps"),
    ("trainer", "gradient_clip_norm"),
    ("trainer", "precision"),
    ("trainer", "on_nan"),
    ("evaluation",),
    ("trainer", "accumulate_grad_batches"),
    ("data", "image_size"),
    ("data", "augmentation"),
    ("seed",),
)
"""Settings that make the run what it is: a change would not fit the checkpoint's tensors, be overruled by them in
silence, or count steps in another unit than the schedule."""

_MASK_ENCODING = tuple(("data", key) for key in ("mask_values", "ignore_index", "mask_colors", "ignore_colors"))
"""What pictures of masks mean: a change teaches other labels under the same names.  Another layout (``data.name``) may
well write the same classes in another way, so these are compared within one."""


def check_resumable(
    checkpoint: Mapping[str, Any],
    classes: ClassTable,
    config: Mapping[str, Any],
    max_epochs: int | None,
    world_size: int = 1,
) -> None:
    """Refuse a checkpoint that this run cannot go on from.

    Args:
        checkpoint: a whole checkpoint of ours.
        classes: of the data.
        config: resolved settings as plain data; empty: not compared.
        max_epochs: where the run is to end; None: nowhere.
        world_size: number of processes now; 1 × 16 images may go on as 4 × 4.

    Raises:
        CheckpointError: other classes, other settings of what the checkpoint holds, or nothing left to train.
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
        then = _completed(then)
        changed = [
            line
            for path in _compared(then, config)
            for line in _changes(_at(then, path), _at(config, path), ".".join(path))
        ]
        changed += _other_global_batch(entry.get("world_size"), then, config, world_size)
        if changed:
            raise CheckpointError(
                f"the run cannot be resumed with other settings than it began with: {'; '.join(changed)}; set them as "
                f"they were, or start a new run"
            )
    reason = why_over(checkpoint, config, max_epochs)
    if reason is not None:
        raise CheckpointError(reason)


def why_over(checkpoint: Mapping[str, Any], config: Mapping[str, Any], max_epochs: int | None) -> str | None:
    """Why a run has nothing left to train, and what to do to go on; None: it has.

    Args:
        checkpoint: a whole checkpoint of ours.
        config: resolved settings of today as plain data.
        max_epochs: where the run is to end; None: nowhere.
    """
    done, entry = epochs_ended(checkpoint), checkpoint[ENTRY]
    if max_epochs is not None and done >= max_epochs:
        return (
            f"nothing is left to train: the checkpoint has {done} epochs and trainer.max_epochs is {max_epochs}; to go "
            f"on, raise it"
        )
    patience = ("trainer", "early_stopping_patience")
    if entry.get("over") and _at(config, patience) == _at(entry.get("config", {}), patience):
        return (
            f"nothing is left to train: early stopping ended the run after epoch {done}; to go on, raise "
            f"trainer.early_stopping_patience"
        )
    return None


def _other_global_batch(
    world_size_then: int | None, then: Mapping[str, Any], now: Mapping[str, Any], world_size: int
) -> list[str]:
    """What differs in the number of images that all processes see at a time, by which a run counts its batches."""
    size_then, size = _at(then, ("data", "batch_size")), _at(now, ("data", "batch_size"))
    if size_then is None or size is None:  # a task made in Python
        return []
    if world_size_then is None:  # an older checkpoint, which did not note it
        return [] if size_then == size else [f"data.batch_size was {size_then} and is {size}"]
    if size_then * world_size_then == size * world_size:
        return []
    return [
        f"data.batch_size was {size_then} in each of {world_size_then} processes and is {size} in each of {world_size}"
    ]


def _compared(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The settings that must be the same in both."""
    same_layout = _at(then, ("data", "name")) == _at(now, ("data", "name"))
    return (*_KEPT, *_MASK_ENCODING) if same_layout else _KEPT


def _completed(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of an older version with those that it did not know yet, at their defaults, which it went by."""
    try:
        return config_to_dict(config_from_dict(settings))
    except ConfigError:  # a task made in Python may carry a part of them
        return settings


def _at(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = config
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _changes(then: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            yield from _changes(then.get(key), now.get(key), f"{path}.{key}")
    elif then != now:
        yield f"{path} was {then} and is {now}"
