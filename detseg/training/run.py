"""One training from its settings to its last line."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from detseg.atomic_write import check_writable
from detseg.checkpoint import ENTRY, FOLDER, LAST, read_raw_checkpoint
from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import resolve_data
from detseg.data.loading.processes import WaitInterrupted, loader_errors
from detseg.errors import ConfigError, RunStoppedError
from detseg.messages import console, messages_on_console
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO
from detseg.training.callbacks.oom import training_memory_errors
from detseg.training.datamodule import ImageDataModule
from detseg.training.distributed import first_speaks
from detseg.training.resume import check_resumable, completed_settings, why_over
from detseg.training.seeding import seed_generators
from detseg.training.setup.announce import announce_run, conclude_run, transfer_hint
from detseg.training.setup.batch_size import gpu_of_run, with_batch_size
from detseg.training.setup.budget import check_budget, within_budget
from detseg.training.setup.build import Own, build_data, build_task, describe_model, guard_data, open_data
from detseg.training.setup.recipe import taken_from
from detseg.training.setup.run_directory import claimed, new_run, resumed_run, sound_checkpoint
from detseg.training.setup.trainer import build_trainer, interrupts_kept
from detseg.training.task import Task
from detseg.training.tracking.tracker import tracked

logger = logging.getLogger("detseg")


@messages_on_console()
def train(config: ExperimentConfig, config_path: Path, resume: str | None = None, own: Own | None = None) -> Path:
    """Train what ``config`` describes.

    Args:
        config: the settings.
        config_path: the file that they came from; names the run directory where the settings do not.
        resume: None: a new run. ``last``: resume the last checkpoint of the run directory; ``auto``: that, or begin
            where there is none. Else: a checkpoint file.
        own: what Python gives to it.

    Returns:
        The run directory; docs/training.md says what is in it.

    Raises:
        DetsegError: something in the settings, the data or the checkpoint is wrong.
        RunStoppedError: the run was asked to stop, and has saved itself.
    """
    console.quiet, own = not _is_first_process(), own or Own()
    check_budget(config)
    run_dir, checkpoint = _run_directory(config := resolve_data(config), config_path, resume)
    if checkpoint is not None:
        checkpoint = sound_checkpoint(checkpoint) if resume in ("last", "auto") else checkpoint
        config, over = _resumed(config, checkpoint)
        if over is not None and resume == "auto":  # a job that a cluster has started once more
            logger.info(over)
            return run_dir
    if config.seed >= 2**32:
        raise ConfigError(f"seed: expected a whole number below 2**32, which is what numpy takes, got {config.seed}")
    if config.data.batch_size == "auto" and checkpoint is None:
        gpu_of_run(config)  # an error before the data is read
    seed_generators(config.seed)
    config, train_set, val_set = open_data(config, own)
    config = with_batch_size(config, train_set, checkpoint)
    config = within_budget(config, train_set, val_set, own)
    task = build_task(config, train_set.classes, load_pretrained=checkpoint is None, model=own.model)
    task.data_guard = guard_data(config, train_set, val_set)
    data = build_data(config, train_set, val_set)
    trainer = build_trainer(config, run_dir, f"val/{task.criterion}", data.bad_samples, own=own)
    if checkpoint is not None:  # before anything is announced
        content = read_raw_checkpoint(checkpoint)
        check_resumable(content, task.classes, task.config, trainer.max_epochs, trainer.world_size)
        del content  # as large as the model
    hint = transfer_hint(config, len(train_set)) if checkpoint is None and own.model is None else None
    announce_run(config, trainer, train_set, val_set, describe_model(config, task.model), run_dir, hint)
    begins = checkpoint is None and trainer.is_global_zero and not config.trainer.fast_dev_run
    claim = claimed(run_dir, again=resume == "auto") if begins else nullcontext()
    try:
        with claim:
            _fit(config, trainer, task, data, checkpoint)
    except KeyboardInterrupt:
        if (run_dir / FOLDER / LAST).is_file() and not config.trainer.fast_dev_run:
            logger.info(f"stopped; what was saved last is in {run_dir}: {own.stop.how_to_resume}")
        raise
    for line in data.lines():
        logger.info(line)
    if trainer.is_global_zero:
        conclude_run(config, trainer, task, val_set, run_dir)
    return run_dir


def _fit(
    config: ExperimentConfig, trainer: L.Trainer, task: Task, data: ImageDataModule, checkpoint: Path | None
) -> None:
    """Train, and wait until the last checkpoint is on the disk."""
    files = cast(AtomicCheckpointIO, trainer.strategy.checkpoint_io)
    try:
        with (
            loader_errors(),
            training_memory_errors(trainer, config),
            first_speaks(trainer.global_rank, trainer.world_size),
            tracked(trainer),
            interrupts_kept(trainer),
        ):
            trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint))
            files.flush()
    except WaitInterrupted as interrupted:
        raise RunStoppedError(str(interrupted)) from None
    finally:
        files.close()


def _resumed(config: ExperimentConfig, checkpoint: Path) -> tuple[ExperimentConfig, str | None]:
    """The settings with what the run had chosen, and why nothing is left to train."""
    content = read_raw_checkpoint(checkpoint)
    config = taken_from(config, completed_settings(content[ENTRY].get("config") or {}))
    return config, why_over(content, config_to_dict(config), config.trainer.max_epochs)


def _is_first_process() -> bool:
    return int(getattr(rank_zero_only, "rank", 0)) == 0  # known from the environment


def _run_directory(config: ExperimentConfig, config_path: Path, resume: str | None) -> tuple[Path, Path | None]:
    if resume is not None:
        found = resumed_run(config.run_dir, config_path, resume)
    elif config.run_dir is not None and (config.trainer.fast_dev_run or not _is_first_process()):
        return config.run_dir, None  # nothing is written, or by the first process, which may have begun
    else:
        found = new_run(config.run_dir, config_path), None
    check_writable(found[0], "run_dir")
    return found
