"""`detseg tune` with real trainings: the command, its signals, and what a trial is measured by."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main
from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.strict_yaml import read_yaml
from detseg.errors import RunStoppedError
from detseg.training.callbacks.stopping import StopRequest
from detseg.tuning.objective import Goal, goal_of, train_and_measure
from detseg.tuning.search import tune
from detseg.tuning.space import read_space
from detseg.tuning.study import Plan
from tests.tiny import TinyRun, rows_of

ROOT = Path(__file__).resolve().parents[2]
SPACE = "optimizer.lr: {log_uniform: [1e-4, 1e-2]}\nmodel.neck.name: {categorical: [fpn, pan]}\n"
QUICK = ("trainer.max_epochs=2", "trainer.validate_every=1", "trainer.num_previews=0")


@pytest.fixture
def command(tiny_run: TinyRun, tmp_path: Path) -> list[str]:
    (space := tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    return ["tune", str(tiny_run.config_path), *QUICK, "--space", str(space), "--study", str(tmp_path / "study")]


def test_each_trial_is_a_run_and_the_best_settings_train(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--trials", "2", "--subject-to", "parameters<1e7"]) == 0
    for number, table_row in enumerate(
        (tmp_path / "study" / "trials.csv").read_text(encoding="utf-8").splitlines()[1:]
    ):
        run_dir = tmp_path / "study" / f"trial_{number:04d}"
        best = max(float(row["val/AP"]) for row in rows_of(run_dir))
        assert table_row.startswith(f"{number},complete,{best!r},")
        assert (run_dir / "checkpoints" / "best.ckpt").is_file()
    best_file = tmp_path / "study" / "best.yaml"
    assert main(["train", str(best_file), f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1"]) == 0
    assert load_config(best_file).run_dir is None
    capsys.readouterr()
    assert main([*command, "--trials", "2", "--sampler", "random"]) == 2
    assert "sampler was 'tpe' and is 'random'" in capsys.readouterr().err


def test_latency_and_parameters_of_a_finished_run(tiny_run: TinyRun, tmp_path: Path) -> None:
    run_dir = shutil.copytree(tiny_run.run_dir, tmp_path / "run")
    config = load_config(run_dir / "config.yaml", {"run_dir": run_dir})
    best = max(float(row["val/AP"]) for row in tiny_run.rows() if row["val/AP"])
    for name, low, high in (("latency_ms", 0.5, 5000), ("parameters", 1e5, 1e6)):
        metrics = train_and_measure(config, goal_of("AP", name, None), lambda *_: False, StopRequest())
        assert metrics["AP"] == best
        assert low < metrics[name] < high


def test_a_training_ends_with_the_epoch_that_is_enough(tiny_run: TinyRun, tmp_path: Path) -> None:
    seen = list[int]()

    def is_enough(epoch: int, accuracy: float) -> bool:
        seen.append(epoch)
        return epoch == 2

    config = load_config(tiny_run.config_path, (*QUICK, "trainer.max_epochs=9", f"run_dir={tmp_path / 'run'}"))
    metrics = train_and_measure(config, goal_of("AP", None, None), is_enough, StopRequest())
    assert seen == [1, 2]
    assert metrics["AP"] == max(float(row["val/AP"]) for row in rows_of(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


def test_a_request_at_the_last_validation_of_a_trial_ends_the_search(tiny_run: TinyRun, tmp_path: Path) -> None:
    """No step comes behind it, at which the training would stop."""

    def asks(config: ExperimentConfig, goal: Goal, is_enough: Any, stop: StopRequest) -> Mapping[str, float]:
        def asks_at_the_last(epoch: int, value: float) -> bool:
            if epoch == config.trainer.max_epochs:
                stop.ask("by SIGTERM")
            return bool(is_enough(epoch, value))

        return train_and_measure(config, goal, asks_at_the_last, stop)

    (space := tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    settings = read_yaml(tiny_run.config_path)
    plan = Plan("mine.yaml", settings, QUICK, read_space(space), goal_of("AP", None, None), "random", 2, prune=False)
    stop = StopRequest()
    with pytest.raises(RunStoppedError, match="stopped by SIGTERM; 1 of 2 trials have ended; the same command goes on"):
        tune(plan, tmp_path / "study", stop=stop, carry_out=asks)
    assert stop.reason is None


@pytest.mark.slow
def test_sigterm_is_one_line_and_the_same_command_goes_on(command: list[str], tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "detseg", *command, "trainer.save_every_steps=1", "--trials", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    last = tmp_path / "study" / "trial_0001" / "checkpoints" / "last.ckpt"
    try:
        while not last.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75
    assert errors.startswith("stopped by SIGTERM after step ")
    assert errors.endswith("; 1 of 2 trials have ended; the same command goes on\n")
    again = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert "2 trials: 2 complete" in again.stdout
    assert [row["epoch"] for row in rows_of(last.parents[1])] == ["1", "2"]
