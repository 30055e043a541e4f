"""A training with a budget: the epochs that fit, that its weights are those of one without, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import load_config
from detseg.config.schema.experiment import TrainerConfig
from detseg.errors import ConfigError, SettingsError
from detseg.training.run import train
from detseg.training.setup import budget
from detseg.training.setup.budget import Speed
from detseg.training.setup.build import Own, open_data
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("every", [None, 1, 4])
@pytest.mark.parametrize("seconds", [0.0, 7.0, 100.0, 1000.0])
def test_as_many_epochs_as_fit(every: int | None, seconds: float) -> None:
    speed = Speed(epoch=3.0, validation=2.0)
    epochs, chosen = speed.most_epochs(seconds, every)

    def fits(number: int, between: int) -> bool:
        return number * 3.0 + sum(2.0 for e in range(1, number + 1) if e % between == 0 or e == number) <= seconds

    assert chosen == (every or max(1, round(epochs / 15)))
    assert fits(epochs, chosen) or epochs == 1
    assert not fits(epochs + 1, every or max(1, round((epochs + 1) / 15)))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("2.5h", 9000.0)])
def test_times(text: str, seconds: float) -> None:
    assert TrainerConfig(budget=text).budget_seconds == seconds


@pytest.mark.parametrize("text", ["30", "m", "1d", "-3m", "1:00:00", "59s"])
def test_what_is_no_time(text: str, tiny_run: TinyRun) -> None:
    with pytest.raises(
        SettingsError, match=r"trainer\.budget: expected a time of at least 60 s, such as 90s, 30m or 2h, got"
    ):
        load_config(tiny_run.config_path, [f"trainer.budget='{text}'"])


def test_a_budget_replaces_the_epochs_and_changes_nothing_else(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "_SHORTEST", 0.1)
    monkeypatch.setattr(budget, "_PART", 0.0)
    monkeypatch.setattr(Speed, "most_epochs", lambda *_: (2, 1))

    def run(name: str, *overrides: str, resume: str | None = None) -> Path:
        plain = ["trainer.num_previews=0", "trainer.validate_every=1", f"run_dir={tmp_path / name}"]
        return train(load_config(tiny_run.config_path, [*plain, *overrides]), tiny_run.config_path, resume)

    with caplog.at_level(logging.INFO, "detseg"):
        mine = run("budget", "trainer.budget=20m")
    assert "trainer.max_epochs=2, validate_every=1: what fits into 20m; an epoch takes " in caplog.text
    found, expected = (
        read_model_checkpoint(folder / "checkpoints" / "last.ckpt")
        for folder in (mine, run("two", "trainer.max_epochs=2"))
    )
    assert (found.config["trainer"]["max_epochs"], found.config["trainer"]["budget"]) == (2, None)
    assert all(torch.equal(weight, expected.weights[name]) for name, weight in found.weights.items())
    # What is resumed has the epochs that it began with.
    caplog.clear()
    with caplog.at_level(logging.INFO, "detseg"):
        run("budget", "trainer.budget=40m", resume="auto")
    assert "nothing is left to train: the checkpoint has 2 epochs and trainer.max_epochs is 2" in caplog.text


def test_several_processes_have_no_budget(tiny_run: TinyRun, tmp_path: Path) -> None:
    config = load_config(
        tiny_run.config_path, ["trainer.budget=1m", "trainer.devices=2", f"run_dir={tmp_path / 'run'}"]
    )
    with pytest.raises(ConfigError, match=r"trainer\.budget: is for a training in one process"):
        train(config, tiny_run.config_path)


def test_a_set_of_one_batch_is_measured_too(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_SHORTEST", 0.1)
    monkeypatch.setattr(budget, "_PART", 0.0)
    config = load_config(tiny_run.config_path, ["data.batch_size=16", "trainer.budget=1m"])
    config, train_set, val_set = open_data(config)
    speed = budget.measure(config, train_set, val_set, Own())
    assert min(speed.epoch, speed.validation, speed.start) > 0


def test_a_dev_run_has_no_budget(tiny_run: TinyRun, tmp_path: Path) -> None:
    overrides = ["trainer.budget=1m", "trainer.fast_dev_run=true", f"run_dir={tmp_path / 'run'}"]
    train(load_config(tiny_run.config_path, overrides), tiny_run.config_path)
