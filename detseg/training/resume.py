"""How a run resumes: where it stands besides its tensors (``RunState``), and with which settings, classes and data it
may (``check_resumable``, ``DataGuard``).

Lightning's own resuming in the middle of an epoch leaves out hooks, and the validation of an epoch that had all its
batches. Here a resumed run begins the epoch again, as far as Lightning knows: the checkpoint has the state of the loops
at the epoch's beginning, and for batches that are done the loader yields None, which makes no step (``TrainLoader``).

A resumed run may change the settings of ``MAY_CHANGE``. Any other that differs, a new one too, is refused: it would not
fit the checkpoint's tensors, be overruled by its state, or make another run of it.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from detseg.checkpoint import ENTRY, epochs_ended
from detseg.config.load import config_from_dict, config_to_dict, differences
from detseg.data.datasets.fingerprint import Fingerprint
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import CheckpointError, ConfigError
from detseg.messages import counted
from detseg.structures import ClassTable
from detseg.training.distributed import Processes
from detseg.training.nan import StepGuard
from detseg.training.optim.averages import BatchNormWarmup
from detseg.training.seeding import random_state, restore_random_state

logger = logging.getLogger("detseg")

HOW_TO_RESUME = 'resume with --resume (in Python: resume="last")'

_OPTIMIZER_STEPS = "epoch_loop.automatic_optimization.optim_progress"
"""Lightning's key of the steps in the state of its loops; ``tests/test_kills.py`` fails where it changes."""


class LossMeans:
    """Means of loss terms over the images of an epoch, of which a resumed run keeps the first part (Lightning's own
    would begin at zero); the sums stay on the device, so that no step waits for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums: dict[str, Tensor] = {}
        self._num_images = 0

    def add(self, terms: Mapping[str, Tensor], num_images: int) -> None:
        """Add the terms of a batch, each a mean over its images."""
        self._num_images += num_images
        for name, value in terms.items():
            value = value.detach()
            value = value.double() if value.device.type != "mps" else value
            self._sums[name] = self._sums.get(name, 0) + value * num_images

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over the images of all processes; empty where there were none."""
        parts = self.state(processes)  # of a process without a batch it has no terms
        num_images = sum(part["images"] for part in parts)
        means = {
            name: np.array(sum(part["sums"].get(name, 0.0) for part in parts) / num_images)
            for name in sorted({name for part in parts for name in part["sums"]})
        }
        return {name: float(value) for name, value in processes.from_first(means).items()}

    def state(self, processes: Processes) -> list[dict[str, Any]]:
        """The sums of each process as plain data, in the first process; elsewhere empty."""
        own = {name: np.array(float(value)) for name, value in self._sums.items()}
        parts = processes.gather({**own, "": np.array(self._num_images)})
        return [{"images": int(part.pop("")), "sums": {k: float(v) for k, v in part.items()}} for part in parts]

    def load(self, state: Sequence[Mapping[str, Any]], rank: int, world_size: int) -> None:
        """Resume from a ``state``; with another number of processes, the first one takes all of it."""
        self.reset()
        for part in state[rank : rank + 1] if len(state) == world_size else (state if rank == 0 else []):
            terms = {name: torch.tensor(value, dtype=torch.float64) for name, value in part["sums"].items()}
            self.add(terms, 1)
            self._num_images += int(part["images"]) - 1


class RunState:
    """Place in the epoch, sums of the losses, rates, skipped steps, batch norm in its warm-up, random generators.

    Attributes:
        learning_rates: of the last step, by name, the first first; empty before the first step.
        train_means: losses of the present epoch.
        resumed_at: epochs that had ended, and batches of the next one that were done, where the run resumes.
    """

    def __init__(self, warmup: BatchNormWarmup, guard: StepGuard) -> None:
        self._warmup, self._guard = warmup, guard
        self.train_means = LossMeans()
        self.learning_rates = dict[str, float]()
        self.resumed_at: Mapping[str, int] = {"epoch": 0, "batch": 0}
        self._resumed_means: list[dict[str, Any]] | None = None
        self._loops_at_epoch_start: dict[str, Any] | None = None

    def begin_training(self, trainer: L.Trainer) -> None:
        """Have the loader begin where the run stood; CheckpointError: in the middle of an epoch, and it is none of
        ours."""
        sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, EpochBatchSampler):
            sampler.begin_at(self.resumed_at["epoch"], self.resumed_at["batch"])
        elif self.resumed_at["batch"]:
            raise CheckpointError(
                "the checkpoint is from the middle of an epoch, where only a loader of train_loader can resume; take "
                "one from the end of an epoch"
            )

    def begin_epoch(self, trainer: L.Trainer, processes: Processes) -> None:
        """Begin the means at zero, or where they were in the middle of a resumed epoch."""
        loops = copy.deepcopy(trainer.fit_loop.state_dict())
        for counts in loops["epoch_progress"].values():
            counts.update(dict.fromkeys(counts, trainer.current_epoch))
        self._loops_at_epoch_start = loops
        self.train_means.reset()
        if self._resumed_means is not None:
            self.train_means.load(self._resumed_means, processes.rank, processes.world_size)
            self._resumed_means = None

    def save(self, trainer: L.Trainer, processes: Processes, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Bring a checkpoint of Lightning's to the beginning of its epoch; all processes must call it.

        Returns:
            Plain data and tensors for the ``detseg`` entry.
        """
        # ``current_epoch`` counts an epoch only after the hooks in which checkpoints are saved.
        epochs = trainer.fit_loop.epoch_progress.state_dict()["current"]
        is_between = epochs["processed"] == epochs["ready"]
        if not is_between and self._loops_at_epoch_start is not None:
            loops = copy.deepcopy(self._loops_at_epoch_start)
            loops[_OPTIMIZER_STEPS] = checkpoint["loops"]["fit_loop"][_OPTIMIZER_STEPS]
            checkpoint["loops"]["fit_loop"] = loops
        return {
            "place": {"epoch": epochs["processed"], "batch": 0 if is_between else trainer.fit_loop.batch_idx + 1},
            "over": bool(trainer.should_stop),  # early stopping has ended the run
            "world_size": trainer.world_size,
            "means": self.train_means.state(processes),
            "learning_rates": self.learning_rates,
            "fresh_norms": self._warmup.names,
            "skipped_steps": self._guard.num_skipped,
            "random": random_state(),
        }

    def load(self, entry: Mapping[str, Any]) -> None:
        """Take up what ``save`` returned."""
        if "place" not in entry:  # a checkpoint of an older version, from the end of an epoch
            return
        self.resumed_at = entry["place"]
        self._resumed_means = entry["means"] if self.resumed_at["batch"] else None
        self.learning_rates = dict(entry.get("learning_rates", {}))
        self._warmup.keep(entry["fresh_norms"])
        self._guard.num_skipped = int(entry.get("skipped_steps", 0))
        restore_random_state(entry["random"])


MAY_CHANGE = frozenset(
    {
        *("run_dir", "tracking", "tags"),
        *(f"model.{key}" for key in ("score_threshold", "nms_iou", "max_detections")),
        # Where the data is; what it is, classes and fingerprints tell.
        *(f"data.{key}" for key in ("root", "years", "download", "classes", "train_split", "val_split", "test_split")),
        *(f"data.{split}_{what}" for split in ("train", "val", "test") for what in ("images", "annotations", "masks")),
        *(f"data.{key}" for key in ("num_workers", "loader_timeout", "on_bad_sample", "max_bad_fraction", "on_change")),
        "data.batch_size",  # if the images of all processes stay as many
        *(f"trainer.{key}" for key in ("max_epochs", "max_time", "save_every_steps", "validate_every", "num_previews")),
        *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "sync_batchnorm")),
        *(f"trainer.{key}" for key in ("precision", "compile", "gradient_clip_norm", "on_nan", "max_nan_steps")),
        *(f"trainer.{key}" for key in ("early_stopping_patience", "early_stopping_min_delta", "fast_dev_run")),
        *(f"trainer.{key}" for key in ("log_every_n_steps", "diagnostics", "table")),
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
            f"that the run began with, or {_how_to_begin_anew(config)}"
        )
    then = entry.get("config", {})
    if then and config:
        changed = list(differences(completed_settings(then), config, MAY_CHANGE))
        size, size_then = (settings.get("data", {}).get("batch_size") for settings in (config, then))
        processes = entry.get("world_size", 1)
        if size is not None and size_then is not None and size * world_size != size_then * processes:
            was = f"data.batch_size was {size_then} in each of {processes} processes"
            changed.append(f"{was} and is {size} in each of {world_size}")
        if changed:
            raise CheckpointError(
                f"the run cannot be resumed with other settings than it began with: {'; '.join(changed)}; set them as "
                f"they were, or {_how_to_begin_anew(config)}"
            )
    reason = why_over(checkpoint, config, max_epochs)
    if reason is not None:
        raise CheckpointError(reason)


def why_over(checkpoint: Mapping[str, Any], config: Mapping[str, Any], max_epochs: int | None) -> str | None:
    """Why a run has nothing left to train, and what to raise to resume it; None: it has."""
    done, entry = epochs_ended(checkpoint), checkpoint[ENTRY]
    if max_epochs is not None and done >= max_epochs:
        has = f"the checkpoint has {counted(done, 'epoch')} and trainer.max_epochs is {max_epochs}"
        return f"nothing is left to train: {has}; raise it to resume"
    then, now = (settings.get("trainer", {}) for settings in (entry.get("config", {}), config))
    patience, patience_then = (trainer.get("early_stopping_patience") for trainer in (now, then))
    delta, delta_then = (trainer.get("early_stopping_min_delta", 0.0) for trainer in (now, then))
    is_milder = patience is None or (patience_then is not None and patience > patience_then) or delta < delta_then
    if entry.get("over") and not is_milder:
        return (
            f"nothing is left to train: early stopping ended the run after epoch {done}; raise "
            f"trainer.early_stopping_patience, or lower trainer.early_stopping_min_delta, to resume"
        )
    return None


def _how_to_begin_anew(config: Mapping[str, Any]) -> str:
    model, data = config.get("model", {}), config.get("data", {})
    if model.get("name") == "custom":
        return "start a new run of a module that has loaded its weights (docs/training.md, Checkpoints)"
    backbone = model.get("backbone", {})
    others = {"pretrained": "false", "weights": "null"}  # a model begins with one kind of weights
    unset = "".join(f" model.backbone.{key}={off}" for key, off in others.items() if backbone.get(key))
    advice = f"start a new run from its weights: model.weights=CHECKPOINT{unset}"
    if data.get("name") == "custom":
        advice += ", or detseg.build_model(..., weights=CHECKPOINT) of a model built in Python"
    return advice


@dataclass(frozen=True)
class DataGuard:
    """Compares the data of today with that of a checkpoint: fingerprints of the sets by name, ``train`` and ``val``."""

    fingerprints: dict[str, Fingerprint]
    on_change: Literal["error", "warn"]

    def check(self, then: Mapping[str, Mapping[str, object]] | None) -> None:
        """Compare with the fingerprints that the checkpoint holds (CheckpointError: the data is another, and that is an
        error); None: it is of a version that kept none."""
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


def completed_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of an older version with those that it did not know yet, at their defaults."""
    try:
        return config_to_dict(config_from_dict(settings))
    except ConfigError:  # a task made in Python may carry a part of them
        return settings


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
