"""`detseg.train`: a training from Python, of settings or of the user's own module and data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from detseg.checkpoint import BEST, FOLDER
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.datasets.contract import EvalSource
from detseg.data.loading.processes import leave_if_starting
from detseg.errors import check_row, check_type
from detseg.training.callbacks.run_files import best_epoch
from detseg.training.callbacks.stopping import StopRequest
from detseg.training.run import train as train_settings
from detseg.training.setup.arguments import from_arguments
from detseg.training.setup.build import criterion_of

_WHERE = "detseg.train"


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended.

    Attributes:
        run_dir: its folder; see docs/training.md for what is in it.
        criterion: the metric that the best epoch was chosen by, higher is better: ``AP``, ``mask_AP`` or ``mIoU``.
    """

    run_dir: Path
    criterion: str

    @property
    def best_checkpoint(self) -> Path:
        """The file of the best epoch, for ``detseg.evaluate`` and ``detseg.load_predictor``."""
        return self.run_dir / FOLDER / BEST

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best epoch by their names in ``metrics.csv``, without ``val/``: ``AP``, ``loss``, ...

        Empty after a ``fast_dev_run``, which writes nothing.
        """
        best = best_epoch(self.run_dir / "metrics.csv", f"val/{self.criterion}")
        return {key.removeprefix("val/"): float(best[key]) for key in best if key.startswith("val/")}


def train(
    model: nn.Module | ExperimentConfig | str | Path,
    train_set: EvalSource | None = None,
    val_set: EvalSource | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    max_epochs: int | None = None,
    run_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    task: Literal["detection", "instance", "semantic"] | None = None,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    stop: StopRequest | None = None,
) -> TrainingRun:
    """Train as the command `detseg train` does, into the same run directory; in any thread, and in a script without a
    ``__main__`` guard where ``num_workers`` is 0. The global generators of torch, NumPy and Python are seeded.

    Args:
        model: of ``detseg.build_model``; any module that keeps the ``Detector`` or ``Segmenter`` contract of
            ``detseg.models.interface``; or settings, as a YAML file or ``ExperimentConfig``.
        train_set, val_set: what ``detseg.read_voc`` and its like return, or anything that keeps the contract of
            ``detseg.data.datasets.contract``; None: those that the settings name.
        image_size: side of the square network input in pixels, or (height, width); setting ``data.image_size``.
        batch_size, num_workers, max_epochs: settings ``data.batch_size``, ``data.num_workers``, ``trainer.max_epochs``.
        run_dir: where to write; None: ``runs/<name of the model or file>``, with a number added if that exists.
        settings: other settings by their dotted names (docs/configuration.md), such as ``{"optimizer.lr": 1e-3}``.
        task: what a module of your own finds (no other has one); None: what the first training image has.
        resume: a checkpoint to continue; ``"last"``: the last one of the run directory; ``"auto"``: that, or begin
            where there is none; None: a new run.
        callbacks, loggers: of Lightning's, besides those that every run has.
        stop: by which another thread may ask the training to stop.

    Raises:
        ConfigError: a setting or argument is wrong; one line for each.
        DetsegError: the data does not fit the model, it or the checkpoint is wrong, or memory is not enough.
        RunStoppedError: the run was asked to stop, and has saved itself.
    """
    leave_if_starting()
    sizes = {"data.image_size": image_size, "data.batch_size": batch_size, "data.num_workers": num_workers}
    named = {**sizes, "trainer.max_epochs": max_epochs, "run_dir": run_dir}
    _check_options(resume, stop, callbacks, loggers)
    config, name, own = from_arguments(_WHERE, model, train_set, val_set, named, settings, task)
    own = replace(own, callbacks=callbacks, loggers=loggers, stop=stop or StopRequest())
    folder = train_settings(config, name, None if resume is None else str(resume), own)
    return TrainingRun(folder, criterion_of(config))


def _check_options(resume: object, stop: object, callbacks: object, loggers: object) -> None:
    check_type(f"{_WHERE}: resume", resume, str | Path | None, '"last", "auto" or a checkpoint file')
    check_type(f"{_WHERE}: stop", stop, StopRequest | None, "a detseg.StopRequest")
    check_row(f"{_WHERE}: callbacks", callbacks, Callback, "a list of lightning.pytorch's Callback")
    check_row(f"{_WHERE}: loggers", loggers, Logger, "a list of lightning.pytorch's Logger")
