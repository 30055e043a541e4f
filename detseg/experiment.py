"""The composition root: settings → data, task, callbacks, Trainer."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from detseg.config.data import AugmentationConfig
from detseg.config.load import config_to_dict, config_to_yaml
from detseg.config.model import AnchorHeadConfig
from detseg.config.schema import ExperimentConfig
from detseg.data.dataset import DetectionDataset
from detseg.data.splits import open_split
from detseg.errors import CheckpointError, ConfigError
from detseg.factory import build_detector, head_strides
from detseg.models.yolo.anchors import fit_anchors, mean_best_iou
from detseg.ops.letterbox import Letterbox
from detseg.training.checkpoints import AtomicCheckpointIO, best_and_last
from detseg.training.datamodule import DetectionDataModule
from detseg.training.pictures import SamplePictures
from detseg.training.precision import resolve_precision
from detseg.training.progress import ValidateLastEpoch, progress_callbacks
from detseg.training.task import DetectionTask

CHECKPOINTS = "checkpoints"
"""Folder of a run directory that holds its checkpoints."""


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
    console = Console()
    run_dir, checkpoint = _run_directory(config, config_path, resume)
    L.seed_everything(config.seed, verbose=False)
    train_set, val_set = _open_data(config, console)
    config = _with_anchors(config, train_set, console)
    model = build_detector(config.model, len(train_set.classes))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"model: {config.model.backbone.name}, {num_parameters / 1e6:.2f} M parameters", highlight=False)

    trainer = build_trainer(config, run_dir, console)
    task = DetectionTask(
        model,
        train_set.classes,
        config.optimizer,
        config.schedule,
        config.evaluation,
        config.trainer.ema_decay,
        config.trainer.ema_warmup_steps,
        config_to_dict(config),
    )
    if config.trainer.compile:
        task.model.compile()
    overfitting = bool(config.trainer.overfit_batches)
    data = DetectionDataModule(
        train_set,
        val_set,
        input_hw=config.data.input_hw,
        batch_size=config.data.batch_size,
        augmentation=_no_augmentation(config.data.augmentation) if overfitting else config.data.augmentation,
        num_workers=config.data.num_workers,
        max_epochs=config.trainer.max_epochs,
        seed=config.seed,
    )
    if not config.trainer.fast_dev_run and trainer.is_global_zero:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    trainer.fit(task, data, ckpt_path=None if checkpoint is None else str(checkpoint))
    if task.result is not None and trainer.is_global_zero:
        for line in task.result.explain():
            console.print(line, highlight=False)
        if not config.trainer.fast_dev_run:
            (run_dir / "metrics.json").write_text(json.dumps(task.result.to_dict(), indent=2), encoding="utf-8")
    return run_dir


def build_trainer(config: ExperimentConfig, run_dir: Path, console: Console) -> L.Trainer:
    """Lightning's Trainer with our callbacks, loggers and checkpoint files."""
    settings = config.trainer
    _quiet_lightning()
    accelerator = settings.accelerator
    device_type = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(accelerator, accelerator)
    precision = resolve_precision(settings.precision, device_type)
    on_cpu = device_type == "cpu"
    callbacks: list[Callback] = [*progress_callbacks(console), ValidateLastEpoch()]
    if not settings.fast_dev_run:
        callbacks.append(best_and_last(run_dir / CHECKPOINTS))
        if settings.num_pictures:
            callbacks.append(SamplePictures(run_dir / "pictures", settings.num_pictures))
    if settings.early_stopping_patience is not None:
        callbacks.append(EarlyStopping("val/AP", patience=settings.early_stopping_patience, mode="max"))
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
        logger=[CSVLogger(run_dir, name="", version=""), TensorBoardLogger(run_dir, name="", version="tensorboard")],
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        enable_progress_bar=console.is_terminal,
        default_root_dir=run_dir,
    )


def _run_directory(config: ExperimentConfig, config_path: Path, resume: str | None) -> tuple[Path, Path | None]:
    """The folder to write to and the checkpoint to go on from."""
    if resume is not None and resume != "last":
        checkpoint = Path(resume)
        if not checkpoint.is_file():
            raise CheckpointError(f"{checkpoint}: no such checkpoint file")
        return config.run_dir or checkpoint.resolve().parent.parent, checkpoint
    wanted = config.run_dir or Path("runs") / config_path.stem
    if resume == "last":
        run_dir = wanted if config.run_dir else _latest(wanted)
        checkpoint = run_dir / CHECKPOINTS / "last.ckpt"
        if not checkpoint.is_file():
            raise CheckpointError(f"{checkpoint}: no such checkpoint to go on from; name one: --resume=CKPT")
        return run_dir, checkpoint
    if config.run_dir is None:
        return _free(wanted), None
    if (wanted / CHECKPOINTS).exists() and not config.trainer.fast_dev_run:
        raise ConfigError(f"run_dir: {wanted} holds a run already; choose another folder, or go on with --resume")
    return wanted, None


def _numbered(path: Path) -> list[Path]:
    """``path``, ``path-2``, ``path-3``, ... as far as they exist, oldest first."""
    found, candidate, number = [], path, 2
    while candidate.exists():
        found.append(candidate)
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return found


def _latest(path: Path) -> Path:
    return (_numbered(path) or [path])[-1]


def _free(path: Path) -> Path:
    taken = len(_numbered(path))
    return path if not taken else path.with_name(f"{path.name}-{taken + 1}")


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


def _quiet_lightning() -> None:
    """Keep what Lightning says of itself off the screen: tips, and advice on choices that we made on purpose."""
    os.environ.setdefault("PL_DISABLE_TIPS", "1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*number of training batches.*",
        ".*Checkpoint directory.*",
        ".*in eval mode at the start of training.*",  # the averaged model and frozen layers, on purpose
        ".*Experiment logs directory.*",
        ".*LeafSpec.*",  # Lightning against a newer torch
    ):
        warnings.filterwarnings("ignore", message)
