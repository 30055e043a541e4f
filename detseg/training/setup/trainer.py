"""Lightning's Trainer, set up as the settings say."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from detseg.checkpoint import FOLDER
from detseg.config.load import config_to_yaml
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.errors import ConfigError
from detseg.messages import one_line
from detseg.training.callbacks.bad_samples import KeepBadSamples
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast
from detseg.training.callbacks.graceful_stop import StopWhenAsked
from detseg.training.callbacks.metrics_files import EpochTable, LastNumbers
from detseg.training.callbacks.progress import RunProgress, ValidateLastEpoch
from detseg.training.callbacks.sample_images import SamplePictures
from detseg.training.distributed.strategy import build_strategy, check_device, slurm_environment
from detseg.training.setup.lightning_noise import quiet_lightning
from detseg.training.setup.precision import resolve_precision
from detseg.training.setup.run_directory import ResolvedConfig


def build_trainer(
    config: ExperimentConfig,
    run_dir: Path,
    metric: str,
    bad_samples: BadSampleList | None = None,
    backbone: nn.Module | None = None,
    *,
    progress: bool = True,
) -> L.Trainer:
    """Lightning's Trainer with our callbacks, loggers and checkpoint files.

    Args:
        config: the settings.
        run_dir: where everything is written.
        metric: name of the logged metric that the best checkpoint and early stopping go by; higher is better.
        bad_samples: the list of the training loader, which is kept in the run directory; None: nothing is skipped.
        backbone: of the model; its stages are sharded by ``trainer.strategy=fsdp``.
        progress: whether the run says how far it is.

    Raises:
        ConfigError: Lightning or the device refuses the settings.
    """
    settings = config.trainer
    quiet_lightning()
    accelerator = settings.accelerator
    device_type = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(accelerator, accelerator)
    check_device(settings, device_type)
    precision = resolve_precision(settings.precision, device_type)
    on_cpu = device_type == "cpu"
    files = AtomicCheckpointIO()
    try:
        return L.Trainer(
            accelerator="cpu" if on_cpu else accelerator,
            # Lightning's "auto" on a CPU is one process as well; saying so keeps its warning away.
            devices=1 if on_cpu and settings.devices == "auto" else settings.devices,
            num_nodes=settings.num_nodes,
            strategy=build_strategy(settings.strategy, backbone),
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_norm or None,
            check_val_every_n_epoch=settings.validate_every,
            fast_dev_run=settings.fast_dev_run,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            use_distributed_sampler=False,  # our batch sampler shares out the samples itself
            callbacks=_callbacks(config, run_dir, metric, files, bad_samples, progress),
            logger=TensorBoardLogger(run_dir, name="", version="tensorboard"),
            # Lightning would save a file of its own, and put the job back itself.
            plugins=[files, *slurm_environment()],
            enable_model_summary=False,
            enable_progress_bar=False,  # RunProgress has one whose lines and bar do not erase each other
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"trainer: Lightning refuses accelerator={accelerator}, devices={settings.devices}, "
            f"num_nodes={settings.num_nodes}, strategy={settings.strategy}: {one_line(error)}"
        ) from error


def _callbacks(
    config: ExperimentConfig,
    run_dir: Path,
    metric: str,
    files: AtomicCheckpointIO,
    bad_samples: BadSampleList | None,
    progress: bool,
) -> list[Callback]:
    """What happens besides training; a ``fast_dev_run`` writes nothing."""
    settings = config.trainer
    callbacks: list[Callback] = [*([RunProgress()] if progress else []), ValidateLastEpoch()]
    if bad_samples is not None:
        file = None if settings.fast_dev_run else run_dir / "bad_samples.csv"
        callbacks.append(KeepBadSamples(bad_samples, file))
    if not settings.fast_dev_run:
        saver = BestAndLast(run_dir / FOLDER, metric, files, settings.save_every_steps)
        callbacks += [
            ResolvedConfig(run_dir / "config.yaml", config_to_yaml(config)),
            EpochTable(run_dir / "metrics.csv"),
            LastNumbers(run_dir / "metrics.json"),
            saver,
            StopWhenAsked(saver, settings.max_seconds),
        ]
        if settings.num_previews:
            callbacks.append(SamplePictures(run_dir / "pictures", settings.num_previews))
    if settings.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping(metric, patience=settings.early_stopping_patience, mode="max", check_finite=False)
        )
    return callbacks
