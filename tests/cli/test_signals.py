"""SIGTERM while a training waits for a batch that does not come, and in a learning curve."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from detseg.checkpoint.provenance import command
from detseg.cli import main
from detseg.cli.signals import stop_on_signals
from detseg.errors import EXIT_STOPPED, RunStoppedError
from detseg.structures import ImageAnnotations, Sample
from detseg.training.resume import HOW_TO_RESUME
from detseg.training.run import train
from detseg.training.setup.build import Own
from tests.data.images.painted import PaintedSource
from tests.kills import result_of
from tests.tiny import TinyRun, tiny_config

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals"),
]


class _Stuck(PaintedSource):
    """The tenth time that an image is read, the read does not end, and the training is sent a signal."""

    def __init__(self, num: int, stuck: bool = True) -> None:
        super().__init__(num)
        self.training, self.num_reads, self.stuck = os.getpid(), 0, stuck

    def __getitem__(self, index: int) -> Sample:
        self.num_reads += 1
        if self.stuck and self.num_reads == 10:
            time.sleep(1)  # what is ready is trained on
            os.kill(self.training, signal.SIGTERM)
            os.read(os.pipe()[0], 1)
        return super().__getitem__(index)

    def annotations(self, index: int) -> ImageAnnotations:
        return PaintedSource(self.num).annotations(index)


def test_a_stopped_learning_curve_says_what_to_type(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`detseg report` has no --resume."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run_dir, run)

    def stop() -> None:
        deadline = time.monotonic() + 60
        while not list(run.glob("learning_curve/*/metrics.csv")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert main(["report", str(run), "--learning-curve", "--device", "cpu"]) == EXIT_STOPPED
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert "everything is saved in" in line
    assert f"the same command resumes: {command()}" in line
    assert "--resume" not in line
    assert not (run / "report").exists()


@pytest.mark.parametrize(
    ("num_workers", "accumulated", "steps"), [(1, 1, 4), pytest.param(0, 1, 4, marks=pytest.mark.slow), (0, 3, 1)]
)
def test_a_training_that_waits_leaves_saves_and_resumes(
    num_workers: int, accumulated: int, steps: int, tiny_run: TinyRun, tmp_path: Path
) -> None:
    """Four batches of two images come, and the fifth does not. Half of an accumulated step cannot be saved."""
    settings = (f"data.num_workers={num_workers}", f"trainer.accumulate_grad_batches={accumulated}")
    settings += ("trainer.max_epochs=1", "trainer.num_previews=0", "data.augmentation.mosaic=0")
    config = tiny_config(tiny_run.config_path, tmp_path / "run", *settings)
    began = time.monotonic()
    with pytest.raises(RunStoppedError) as caught, stop_on_signals() as stop:
        train(config, tiny_run.config_path, own=Own(data_sets=(_Stuck(12), PaintedSource(12)), stop=stop))
    assert 5 < time.monotonic() - began < 30  # data.loader_timeout is 300
    run_dir = tmp_path / "run"
    saved = f"everything is saved in {run_dir}: {HOW_TO_RESUME}" if accumulated == 1 else "nothing was saved"
    when = f"after step {steps}, waiting for a batch that did not come"
    assert str(caught.value) == f"stopped by SIGTERM {when}; {saved}"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    resume = "last" if accumulated == 1 else None
    train(config, tiny_run.config_path, resume, Own(data_sets=(_Stuck(12, False), PaintedSource(12))))
    whole = tiny_config(tiny_run.config_path, tmp_path / "whole", *settings)
    train(whole, tiny_run.config_path, own=Own(data_sets=(_Stuck(12, False), PaintedSource(12))))
    assert result_of(run_dir) == result_of(tmp_path / "whole")
