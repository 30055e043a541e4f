"""The composition root: settings → data, task, callbacks, Trainer."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from detseg.checkpoint import FOLDER, LAST
from detseg.config.data import AugmentationConfig
from detseg.config.load import config_to_dict, config_to_yaml
from detseg.config.model import AnchorHeadConfig
from detseg.config.schema import ExperimentConfig
from detseg.data.dataset import DetectionDataset
from detseg.data.small_boxes import small_boxes_line
from detseg.data.splits import open_split
from detseg.errors import ConfigError, one_line
from detseg.factory import build_detector, head_strides
from detseg.models.yolo.anchors import fit_anchors, mean_best_iou
from detseg.ops.letterbox import Letterbox
from detseg.structures import ClassTable
from detseg.training.checkpoints import AtomicCheckpointIO, BestAndLast
from detseg.training.datamodule import DetectionDataModule
from detseg.training.epoch_table import EpochTable
from detseg.training.lightning_noise import quiet_lightning
from detseg.training.pictures import SamplePictures
from detseg.training.precision import resolve_precision
from detseg.training.progress import ValidateLastEpoch, progress_callbacks
from detseg.training.run_directory import ResolvedConfig, claim, new_run, resumed_run
from detseg.training.task import DetectionTask


def train(config: ExperimentConfig, config_path: Path, resume: str | None = None) -> Path:
    """Train what ``config`` describes.

    Args:
        config: the settings.
        config_path: the file that they came from; names the run directory where the settings do not.
        resume: None: a new run. ``last``: go on at the last checkpoint of the run directory. Else: a checkpoint file.

    Returns:
        The run directory: ``config.yaml``, ``checkpoints/``, ``metrics.csv``, ``metrics.json``, ``tensorboard/``,
        ``pictures/``.

    Raises:
        DetsegError: something in the settings, the data or the checkpoint is wrong.
    """
    console = Console(quiet=not _is_first_process(), markup=False)
    run_dir, checkpoint = _run_directory(config, config_path, resume)
    if config.seed >= 2**32:
        raise ConfigError(f"seed: expected a whole number below 2**32, which is what numpy takes, got {config.seed}")
    L.seed_everything(config.seed, verbose=False)
    train_set, val_set = _open_data(config, console)
    config = _with_anchors(config, train_set, console)
    task = _build_task(config, train_set.classes, console, load_pretrained=checkpoint is None)
    data = _build_data(config, train_set, val_set)
    trainer = build_trainer(config, run_dir, console)
    if checkpoint is None and trainer.is_global_zero and not config.trainer.fast_dev_run:
        claim(run_dir)
    try:
        _fit(trainer, task, data, checkpoint)
    except KeyboardInterrupt:
        if (run_dir / FOLDER / LAST).is_file() and not config.trainer.fast_dev_run:
            console.print(
                f"stopped; the finished epochs are in {run_dir}: go on with --resume", highlight=False, soft_wrap=True
            )
        raise
    if trainer.is_global_zero:
        _conclude(trainer, task, None if config.trainer.fast_dev_run else run_dir, console)
    return run_dir


def _build_task(
    config: ExperimentConfig, classes: ClassTable, console: Console, load_pretrained: bool
) -> DetectionTask:
    model = build_detector(config.model, len(classes), load_pretrained)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"model: {config.model.backbone.name}, {num_parameters / 1e6:.2f} M parameters", highlight=False)
    task = DetectionTask(
        model,
        classes,
        config.optimizer,
        config.schedule,
        config.evaluation,
        config.trainer.ema_decay,
        config.trainer.ema_warmup_steps,
        config_to_dict(config),
    )
    if config.trainer.compile:
        task.model.compile()
    return task


def _build_data(
    config: ExperimentConfig, train_set: DetectionDataset, val_set: DetectionDataset
) -> DetectionDataModule:
    augmentation = config.data.augmentation
    return DetectionDataModule(
        train_set,
        val_set,
        input_hw=config.data.input_hw,
        batch_size=config.data.batch_size,
        augmentation=_no_augmentation(augmentation) if config.trainer.overfit_batches else augmentation,
        num_workers=config.data.num_workers,
        max_epochs=config.trainer.max_epochs,
        seed=config.seed,
    )


def build_trainer(config: ExperimentConfig, run_dir: Path, console: Console) -> L.Trainer:
    """Lightning's Trainer with our callbacks, loggers and checkpoint files."""
    settings = config.trainer
    quiet_lightning()
    accelerator = settings.accelerator
    device_type = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(accelerator, accelerator)
    precision = resolve_precision(settings.precision, device_type)
    on_cpu = device_type == "cpu"
    callbacks: list[Callback] = [*progress_callbacks(console), ValidateLastEpoch()]
    if not settings.fast_dev_run:
        callbacks += [
            ResolvedConfig(run_dir / "config.yaml", config_to_yaml(config)),
            EpochTable(run_dir / "metrics.csv"),
            BestAndLast(run_dir / FOLDER),
        ]
        if settings.num_pictures:
            callbacks.append(SamplePictures(run_dir / "pictures", settings.num_pictures))
    if settings.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping("val/AP", patience=settings.early_stopping_patience, mode="max", check_finite=False)
        )
    try:
        return L.Trainer(
            accelerator="cpu" if on_cpu else accelerator,
            # Lightning's "auto" on a CPU is one process as well; saying so keeps its warning away.
            devices=1 if on_cpu and settings.devices == "auto" else settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=settings.accumulate_batches,
            gradient_clip_val=settings.gradient_clip_norm or None,
            check_val_every_n_epoch=settings.validate_every,
            fast_dev_run=settings.fast_dev_run,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            use_distributed_sampler=False,  # our batch sampler shares out the samples itself
            callbacks=callbacks,
            logger=TensorBoardLogger(run_dir, name="", version="tensorboard"),
            plugins=[AtomicCheckpointIO()],
            enable_model_summary=False,
            enable_progress_bar=console.is_terminal,
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"trainer: Lightning refuses accelerator={accelerator}, devices={settings.devices}, "
            f"num_nodes={settings.num_nodes}, strategy={settings.strategy}: {one_line(error)}"
        ) from error


def _fit(trainer: L.Trainer, task: DetectionTask, data: DetectionDataModule, checkpoint: Path | None) -> None:
    """Train; an interruption comes out as the KeyboardInterrupt that it was, a termination with its exit code.

    Lightning turns the first into ``SystemExit(1)`` and leaves Ctrl-C disabled, the second into ``SystemExit(0)``.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint))
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


def _is_first_process() -> bool:
    """Whether this is the only process, or the one of several that writes and speaks; known from the environment."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _conclude(trainer: L.Trainer, task: DetectionTask, run_dir: Path | None, console: Console) -> None:
    """Say how the run ended, and leave the numbers of its last validation in its folder, if it has one."""
    stopper = trainer.early_stopping_callback
    if stopper is not None and stopper.wait_count >= stopper.patience:
        best = float(stopper.best_score)
        reason = f"no better AP than {best:.3f}" if math.isfinite(best) else "no AP, as there is nothing to find,"
        console.print(
            f"stopped after epoch {stopper.stopped_epoch + 1}: {reason} in {stopper.patience} validations",
            highlight=False,
        )
    if task.result is not None:
        for line in task.result.explain():
            console.print(line, highlight=False, soft_wrap=True)
    if run_dir is None:
        console.print("fast_dev_run: one batch of training and one of validation went through; nothing was written")
        return
    if task.result is not None:
        (run_dir / "metrics.json").write_text(json.dumps(task.result.to_dict(), indent=2), encoding="utf-8")
    console.print(f"checkpoints, metrics and pictures: {run_dir}", highlight=False, soft_wrap=True)


def _run_directory(config: ExperimentConfig, config_path: Path, resume: str | None) -> tuple[Path, Path | None]:
    """The folder to write to and the checkpoint to go on from."""
    if resume is not None:
        return resumed_run(config.run_dir, config_path, resume)
    if config.run_dir is not None and (config.trainer.fast_dev_run or not _is_first_process()):
        return config.run_dir, None  # nothing is written, or by the first process, which may have begun
    return new_run(config.run_dir, config_path), None


def _open_data(config: ExperimentConfig, console: Console) -> tuple[DetectionDataset, DetectionDataset]:
    """The training and the validation set; what is odd about them is said once."""
    train_set = open_split(config.data, "train")
    for line in train_set.report.lines():
        console.print(f"{train_set.name}: {line}", highlight=False, soft_wrap=True)
    overfit = config.trainer.overfit_batches
    if overfit:
        train_set = train_set.subset(range(min(overfit * config.data.batch_size, len(train_set))))
        val_set = train_set
    else:
        val_set = open_split(config.data, "val", train_set.classes)
        for line in val_set.report.lines():
            console.print(f"{val_set.name}: {line}", highlight=False, soft_wrap=True)
    if too_small := small_boxes_line(train_set, config.data.input_hw, config.data.augmentation.min_box_size):
        console.print(f"{train_set.name}: {too_small}", highlight=False, soft_wrap=True)
    console.print(
        f"data: {len(train_set)} training and {len(val_set)} validation images, {len(train_set.classes)} classes",
        highlight=False,
    )
    return train_set, val_set


def _no_augmentation(config: AugmentationConfig) -> AugmentationConfig:
    """Letterbox only; the rule that drops unusable boxes stays."""
    return AugmentationConfig(
        horizontal_flip=0.0, min_visibility=config.min_visibility, min_box_size=config.min_box_size
    )


def _with_anchors(config: ExperimentConfig, train_set: DetectionDataset, console: Console) -> ExperimentConfig:
    """The settings with anchors fitted to the training boxes, where the head wants anchors and has none."""
    head = config.model.head
    if not isinstance(head, AnchorHeadConfig) or head.anchors is not None:
        return config
    sizes = _box_sizes(train_set, config.data.input_hw)
    num_anchors = head.anchors_per_level * len(head_strides(head))
    anchors = fit_anchors(sizes, num_anchors, config.seed)
    console.print(
        f"anchors: {num_anchors} fitted to {len(sizes)} boxes, mean best IoU {mean_best_iou(sizes, anchors):.3f}",
        highlight=False,
    )
    fitted = head.model_copy(update={"anchors": tuple((round(float(w), 1), round(float(h), 1)) for w, h in anchors)})
    return config.model_copy(update={"model": config.model.model_copy(update={"head": fitted})})


def _box_sizes(dataset: DetectionDataset, input_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(T, 2) widths and heights, in input pixels, of the boxes that count."""
    sizes = [np.zeros((0, 2))]
    for index in range(len(dataset)):
        truth = dataset.annotations(index)
        boxes = truth.boxes[~truth.ignore]
        scale = Letterbox.fit(dataset.hw(index), input_hw).scale_xy
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * np.array(scale))
    together = np.concatenate(sizes)
    return together[(together > 0).all(axis=1)]
