"""Runs that are killed by SIGKILL and resumed, beside the same run that nobody killed.

``test_kills.py`` kills at chosen moments, ``kill_at_random.py`` at random ones, from outside. Every run is a process of
its own, forked from one that has the imports behind it.
"""

from __future__ import annotations

import io
import multiprocessing as mp
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detseg.checkpoint import BEST, LAST, PREVIOUS, read_raw_checkpoint
from detseg.cli.signals import stop_on_signals
from detseg.errors import EXIT_STOPPED, RunStoppedError
from detseg.training.callbacks import checkpoints
from detseg.training.run import train
from detseg.training.setup.build import Own
from detseg.training.task import Task
from tests.bits import digest_of
from tests.tiny import WRITERS, tiny_config

SETTINGS = (
    *("trainer.max_epochs=3", "trainer.validate_every=2", "trainer.save_every_steps=3", "trainer.num_previews=0"),
    *("data.batch_size=3", "data.augmentation.affine.probability=0.5", "data.augmentation.mosaic=0.5"),
)
"""Of every run here: 6 to 8 steps an epoch, saves in the middle, a validation in the second and the last epoch."""

DROPOUT = {"yolo": "model.head.dropout", "unet": "model.dropout", "mask_rcnn": "model.roi_heads.dropout"}
"""Of each model's runs, so that a resumed one must draw as the whole one did."""

PHASES = ("starting", "step", "validation", "between")

_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.kills"])


@dataclass(frozen=True)
class Setup:
    """A model's configuration file, with the data beside it."""

    name: str
    config: Path

    @classmethod
    def write(cls, name: str, folder: Path) -> Setup:
        """Write data and settings of ``yolo``, ``unet`` or ``mask_rcnn``."""
        folder.mkdir(parents=True)
        write_settings, write_data = WRITERS[name]
        return cls(name, write_settings(folder / f"{name}.yaml", write_data(folder / "data")))


@dataclass(frozen=True)
class KillPoint:
    """The ``count``-th time that a run is ``where``: in a ``step``, a ``validation``'s step, halfway through the bytes
    of a checkpoint (``write``), or right behind a renaming of one (``rename``)."""

    where: str
    count: int


class Run:
    """One process that begins or resumes a run; ``kill``: where it kills itself."""

    def __init__(
        self,
        setup: Setup,
        run_dir: Path,
        kill: KillPoint | None = None,
        settings: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.phase = _CONTEXT.Value("i", 0)
        self.writing = _CONTEXT.Value("i", 0)
        settings = (*SETTINGS, f"{DROPOUT[setup.name]}=0.2", *settings)
        arguments = (setup.config, run_dir, kill, settings, environment or {}, self.phase, self.writing)
        self.process = _CONTEXT.Process(target=_train, args=arguments)
        self.process.start()

    def wait(self) -> int:
        self.process.join(timeout=300)
        assert self.process.exitcode is not None, "the run hangs"
        return self.process.exitcode

    def started(self) -> Run:
        """Itself, once it has begun a step or ended."""
        while self.phase.value == 0 and self.process.is_alive():
            time.sleep(0.002)
        return self


def result_of(run_dir: Path) -> tuple[str, str]:
    """Digest of weights, averages, optimiser, schedule and callbacks at a run's end, and its table of metrics."""
    last = read_raw_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "callbacks")
    return digest_of([last[part] for part in parts]), (run_dir / "metrics.csv").read_text(encoding="utf-8")


def _train(
    config: Path,
    run_dir: Path,
    kill: KillPoint | None,
    settings: tuple[str, ...],
    environment: dict[str, str],
    phase: Any,
    writing: Any,
) -> None:
    """In the process of a run: train to the end, or to the kill; what is printed goes to a file beside the run."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    _watch(phase, writing)
    if kill is not None:
        _arm(kill)
    path = run_dir.with_suffix(".log")
    with path.open("w", encoding="utf-8", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            with stop_on_signals() as stop:
                train(tiny_config(config, run_dir, *settings), config, "auto", Own(stop=stop))
        except RunStoppedError as stopped:
            print(stopped)
            sys.exit(EXIT_STOPPED)


def _watch(phase: Any, writing: Any) -> None:
    """Have the run say where it is."""

    def put(value: Any, number: int) -> Callable[[], None]:
        return lambda: setattr(value, "value", number)

    _around(Task, "training_step", before=put(phase, 1))
    _around(Task, "on_train_batch_end", after=put(phase, 3))
    _around(Task, "validation_step", before=put(phase, 2))
    _around(Task, "on_validation_epoch_end", after=put(phase, 3))
    _around(checkpoints, "save_atomically", put(writing, 1), put(writing, 0))


def _around(
    owner: Any, name: str, before: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
) -> None:
    original = getattr(owner, name)

    def replacement(*arguments: Any, **options: Any) -> Any:
        before()
        try:
            return original(*arguments, **options)
        finally:
            after()

    setattr(owner, name, replacement)


def _arm(kill: KillPoint) -> None:
    times = 0

    def once_more() -> None:
        nonlocal times
        times += 1
        if times == kill.count:
            os.kill(os.getpid(), signal.SIGKILL)

    match kill.where:
        case "step":
            _around(Task, "training_step", after=once_more)
        case "validation":
            _around(Task, "validation_step", after=once_more)
        case "rename":
            rename = os.replace

            def renamed(source: Any, target: Any) -> None:
                rename(source, target)
                if Path(target).name in (BEST, LAST, PREVIOUS):
                    once_more()

            os.replace = renamed  # type: ignore[assignment]  # in this process alone
        case "write":
            whole = torch.save

            def half(content: Any, file: Any) -> None:
                buffer = io.BytesIO()
                whole(content, buffer)
                file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
                file.flush()
                once_more()
                file.write(buffer.getvalue()[len(buffer.getvalue()) // 2 :])

            torch.save = half  # type: ignore[assignment]  # in this process alone


def kill_at_random(setup: Setup, run_dir: Path, seconds: float, rng: random.Random) -> str | None:
    """Kill a run at a random moment of ``seconds`` from its first step on, and resume it to its end; returns where the
    kill hit, None: the run was over before."""
    settings = (f"data.num_workers={rng.choice((0, 1))}",)
    run = Run(setup, run_dir, settings=settings).started()
    time.sleep(rng.uniform(0, seconds))
    place = PHASES[run.phase.value] + (" while a file is written" if run.writing.value else "")
    run.process.kill()
    if run.wait() != -signal.SIGKILL:
        return None
    code = Run(setup, run_dir, settings=settings).wait()
    assert code == 0, f"{setup.name}: resuming failed with exit code {code}"
    return place
