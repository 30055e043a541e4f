"""Lightning's Trainer, set up as the settings say, and kept from speaking of itself."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from detseg.checkpoint import FOLDER
from detseg.config.schema.experiment import ExperimentConfig, TrainerConfig
from detseg.data.datasets.bad_samples import BadSampleList
from detseg.errors import ConfigError
from detseg.messages import one_line
from detseg.training.callbacks.bad_samples import BadSampleLog
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast
from detseg.training.callbacks.monitors import EpochNumbers, StepMonitors
from detseg.training.callbacks.progress import RunProgress, ValidateLastEpoch
from detseg.training.callbacks.run_files import RunFiles, SampleImages
from detseg.training.callbacks.stopping import EarlyStopping, StopWhenAsked
from detseg.training.distributed import slurm_environment
from detseg.training.setup.build import Own
from detseg.training.tracking.build import build_trackers

logger = logging.getLogger("detseg")

Precision = Literal["auto", "float32", "bfloat16"]

_ADVICE = (
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*in eval mode at the start of training.*",  # the averaged model and frozen layers
    ".*Experiment logs directory.*",
    ".*sync_dist=True.*",  # every process validates the whole set
    ".*no `val_dataloader`.*",  # steps that are no run
    ".*LeafSpec.*",  # Lightning against a newer torch
    ".*train_dataloader yielded None.*",  # the batches that a resumed run had before
)
"""Warnings of Lightning's on choices that were made on purpose."""


def build_trainer(
    config: ExperimentConfig,
    run_dir: Path,
    metric: str,
    bad_samples: BadSampleList | None = None,
    own: Own | None = None,
) -> L.Trainer:
    """Lightning's Trainer with our callbacks, loggers and checkpoint files.

    Args:
        config, run_dir: the settings, and where everything is written.
        metric: name of the logged metric that the best checkpoint and early stopping go by; higher is better.
        bad_samples: of the training loader; None: nothing is skipped.
        own: callbacks and loggers behind ours, and by what the run is asked to stop.

    Raises:
        ConfigError: Lightning or the device refuses the settings.
    """
    settings, own, accelerator = config.trainer, own or Own(), config.trainer.accelerator
    quiet_lightning()
    device_type = _device_type(settings)
    in_bfloat16, on_cpu = resolve_precision(settings.precision, device_type) == "bfloat16", device_type == "cpu"
    files = AtomicCheckpointIO()
    trackers = [] if settings.fast_dev_run else build_trackers(config.tracking, run_dir, config.tags or {})
    try:
        trainer = L.Trainer(
            accelerator="cpu" if on_cpu else accelerator,
            # Lightning's "auto" on a CPU is one process as well; saying so keeps its warning away.
            devices=1 if on_cpu and settings.devices == "auto" else settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision="bf16-mixed" if in_bfloat16 else "32-true",
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            gradient_clip_val=settings.gradient_clip_norm or None,
            check_val_every_n_epoch=settings.validate_every,
            fast_dev_run=settings.fast_dev_run,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every_n_steps,
            use_distributed_sampler=False,  # our batch sampler shares out the samples itself
            callbacks=_callbacks(config, run_dir, metric, files, bad_samples, own),
            logger=[*trackers, *own.loggers],
            # Lightning would save a file of its own, and put the job back itself.
            plugins=[files, *slurm_environment()],
            enable_model_summary=False,
            enable_checkpointing=not settings.fast_dev_run or bool(own.callbacks),
            enable_progress_bar=False,  # RunProgress has one whose lines and bar do not erase each other
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"trainer: Lightning refuses accelerator={accelerator}, devices={settings.devices}, "
            f"num_nodes={settings.num_nodes}, strategy={settings.strategy}: {one_line(error)}"
        ) from error
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigError(f"trainer.strategy: expected auto or one of the kinds of ddp, got {settings.strategy}")
    return trainer


def _device_type(settings: TrainerConfig) -> str:
    """``cpu``, ``cuda`` or ``mps``; a ConfigError where it cannot do what the settings ask for."""
    accelerator = settings.accelerator
    device_type = {"gpu": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}.get(accelerator, accelerator)
    if settings.sync_batchnorm and device_type != "cuda":
        why = f"torch synchronises batch normalisation on GPUs only, this run is on {device_type}; set it to false"
        raise ConfigError(f"trainer.sync_batchnorm: {why}")
    return device_type


def build_bare_trainer(config: ExperimentConfig, folder: Path) -> Any:
    """The Trainer for steps that are no run: one epoch on one device, without callbacks and trackers.

    Args:
        config: the settings.
        folder: where Lightning may write; the caller removes it.

    Returns:
        Lightning's Trainer; it trains as that of ``build_trainer`` does: precision, accumulation, clipping.
    """
    changes = {"devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False, "fast_dev_run": False}
    plain = config.trainer.model_copy(update=changes | {"max_epochs": 1})
    trainer: Any = build_trainer(config.model_copy(update={"trainer": plain, "tracking": ()}), folder, metric="")
    trainer.callbacks = []
    return trainer


@contextmanager
def interrupts_kept(trainer: L.Trainer) -> Iterator[None]:
    """A block around ``trainer.fit`` in which Ctrl-C and a termination stay what they were.

    Lightning turns a KeyboardInterrupt into ``SystemExit(1)`` and leaves Ctrl-C disabled, which would outlast the run
    in a notebook, and a termination into ``SystemExit(0)``.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
        if trainer.received_sigterm:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


def _callbacks(
    config: ExperimentConfig,
    run_dir: Path,
    metric: str,
    files: AtomicCheckpointIO,
    bad_samples: BadSampleList | None,
    own: Own,
) -> list[Callback]:
    """What happens besides training; a ``fast_dev_run`` writes nothing."""
    settings = config.trainer
    diagnostics = list(settings.diagnostics)
    if settings.compile and "dead_activations" in diagnostics:
        diagnostics.remove("dead_activations")
        logger.info("trainer.diagnostics: without dead_activations, since the network is compiled")
    callbacks: list[Callback] = [RunProgress(), ValidateLastEpoch()]
    if bad_samples is not None:
        file = None if settings.fast_dev_run else run_dir / "bad_samples.csv"
        callbacks.append(BadSampleLog(bad_samples, file))
    if not settings.fast_dev_run:
        saver = BestAndLast(run_dir / FOLDER, metric, files, settings.save_every_steps)
        callbacks += [
            RunFiles(run_dir, config),
            saver,
            StopWhenAsked(saver, own.stop, settings.max_seconds),
            StepMonitors(settings.log_every_n_steps, diagnostics),
            EpochNumbers(settings.table),
        ]
        if settings.num_previews:
            callbacks.append(SampleImages(run_dir / "pictures", settings.num_previews))
    if settings.early_stopping_patience is not None:
        # Not finite is an AP where there are no objects.
        options: dict[str, Any] = {"patience": settings.early_stopping_patience, "mode": "max", "check_finite": False}
        stopping = EarlyStopping(metric, min_delta=settings.early_stopping_min_delta, **options)
        callbacks.append(stopping)
    return [*callbacks, *own.callbacks]


def resolve_precision(precision: Precision, device_type: str) -> Literal["float32", "bfloat16"]:
    """What a precision means on a device (``cpu``, ``cuda``, ...): ``auto`` is bfloat16 where it is native, else
    float32."""
    if precision != "auto":
        return precision
    if device_type == "cuda":
        # Emulated bfloat16 (before Ampere) is slower than float32.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.10
    if device_type != "cpu" or capabilities is None:
        return "float32"
    found = capabilities()
    return "bfloat16" if found.get("avx512_bf16") or found.get("amx_bf16") else "float32"


def quiet_lightning() -> None:
    """Have Lightning log warnings alone, and none that advise against what is done on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _ADVICE:
        warnings.filterwarnings("ignore", message)
