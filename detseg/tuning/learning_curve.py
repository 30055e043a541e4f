"""Short trainings on fractions of the images, whose scores say whether more images would help."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import CustomModelConfig, ModelConfig
from detseg.config.schema.section import Section
from detseg.data.splits import part_sizes
from detseg.errors import ConfigError
from detseg.messages import counted, listed, messages_on_console
from detseg.metrics.learning_curve import LearningCurve, Point
from detseg.tasks import kind_of
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.setup.build import criterion_of
from detseg.tuning.objective import Goal, train_and_measure

logger = logging.getLogger("detseg")

AnySection = TypeVar("AnySection", bound=Section)

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
_PART = 2  # of the run's epochs: four trainings then take twice as long as the run
_NUM_VALIDATIONS = 5  # of each training


@dataclass(frozen=True)
class _Training:
    num_images: int
    seed: int
    config: ExperimentConfig


@messages_on_console()
def learning_curve(
    config: ExperimentConfig,
    folder: Path,
    *,
    epochs: int | None = None,
    num_seeds: int = 1,
    fractions: Sequence[float] = FRACTIONS,
    reached: float | None = None,
    stop: StopRequest | None = None,
) -> LearningCurve:
    """Train on fractions of the images, each time for as many optimiser steps, and measure by the best validation.

    What has ended already in the folder is not trained again, and what was stopped or killed is resumed.

    Args:
        config: of a run; its schedule, warm-up and augmentation are shortened in proportion.
        folder: gets a run directory for each training.
        epochs: of the training on all images, which decides the number of steps; None: half of the run's.
        num_seeds: trainings of each fraction, which also differ in the images that are chosen.
        fractions: of the training images that the run had.
        reached: the metric of the run itself, by which trainings that were too short are told; None: not known.
        stop: by which another thread may ask the running training to stop.

    Raises:
        DetsegError: the settings or the data are wrong, or a training failed.
        RunStoppedError: it was asked to stop; the same call resumes.
    """
    if isinstance(config.model, CustomModelConfig):
        raise ConfigError("a learning curve needs a model that settings describe, not a module of your own")
    epochs = max(1, config.trainer.max_epochs // _PART) if epochs is None else epochs
    stop, criterion = stop or StopRequest(), criterion_of(config)
    num_all = len(kind_of(config.model).open_dataset(_with(config.data, fraction=1.0), "train"))
    trainings = list(_trainings(config, folder, epochs, num_seeds, fractions, num_all))
    sizes = listed([str(number) for number in dict.fromkeys(training.num_images for training in trainings)])
    what = f"{counted(len(trainings), 'training')} on {sizes} images, each as long as {counted(epochs, 'epoch')} of all"
    relative = len(trainings) * epochs / config.trainer.max_epochs
    logger.info(f"learning curve: {what}; together {relative:.2g} times the training of the run; in {folder}")
    points = []
    for number, training in enumerate(trainings, 1):
        begin = time.monotonic()
        score = train_and_measure(training.config, Goal(criterion), lambda *_: False, stop)[criterion]
        points.append(Point(training.num_images, score, training.seed))
        took = f"{(time.monotonic() - begin) / 60:.1f} minutes"
        which = f"training {number} of {len(trainings)}, {training.num_images} images"
        logger.info(f"learning curve: {which}: {criterion} {score:.3f} ({took})")
    return LearningCurve(tuple(points), criterion, reached)


def _trainings(
    config: ExperimentConfig, folder: Path, epochs: int, num_seeds: int, fractions: Sequence[float], num_all: int
) -> Iterator[_Training]:
    data = config.data
    used = [fraction * data.fraction for fraction in fractions]
    sizes = [num_all if one == 1 else int(part_sizes(num_all, (one, 1 - one))[0]) for one in used]
    num_steps = epochs * _steps(config, max(sizes))
    for seed in range(num_seeds):
        for fraction, num_images in zip(used, sizes, strict=True):
            # Another `split_seed` would change which images `val_fraction` validates on.
            split_seed = data.split_seed + (seed if data.val_fraction is None else 0)
            own = max(1, round(num_steps / _steps(config, num_images)))
            short = _shortened(config, own)
            run_dir = folder / f"{num_images}_images_{num_steps}_steps_seed_{config.seed + seed}"
            short = _with(short, data=_with(short.data, fraction=fraction, split_seed=split_seed))
            short = _with(short, run_dir=run_dir, seed=config.seed + seed)
            yield _Training(num_images, short.seed, short)


def _steps(config: ExperimentConfig, num_images: int) -> int:
    """Optimiser steps of an epoch, in one process."""
    return math.ceil(math.ceil(num_images / config.data.num_images) / config.trainer.accumulate_grad_batches)


def _shortened(config: ExperimentConfig, epochs: int) -> ExperimentConfig:
    """The settings for another number of epochs: what is stated in epochs changes in proportion."""
    ratio = epochs / config.trainer.max_epochs
    trainer = _with(
        config.trainer,
        max_epochs=epochs,
        validate_every=max(1, epochs // _NUM_VALIDATIONS),
        devices=1,
        early_stopping_patience=None,
        early_stopping_min_delta=0.0,
        save_every_steps=None,
        max_time=None,
        overfit_batches=0,
        num_previews=0,
    )
    schedule, augmentation = config.schedule, config.data.augmentation
    if (warmup := getattr(schedule, "warmup_epochs", None)) is not None:
        schedule = _with(schedule, warmup_epochs=warmup * ratio)
    if isinstance(last := augmentation.no_mosaic_last_epochs, int):
        augmentation = _with(augmentation, no_mosaic_last_epochs=round(last * ratio))
    return _with(
        config,
        trainer=trainer,
        schedule=schedule,
        data=_with(config.data, augmentation=augmentation),
        model=_unfreezing(config.model, ratio),
        tracking=(),
    )


def _unfreezing(model: ModelConfig, ratio: float) -> ModelConfig:
    if isinstance(model, CustomModelConfig) or (begin := model.backbone.unfreeze_epoch) is None:
        return model
    every = model.backbone.unfreeze_every
    update = {"unfreeze_epoch": max(2, round(begin * ratio))}
    update |= {} if every is None else {"unfreeze_every": max(1, round(every * ratio))}
    return _with(model, backbone=_with(model.backbone, **update))


def _with(section: AnySection, **update: Any) -> AnySection:
    return section.model_copy(update=update)
