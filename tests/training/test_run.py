"""Whole trainings, as small as they come: what they leave, how they end, and that every setting runs."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from detseg.checkpoint import read_model_checkpoint
from detseg.cli.signals import stop_on_signals
from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import CheckpointError, ConfigError, DetsegError
from detseg.predict import load_predictor
from detseg.structures import Batch
from detseg.training.datamodule import ImageDataModule
from detseg.training.run import train
from detseg.training.setup.build import Own
from detseg.training.task import Task
from tests.tiny import CLASSES, WORTH_COMPARING, TinyRun, rows_of, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")


def config_of(run: TinyRun, run_dir: Path, *overrides: str) -> ExperimentConfig:
    return tiny_config(run.config_path, run_dir, "trainer.max_epochs=1", *overrides)


def test_the_run_directory_holds_what_it_promises(tiny_run: TinyRun) -> None:
    # Other tests evaluate the run, and leave their reports there.
    of_others = ("evaluation_", "explain_")
    found = {path.name for path in tiny_run.run_dir.iterdir() if not path.name.startswith(of_others)}
    assert found == {"checkpoints", "config.yaml", "metrics.csv", "metrics.json", "pictures", "run.json", "tensorboard"}
    assert sorted(os.listdir(tiny_run.run_dir / "checkpoints")) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    config, found = tiny_config(tiny_run.config_path, tiny_run.run_dir), read_model_checkpoint(tiny_run.best)
    assert load_config(tiny_run.run_dir / "config.yaml") == config
    assert (found.config["optimizer"]["lr"], found.classes.names) == (config.optimizer.lr, CLASSES)
    events = EventAccumulator(str(tiny_run.run_dir / "tensorboard")).Reload()
    assert {"train/loss_epoch", "val/loss", "val/AP", "val/AP50"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("val/AP")) == 4


def test_the_table_has_a_row_an_epoch_and_the_last_is_validated(tiny_run: TinyRun) -> None:
    rows = tiny_run.rows()
    assert [int(row["epoch"]) for row in rows] == list(range(1, 17))
    assert [int(row["step"]) for row in rows] == [8 * epoch for epoch in range(1, 17)]  # 16 images in twos
    assert [int(row["epoch"]) for row in rows if row["val/AP"]] == [5, 10, 15, 16]  # every 5th and the last
    assert all((row["val/loss"] == "") == (row["val/AP"] == "") for row in rows)
    for row in rows:
        parts = [float(row[f"train/{name}"]) for name in ("box", "class", "dfl")]
        assert float(row["train/loss"]) == pytest.approx(sum(parts), rel=1e-5)
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    # Of step 128, before which 119 of the 120 steps behind the warm-up were made.
    cosine = (1 + math.cos(math.pi * 119 / 120)) / 2
    assert float(rows[-1]["lr"]) == pytest.approx(0.005 * (0.01 + 0.99 * cosine))


def test_best_is_the_best_epoch_and_last_the_last(tiny_run: TinyRun) -> None:
    validated = [row for row in tiny_run.rows() if row["val/AP"]]
    best = max(validated, key=lambda row: float(row["val/AP"]))
    assert float(best["val/AP"]) >= WORTH_COMPARING
    assert read_model_checkpoint(tiny_run.best).epoch == int(best["epoch"])
    assert read_model_checkpoint(tiny_run.best.with_name("last.ckpt")).epoch == 16
    numbers = json.loads((tiny_run.run_dir / "metrics.json").read_text())
    assert numbers["coco"]["AP"] == float(validated[-1]["val/AP"])


def test_an_interrupt_says_where_to_resume_and_the_run_ends_as_the_whole_one(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second Ctrl-C, which does not wait for the end of the step; tests/test_kills.py compares all weights."""
    settings = ("trainer.max_epochs=2", "trainer.validate_every=2")
    whole = train(config_of(tiny_run, tmp_path / "whole", *settings), tiny_run.config_path)
    config, step = config_of(tiny_run, tmp_path / "parts", *settings), Task.training_step

    def interrupted(self: Task, batch: Any, batch_index: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_index == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_index)

    on_interrupt = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tiny_run.config_path)
    assert signal.getsignal(signal.SIGINT) is on_interrupt
    parts = tmp_path / "parts"
    assert f"stopped; what was saved last is in {parts}: resume with --resume" in capsys.readouterr().out
    assert read_model_checkpoint(parts / "checkpoints" / "last.ckpt").epoch == 1
    assert train(config, tiny_run.config_path, resume="last") == parts
    for name in ("metrics.csv", "metrics.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


class _LosesLoaderProcesses(L.Callback):
    """They are killed in the second step; the training computes for a while."""

    def __init__(self) -> None:
        self.others = set(multiprocessing.active_children())

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        if index == 1:
            for process in set(multiprocessing.active_children()) - self.others:
                process.kill()
            time.sleep(1)


def test_a_loader_process_that_dies_in_a_step_is_named(tiny_run: TinyRun, tmp_path: Path) -> None:
    """torch raises its error where the training is; nobody lacks memory in this step."""
    config = config_of(tiny_run, tmp_path / "run", "data.num_workers=1")
    with pytest.raises(DetsegError, match=r"^a loader process has died, killed by SIGKILL: DataLoader worker \(pid"):
        train(config, tiny_run.config_path, own=Own(callbacks=[_LosesLoaderProcesses()]))


def test_a_refused_resume_leaves_the_run_as_it_was(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in tiny_run.run_dir.rglob("*.*") if path.is_file()}
    for override, message in (
        ("optimizer.lr=0.5", r"other settings than it began with: optimizer\.lr was 0\.005 and is 0\.5; set them"),
        ("model.neck.name=pan", r"model\.neck\.name was 'fpn' and is 'pan'"),
        ("data.classes=[red, blue, yellow]", r"the checkpoint's classes are \['blue', 'red', 'yellow'\], the data's"),
        ("trainer.max_epochs=16", r"left to train: the checkpoint has 16 epochs and trainer\.max_epochs is 16"),
    ):
        config = tiny_config(tiny_run.config_path, tiny_run.run_dir, override)
        with pytest.raises(CheckpointError, match=message):
            train(config, tiny_run.config_path, resume="last")
    assert {path: path.read_bytes() for path in before} == before
    assert "training  " not in capsys.readouterr().out  # refused before anything is announced


def test_an_early_sigterm_keeps_its_code(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = ImageDataModule.val_dataloader

    def terminated(self: ImageDataModule) -> DataLoader[Batch]:
        assert callable(signal.getsignal(signal.SIGTERM))  # else it would end the tests
        os.kill(os.getpid(), signal.SIGTERM)
        return load(self)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(ImageDataModule, "val_dataloader", terminated)
    config = config_of(tiny_run, tmp_path / "run", "trainer.validate_every=1")
    with pytest.raises(SystemExit) as caught, stop_on_signals() as stop:
        train(config, tiny_run.config_path, own=Own(stop=stop))
    assert caught.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_run_is_never_written_over(tiny_run: TinyRun) -> None:
    with pytest.raises(ConfigError, match=f"^run_dir: {tiny_run.run_dir} holds a run already; choose another"):
        train(config_of(tiny_run, tiny_run.run_dir), tiny_run.config_path)


def test_fast_dev_run_writes_nothing(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_config(tiny_run.config_path, None, "trainer.fast_dev_run=true"), tiny_run.config_path)
    assert list(tmp_path.iterdir()) == []
    assert "fast_dev_run: one batch of training and one of validation went through" in capsys.readouterr().out


def test_overfit_images_are_validated(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("trainer.overfit_batches=1", "data.augmentation.mosaic=1.0", "trainer.max_epochs=2")
    run_dir = train(config_of(tiny_run, tmp_path / "run", *overrides), tiny_run.config_path)
    assert "data      2 training and 2 validation images" in capsys.readouterr().out
    assert json.loads((run_dir / "metrics.json").read_text())["num_images"] == 2
    assert [int(row["step"]) for row in rows_of(run_dir)] == [1, 2]
    # Unaugmented: training shows the two pictures that validation shows, in this order or the other.
    shown, pairs = (cv2.imread(str(run_dir / "pictures" / f"{x}.jpg")) for x in ("train_batch", "val_predictions"))
    assert shown is not None
    assert pairs is not None
    # 8 times as large, with gaps of 6 pixels, titles above rows; of a wide image training shows the padding, too.
    first = len(pairs) - len(shown) - 518 + 106
    images = [shown[106:418, x : x + 512].astype(int) for x in (6, 524)]
    truths = [pairs[y : y + 312, 6:518] for y in (first, first + 518)]
    assert min(np.abs(np.array(order) - truths).mean() for order in (images, images[::-1])) < 5


def test_no_improvement_stops_early(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing passes the threshold, so that every AP is 0 on any machine."""
    epochs = ("trainer.max_epochs=9", "trainer.validate_every=1", "trainer.early_stopping_patience=2")
    overrides = ("model.score_threshold=1", "optimizer.lr=1e-12", "trainer.monitor=AP75", *epochs)
    run_dir = train(config_of(tiny_run, tmp_path / "run", *overrides), tiny_run.config_path)
    found = [float(row["val/AP75"]) for row in rows_of(run_dir)]
    assert found == [0, 0, 0]  # the best one, and two that are no better
    told = capsys.readouterr().out
    assert "stopped after epoch 3: no better AP75 than 0.000 in 2 validations" in told
    assert "best epoch: 1, AP75 0.000, " in told


def test_fitted_anchors_are_kept(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("model.head.name=anchor", "model.head.anchors_per_level=1")
    run_dir = train(config_of(tiny_run, tmp_path / "run", *overrides), tiny_run.config_path)
    assert "anchors: 3 fitted to 18 boxes, mean best IoU 0." in capsys.readouterr().out  # 22 objects, 4 difficult
    head = load_config(run_dir / "config.yaml").model.head
    anchors = getattr(head, "anchors", None)
    assert anchors is not None
    assert all(10 < side < 64 for anchor in anchors for side in anchor)  # objects of 18 to 35 pixels, letterboxed
    kept = read_model_checkpoint(run_dir / "checkpoints" / "last.ckpt").config["model"]["head"]["anchors"]
    assert kept == [list(anchor) for anchor in anchors]
    load_predictor(run_dir / "checkpoints" / "last.ckpt", device="cpu")
