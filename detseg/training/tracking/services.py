"""MLflow and Weights & Biases.

A tracker must not cost a training: where one of these fails after the run has begun, it is switched off with a warning.
MLflow's requests are answered when its server likes (by default it is asked eight times, for two minutes each), so they
are made in a thread; Weights & Biases has a process of its own. Neither reports its own use to its makers from here.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from filelock import FileLock
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from torch import Tensor

from detseg.errors import ConfigError
from detseg.messages import one_line, without_secrets
from detseg.structures import UInt8Array
from detseg.training.tracking.background import Background
from detseg.training.tracking.tracker import Tracker

logger = logging.getLogger("detseg")

PROJECT = "detseg"  # MLflow's experiment and the project of Weights & Biases, where the environment names no other

_METRICS_AT_ONCE = 500  # MLflow takes 1000
_SECONDS_TO_OPEN = 120
_SECONDS_TO_WAIT = 2.0  # for MLflow where a run was asked to stop, or too much waits for it
_SECONDS_AT_END = 30.0  # for the rest of its numbers, and then for files
_BYTES_A_SECOND = 1e6  # of these
_TAG_LENGTH = 5000  # characters of a tag that MLflow's databases take
_WHILE_OPENING = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}

S = TypeVar("S", bound="_Fallible")
R = ParamSpec("R")


class _Fallible(Tracker):
    """A tracker that may fail: elsewhere, or by want of a network or of room."""

    is_off = False

    def switch_off(self, reason: str) -> None:
        """Tell it nothing more, and say why."""
        self.is_off = True
        logger.warning(f"tracking: {self.kind} failed, and gets nothing more of this run: {reason}")


def _or_off(method: Callable[Concatenate[S, R], None]) -> Callable[Concatenate[S, R], None]:
    """A method that, where it fails, switches its tracker off with a warning, instead of ending the training."""

    @wraps(method)
    def attempt(self: S, /, *args: R.args, **kwargs: R.kwargs) -> None:
        if self.is_off:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # of a program of others
            if not self.is_off:  # a training that has ended waits no more
                self.switch_off(one_line(error))

    return attempt


def _in_background(
    method: Callable[Concatenate[MlflowTracker, R], None],
) -> Callable[Concatenate[MlflowTracker, R], None]:
    """As ``_or_off``, later and in the tracker's thread."""
    attempt = _or_off(method)

    @wraps(method)
    def later(self: MlflowTracker, /, *args: R.args, **kwargs: R.kwargs) -> None:
        if not self.is_off and not self.background.add(partial(attempt, self, *args, **kwargs), _SECONDS_TO_WAIT):
            self.switch_off("its server does not answer, or more slowly than there are numbers")

    return later


class MlflowTracker(_Fallible, MLFlowLogger):
    """A run of the experiment ``MLFLOW_EXPERIMENT_NAME`` (``detseg``) at ``MLFLOW_TRACKING_URI``, by default in a
    database beside the run directories, with its files in ``mlartifacts/`` there."""

    kind = "mlflow"

    def __init__(self, run_dir: Path, tags: Mapping[str, str], run_id: str | None) -> None:
        beside = run_dir.absolute().parent
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside / 'mlflow.db'}"
        own = None if os.environ.get("MLFLOW_TRACKING_URI") else (beside / "mlartifacts").as_uri()
        self._resumes, self.background = run_id is not None, Background()
        for name in ("alembic", "mlflow.store.db.utils", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)  # each table of a new database, a new experiment
        # Two processes that make the tables of a new database at once destroy it.
        self._alone, self._is_open = FileLock(beside / ".mlflow.lock", timeout=_SECONDS_TO_OPEN), False
        with self._opening():
            beside.mkdir(parents=True, exist_ok=True)
            super().__init__(
                os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT,
                run_name=run_dir.name,
                tracking_uri=self.uri,
                tags=dict(tags),
                artifact_location=own,
                run_id=run_id,
            )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; the run is opened when it is first asked for, before ``begin``, by Lightning. ConfigError:
        it cannot be opened."""
        if self._is_open:
            return super().experiment
        with self._opening():
            import mlflow

            before = os.environ.get("MLFLOW_TRACKING_URI", "")
            client = super().experiment
            mlflow.set_tracking_uri(before)  # Lightning makes its own that of the whole process
        self._is_open = True
        return client

    def begin(self, settings: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """See ``Tracker``. Parameters are those of the first start, as MLflow lets none be changed."""
        git = start.get("git") or {}
        tags = {"command": start["command"], "detseg": start["detseg"]}
        tags |= {f"git_{key}": str(value) for key, value in git.items()}
        client, run_id = self.experiment, self.run_id
        with self._opening():
            if self._resumes:
                client.update_run(run_id, status="RUNNING")
            else:
                self.log_hyperparams(dict(settings))
            for name, value in tags.items():
                client.set_tag(run_id, name, value[:_TAG_LENGTH])
            client.log_dict(run_id, dict(settings), "config.yaml")
            client.log_dict(run_id, dict(start), "start.json")
        return run_id

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            with _own_environment(), self._alone:
                yield
        except Exception as error:  # of a program of others
            what = f"a run at {without_secrets(self.uri)}: {without_secrets(one_line(error))}"
            hint = "set MLFLOW_TRACKING_URI to where it is, or leave mlflow out of tracking"
            raise ConfigError(f"tracking: mlflow cannot open {what}; {hint}") from error

    @_in_background
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As Lightning's, in parts that MLflow takes."""
        items = list(metrics.items())
        for first in range(0, len(items), _METRICS_AT_ONCE):
            super().log_metrics(dict(items[first : first + _METRICS_AT_ONCE]), step)

    @_in_background
    def show(self, name: str, image: UInt8Array, step: int) -> None:
        """See ``Tracker``."""
        self.experiment.log_image(self.run_id, image, key=name.replace("/", "_"), step=step)

    def end(self, files: Sequence[Path]) -> None:
        """See ``Tracker``. Waits for what is not sent yet; without files, as of a run that was stopped, for seconds."""
        for file in files:
            self._keep(file)
        size = sum(file.stat().st_size for file in files)
        seconds = _SECONDS_AT_END + size / _BYTES_A_SECOND if files else _SECONDS_TO_WAIT
        if not self.background.finish(seconds) and not self.is_off:
            self.switch_off(f"its server did not answer within {seconds:.0f} s of the end")

    @_in_background
    def _keep(self, file: Path) -> None:
        self.experiment.log_artifact(self.run_id, str(file))

    @_in_background
    def finalize(self, status: str = "success") -> None:
        """As Lightning's."""
        super().finalize(status)

    @property
    def how_to_look(self) -> str:
        """See ``Tracker``."""
        uri = without_secrets(self.uri)
        return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


class WandbTracker(_Fallible, WandbLogger):
    """A run of the project ``WANDB_PROJECT`` (``detseg``); ``WANDB_MODE=offline`` needs neither account nor network."""

    kind = "wandb"

    def __init__(self, run_dir: Path, tags: Mapping[str, str], run_id: str | None) -> None:
        self._options: dict[str, Any] = {
            "name": run_dir.name,
            "dir": str(run_dir),
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "id": run_id,
            "resume": "allow",
            "tags": [f"{name}:{value}" if value else name for name, value in tags.items()],
        }
        self._run: Any = None
        with _own_environment():
            super().__init__(name=run_dir.name, save_dir=run_dir, project=self._options["project"])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of Weights & Biases, opened when it is first asked for. ConfigError: it cannot be opened."""
        if self._run is None:
            with self._opening():
                import wandb

                # It would take over standard output, which belongs to the progress bar.
                self._run = wandb.init(**self._options, settings=wandb.Settings(console="off", silent=True))
                self._run.define_metric("trainer/global_step")
                self._run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._run

    def begin(self, settings: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """See ``Tracker``."""
        run = self.experiment
        with self._opening():
            run.config.update({**settings, "run": dict(start)}, allow_val_change=True)
        return str(run.id)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            with _own_environment():
                yield
        except Exception as error:  # of a program of others
            hint = "without an account or a network set WANDB_MODE=offline"
            raise ConfigError(f"tracking: wandb cannot open a run: {one_line(error)}; {hint}") from error

    @_or_off
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """As Lightning's."""
        super().log_metrics(metrics, step)

    @_or_off
    def show(self, name: str, image: UInt8Array, step: int) -> None:
        """See ``Tracker``."""
        self.log_image(name, [image], step)

    @_or_off
    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """See ``Tracker``."""
        import wandb

        self.experiment.log({name: wandb.Histogram(values.float().cpu().tolist()), "trainer/global_step": step})

    @_or_off
    def end(self, files: Sequence[Path]) -> None:
        """See ``Tracker``. Its process ends, or the next training in this one would write into the same run."""
        run = self._run
        if run is None:  # it never began
            return
        import wandb

        if files:
            artifact = wandb.Artifact(f"run-{run.id}", type="model")
            for file in files:
                artifact.add_file(str(file))
            run.log_artifact(artifact)
        run.finish()

    @property
    def how_to_look(self) -> str:
        """See ``Tracker``."""
        run = self.experiment
        return f"wandb sync {shlex.quote(str(Path(run.dir).parent))}" if run.offline else str(run.url or "")


@contextmanager
def _own_environment() -> Iterator[None]:
    """MLflow and Weights & Biases read on import, and when a run is opened, whether they may report their use and
    write on the screen, and for how long to ask; what the user has set counts."""
    missing = {name: value for name, value in _WHILE_OPENING.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
