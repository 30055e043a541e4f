"""`tools/train.py` as a process of its own: what reaches the screen, Ctrl-C, and several processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import read_model_checkpoint, read_raw_checkpoint
from detseg.data.build import open_split
from detseg.data.loading.loader import eval_loader
from detseg.factory import load_model
from detseg.models.yolo.detector import YoloDetector
from detseg.ops.tensors import to_float
from detseg.training.resume import HOW_TO_RESUME
from tests.rounding import rounding_of_losses
from tests.tiny import TinyRun, tiny_config, write_colors

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
EPOCH_LINE = r"epoch \d+/\d+  loss [\d.]+ \(val [\d.-]+\)  AP50 [\d.]+  AP [\d.]+  lr [\d.e+-]+  \S+ img/s  left \S+"
SPOKEN = (
    r"voc (train|val): (images without objects|difficult objects) .*",
    r"(device|data|classes|model|training|hint|run|tracking) {2,8}\S.*",
    r" {10}\S.*",  # more of a hint
    r"the validation loss .* is left out of the first lines .*",
    r"truth beside prediction, drawn after each validation: .*",
    EPOCH_LINE,
)


def start(config: Path, run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start a training in a process group of its own, as a shell does."""
    command = [sys.executable, "tools/train.py", str(config), f"run_dir={run_dir}", "trainer.validate_every=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Processes in the background ignore Ctrl-C, and so do their children: the tests may run there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([*command, *overrides], cwd=ROOT, env=environment, start_new_session=True, **options)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_the_group_saves_and_is_one_line(sent: signal.Signals, tiny_run: TinyRun, tmp_path: Path) -> None:
    process = start(tiny_run.config_path, tmp_path / "run", "trainer.max_epochs=900", "data.num_workers=1")
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("epoch 2/"):
                os.killpg(process.pid, sent)  # to the loader's workers as well, as a terminal does, and SLURM
                break
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75
    run_dir = tmp_path / "run"
    step = read_raw_checkpoint(run_dir / "checkpoints" / "last.ckpt")["global_step"]
    # In one line, and none of Lightning's tips and warnings.
    saved = f"everything is saved in {run_dir}: {HOW_TO_RESUME}\n"
    assert errors == f"stopped by {sent.name} after step {step}; {saved}"
    lines += output.splitlines()
    foreign = [line for line in lines if not any(re.fullmatch(pattern, line) for pattern in SPOKEN)]
    assert foreign == []
    assert read_model_checkpoint(run_dir / "checkpoints" / "last.ckpt").epoch >= 2


def test_two_processes_leave_one_run_with_the_numbers_of_one(tiny_run: TinyRun, tmp_path: Path) -> None:
    overrides = ("trainer.max_epochs=1", "trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1")
    process = start(tiny_run.config_path, tmp_path / "run", *overrides)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    assert output.count("data      16 training and 9 validation images") == 1  # only the first process speaks
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    run = TinyRun(tiny_run.config_path, tiny_run.data_root, tmp_path / "run")
    (row,) = run.rows()
    assert int(row["step"]) == 8  # 16 images, one for each of two processes

    model, _, _ = load_model(run.run_dir / "checkpoints" / "last.ckpt")
    assert isinstance(model, YoloDetector)
    dataset = open_split(tiny_config(tiny_run.config_path, None).data, "val")
    losses = []
    for batch in eval_loader(dataset, input_hw=(64, 64), batch_size=1, num_workers=0):
        with torch.no_grad():
            losses.append(float(sum(model.losses(to_float(batch.images), batch.targets).values())))
    assert float(row["val/loss"]) == pytest.approx(sum(losses) / 9, rel=rounding_of_losses(model))


@pytest.mark.parametrize("broken", range(2), ids=["in an early image", "in a late image"])
@pytest.mark.slow
def test_an_error_in_one_of_two_processes_ends_both(broken: int, tiny_run: TinyRun, tmp_path: Path) -> None:
    root = write_colors(tmp_path / "colors")
    (root / "JPEGImages" / f"train{3 + 5 * broken:02d}.png").write_bytes(b"no image")
    overrides = ("trainer.max_epochs=2", "trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1")
    process = start(tiny_run.config_path, tmp_path / "run", f"data.root={root}", *overrides)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    # The first process adds a line where the other one has failed.
    peer = r"(error: another process of this run has ended, .*\n)?"
    assert re.fullmatch(rf"error: .*: not an image, or damaged beyond recognition; .*\n{peer}", errors)
