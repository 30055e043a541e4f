"""A run that is killed, or asked to stop, and resumed ends as the run that was left alone: to the bit, with every
metric."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from detseg.checkpoint import read_raw_checkpoint
from detseg.errors import EXIT_STOPPED
from tests.kills import KillPoint, Run, Setup, kill_at_random, result_of

pytestmark = pytest.mark.processes
Whole = dict[str, tuple[Setup, tuple[str, str]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Each model's setup, and how its run ends that nobody kills."""
    found = {}
    for name in ("yolo", "unet", "mask_rcnn"):
        setup = Setup.write(name, tmp_path_factory.mktemp("kills") / name)
        run_dir = setup.config.parent / "whole"
        assert Run(setup, run_dir).wait() == 0
        found[name] = (setup, result_of(run_dir))
    return found


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


STEP, VALIDATION, WRITE, RENAME = ("step", "validation", "write", "rename")


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("yolo", [(STEP, 1)]),  # before anything is saved: the run begins anew
        slow("yolo", [(STEP, 5)]),
        slow("yolo", [(VALIDATION, 2)]),
        ("yolo", [(WRITE, 1)]),  # the first file ever
        slow("yolo", [(WRITE, 4)]),
        ("yolo", [(RENAME, 3)]),  # last.ckpt is previous.ckpt by now, and the new one not yet last.ckpt
        slow("yolo", [(STEP, 13)]),
        slow("unet", [(STEP, 8)]),
        ("unet", [(VALIDATION, 1)]),
        ("mask_rcnn", [(STEP, 11)]),
        slow("unet", [(STEP, 4), (WRITE, 1), (STEP, 4), (VALIDATION, 1)]),
    ],
    ids=str,
)
def test_a_killed_run_ends_as_the_whole(name: str, kills: list[tuple[str, int]], whole: Whole, tmp_path: Path) -> None:
    setup, expected = whole[name]
    for kill in kills:
        assert Run(setup, tmp_path / "run", KillPoint(*kill)).wait() == -signal.SIGKILL
    assert Run(setup, tmp_path / "run", settings=("data.num_workers=1",)).wait() == 0
    assert result_of(tmp_path / "run") == expected


@pytest.mark.parametrize("damage", ["a byte", slow("half")])
def test_a_damaged_newest_file_is_named_and_the_one_before_taken(damage: str, whole: Whole, tmp_path: Path) -> None:
    setup, expected = whole["yolo"]
    assert Run(setup, tmp_path / "run", KillPoint("step", 11)).wait() == -signal.SIGKILL
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = read_raw_checkpoint(last.with_name("previous.ckpt"))
    content = bytearray(last.read_bytes())
    if damage == "half":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1  # in the middle of a tensor, where a zip file is still a zip file
    last.write_bytes(content)
    (tmp_path / "run" / "metrics.csv").write_text("x,1\ny,2\n", encoding="utf-8")  # the rows are in the checkpoint
    # Killed once more, at its first save: the damaged file must not have taken the place of the good one.
    assert Run(setup, tmp_path / "run", KillPoint("rename", 1)).wait() == -signal.SIGKILL
    said = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert Run(setup, tmp_path / "run", settings=("data.num_workers=1",)).wait() == 0
    assert result_of(tmp_path / "run") == expected
    assert last.with_name("damaged.ckpt").read_bytes() == content
    assert f"{last}: damaged" in said
    assert f"going on from {last.with_name('previous.ckpt')}, step {before['global_step']}\n" in said


def test_a_run_that_is_over_is_over_for_a_job_that_is_started_again(whole: Whole) -> None:
    setup, expected = whole["unet"]
    run_dir = setup.config.parent / "whole"
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert Run(setup, run_dir).wait() == 0
    assert (run_dir.with_suffix(".log")).read_text(encoding="utf-8").startswith("nothing is left to train: the checkp")
    assert {path: path.read_bytes() for path in before} == before
    assert result_of(run_dir) == expected


def test_early_stopping_ends_a_run_for_good(whole: Whole, tmp_path: Path) -> None:
    setup, _ = whole["unet"]
    patient = ("trainer.max_epochs=9", "trainer.validate_every=1", "optimizer.lr=1e-12")
    impatient = (*patient, "trainer.early_stopping_patience=1")
    assert Run(setup, tmp_path / "run", settings=impatient).wait() == 0
    ended = result_of(tmp_path / "run")
    epochs = ended[1].count("\n") - 1
    assert epochs < 9
    assert Run(setup, tmp_path / "run", settings=impatient).wait() == 0
    over = f"nothing is left to train: early stopping ended the run after epoch {epochs}; raise trainer.early"
    assert (tmp_path / "run.log").read_text(encoding="utf-8").startswith(over)
    assert result_of(tmp_path / "run") == ended
    assert Run(setup, tmp_path / "run", settings=(*patient, "trainer.early_stopping_patience=3")).wait() == 0
    # Of three validations without a better mIoU one is behind the run; with the old patience it would end after one.
    assert result_of(tmp_path / "run")[1].count("\n") - 1 >= epochs + 2


@pytest.mark.parametrize("how", ["SIGTERM", slow("SIGINT"), "max_time"])
def test_a_run_that_is_asked_to_stop_saves_the_step_that_it_is_at(how: str, whole: Whole, tmp_path: Path) -> None:
    setup, expected = whole["unet"]
    rare = ("trainer.save_every_steps=1000",)
    if how == "max_time":
        run = Run(setup, tmp_path / "run", settings=(*rare, "trainer.max_time=0:00:00"))
    else:
        run = Run(setup, tmp_path / "run", settings=rare).started()
        assert run.process.pid is not None
        os.kill(run.process.pid, getattr(signal, how))
    assert run.wait() == EXIT_STOPPED
    last = read_raw_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    said = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()[-1]
    reason = "trainer.max_time" if how == "max_time" else how
    assert said == (
        f"stopped by {reason} after step {last['global_step']}; everything is saved in {tmp_path / 'run'}: resume "
        'with --resume (in Python: resume="last")'
    )
    assert Run(setup, tmp_path / "run").wait() == 0
    assert result_of(tmp_path / "run") == expected


def test_a_job_of_slurm_goes_back_to_the_queue(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, expected = whole["unet"]
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/queue\n', encoding="utf-8")
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    run = Run(setup, tmp_path / "run", environment=slurm).started()
    assert run.process.pid is not None
    os.kill(run.process.pid, signal.SIGUSR1)
    assert run.wait() == EXIT_STOPPED
    assert (tmp_path / "queue").read_text(encoding="utf-8") == "requeue 77\n"
    assert Run(setup, tmp_path / "run", environment=slurm).wait() == 0  # as the job is started again
    assert result_of(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo", "unet", "mask_rcnn"])
def test_kills_at_random_moments(name: str, whole: Whole, tmp_path: Path) -> None:
    setup, expected = whole[name]
    rng = random.Random(name)
    for number in range(4):
        while kill_at_random(setup, tmp_path / f"run{number}", 2.0, rng) is None:
            (tmp_path / f"run{number}").rename(tmp_path / f"over{number}-{rng.random()}")
        assert result_of(tmp_path / f"run{number}") == expected
