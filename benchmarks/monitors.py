"""What a training step costs with each of `trainer.diagnostics`, beside one without, and an entry of each tracker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch.utils.data import DataLoader

from benchmarks.comparison import Row, in_turn, timed
from benchmarks.peers.serve import PacedTraining
from benchmarks.training import PRECISION, random_batch, task_of
from detseg.training.callbacks.monitors import StepMonitors
from detseg.training.setup.trainer import quiet_lightning
from detseg.training.tracking.build import build_trackers
from detseg.training.tracking.tracker import Tracker

DIAGNOSTICS = ("gradient_norm", "update_ratio", "dead_activations", "histograms")


def monitors(blocks: int = 8, small: bool = False) -> Iterator[Row]:
    """Steps of the nano detector in one training that writes to TensorBoard at every step, with and without each."""
    side, size, steps = (64, 2, 1) if small else (320, 16, 3)
    batch = random_batch(side, size, num_objects=8, num_classes=80)
    work = f"nano, {side} px, batch {size}; {PRECISION}; written at every step"
    with tempfile.TemporaryDirectory() as folder:
        watch = StepMonitors(1, ())
        training = _training(batch, watch, Path(folder))

        def step(every: int, *diagnostics: str) -> float:
            watch.every, watch.diagnostics, watch.drawn_in = every, frozenset(diagnostics), -1
            return training.advance(steps) * 1000 / steps

        for chosen in [(), *((name,) for name in DIAGNOSTICS)]:
            name = chosen[0] if chosen else "losses and rates alone"
            times = in_turn(partial(step, 1, *chosen), partial(step, 10**9), blocks)
            yield Row(f"a step with {name}", work, "the same step, nothing written", *times, "ms")
        training.end()
    yield from _entries(blocks, 5 if small else 50)


def _training(batch: Any, watch: StepMonitors, folder: Path) -> PacedTraining:
    quiet_lightning()
    options: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 100_000, "limit_val_batches": 0}
    options |= {"precision": "bf16-mixed" if PRECISION == "bfloat16" else "32-true", "gradient_clip_val": 10.0}
    options |= dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

    def train(paced: PacedTraining) -> None:
        around = LambdaCallback(on_train_batch_start=paced.before), LambdaCallback(on_train_batch_end=paced.after)
        trackers = build_trackers(["tensorboard"], folder, {})
        trainer = L.Trainer(callbacks=[around[0], watch, around[1]], logger=trackers, **options)
        batches: Any = [batch]  # enough of a data set
        trainer.fit(task_of({"name": "yolo"}, 80), DataLoader(batches, batch_size=None))

    return PacedTraining(train)


def _entries(blocks: int, number: int) -> Iterator[Row]:
    """One entry of 30 numbers, of MLflow's local database and of Weights & Biases offline beside TensorBoard's."""
    numbers = {f"train/number{i}": float(torch.rand(())) for i in range(30)}
    os.environ["WANDB_MODE"] = "offline"
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        run_dir.mkdir()
        built: Any = build_trackers(["tensorboard", "mlflow", "wandb"], run_dir, {})
        trackers: dict[str, Tracker] = {tracker.kind: tracker for tracker in built}
        for tracker in trackers.values():
            tracker.begin({"seed": 0}, {"command": "", "detseg": ""})

        def entries(tracker: Any) -> None:
            for step in range(number):
                tracker.log_metrics(numbers, step)

        for kind in ("mlflow", "wandb"):
            ours, theirs = (timed(partial(entries, trackers[name]), number, 1000) for name in (kind, "tensorboard"))
            yield Row(
                f"an entry in {kind}", "30 numbers", "an entry in TensorBoard", *in_turn(ours, theirs, blocks), "ms"
            )
        for tracker in trackers.values():
            tracker.end([])
