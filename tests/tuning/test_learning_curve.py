"""Trainings on fractions of the images: as many steps each, and none twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.config.load import load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError, RunStoppedError
from detseg.training.callbacks.stopping import StopRequest
from detseg.tuning.learning_curve import learning_curve
from tests.tiny import TinyRun, rows_of

FRACTIONS = (0.25, 0.75, 1.0)


@pytest.fixture
def config(tiny_run: TinyRun) -> ExperimentConfig:
    return load_config(tiny_run.config_path, ["schedule.warmup_epochs=4"])


def test_trainings_are_equally_long_and_are_not_repeated(config: ExperimentConfig, tmp_path: Path) -> None:
    """16 images in batches of 2: 8 steps an epoch; a quarter of them has 2."""
    curve = learning_curve(config, tmp_path, epochs=1, fractions=FRACTIONS, reached=0.9)
    runs = {n: tmp_path / f"{n}_images_8_steps_seed_{config.seed}" for n in (4, 12, 16)}
    assert sorted(path for path in tmp_path.iterdir() if path.is_dir()) == sorted(runs.values())
    assert [(point.num_images, point.seed) for point in curve.points] == [(n, config.seed) for n in runs]
    for point, (num_images, run) in zip(curve.points, runs.items(), strict=True):
        rows = rows_of(run)
        own = load_config(run / "config.yaml")
        num_epochs = {4: 4, 12: 1, 16: 1}[num_images]
        assert (len(rows), own.trainer.max_epochs) == (num_epochs, num_epochs)
        assert int(rows[-1]["step"]) == {12: 6}.get(num_images, 8)  # 1 epoch of 6 steps is nearest to 8
        assert own.schedule.model_dump()["warmup_epochs"] == pytest.approx(num_epochs / 4)  # 4 of the run's 16
        assert point.score == max(float(row["val/AP"]) for row in rows if row["val/AP"])
        start = json.loads((run / "run.json").read_text(encoding="utf-8"))["starts"][0]
        assert start["data"]["train"]["images"] == num_images
    assert curve.doubt is not None
    assert curve.reached == 0.9

    written = {path: path.stat().st_mtime_ns for run in runs.values() for path in run.rglob("*.ckpt")}
    again = learning_curve(config, tmp_path, epochs=1, fractions=FRACTIONS)
    assert again.points == curve.points
    assert written == {path: path.stat().st_mtime_ns for run in runs.values() for path in run.rglob("*.ckpt")}


def test_what_was_stopped_is_resumed(config: ExperimentConfig, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.ask("by the test")
    with pytest.raises(RunStoppedError):
        learning_curve(config, tmp_path, epochs=1, fractions=(0.5, 1.0), stop=stop)
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    curve = learning_curve(config, tmp_path, epochs=1, fractions=(0.5, 1.0), num_seeds=2)
    assert int(rows_of(run)[-1]["step"]) == 8
    assert [(p.num_images, p.seed - config.seed) for p in curve.points] == [(8, 0), (16, 0), (8, 1), (16, 1)]
    seeds = [load_config(path / "config.yaml").data.split_seed for path in sorted(tmp_path.glob("8_images*"))]
    assert seeds == [0, 1]


def test_a_module_of_ones_own_cannot_be_trained_again(tmp_path: Path) -> None:
    own = ExperimentConfig.model_validate_json('{"model": {"name": "custom"}, "data": {"name": "custom"}}')
    with pytest.raises(ConfigError, match="a learning curve needs a model that settings describe"):
        learning_curve(own, tmp_path)
