"""What a run says: before, while it runs, in a terminal and without one, and at its end."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from detseg.structures import BoxTargets
from detseg.training.callbacks.progress import Pace, RunProgress, ValidateLastEpoch
from tests.heard import heard
from tests.tiny import TinyRun
from tests.training.stub import OneWeight, Validated, batch_of, fit, task_of

ROOT = Path(__file__).resolve().parents[3]
BATCHES = [batch_of(255), batch_of(255)]
pytestmark = pytest.mark.filterwarnings("ignore")


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"  \S+ img/s  left (\d+:\d\d:\d\d|-:--:--)$", "", line) for line in lines]


def test_a_line_an_epoch_with_a_validation_where_there_was_one(tmp_path: Path) -> None:
    """The weight falls from 9 by 0.5 a step, two steps an epoch; validated are the second epoch and the last."""
    callbacks = [RunProgress(), ValidateLastEpoch()]
    with heard() as lines:
        fit(task_of(OneWeight(9.0)), BATCHES, tmp_path, max_epochs=3, callbacks=callbacks, check_val_every_n_epoch=2)
    assert without_times(lines) == [
        "epoch 1/3  loss 8.75  lr 0.5",
        "epoch 2/3  loss 7.75 (val 7.00)  AP50 1.000  AP 1.000  lr 0.5",
        "epoch 3/3  loss 6.75 (val 6.00)  AP50 1.000  AP 1.000  lr 0.5",
    ]
    assert without_times(lines) != lines


def test_without_a_terminal_a_line_whenever_the_next_batch_would_come_too_late(tmp_path: Path) -> None:
    with heard() as lines:
        fit(task_of(OneWeight(9.0)), BATCHES, tmp_path, max_epochs=1, callbacks=[RunProgress(every_seconds=0.0)])
    shown = without_times(lines)
    assert shown[:2] == ["epoch 1/1  batch 1/2  loss 9.00  lr 0.5", "epoch 1/1  batch 2/2  loss 8.50  lr 0.5"]
    assert all(line.startswith("epoch 1/1  validation ") for line in shown[2:-1])
    assert shown[-1].startswith("epoch 1/1  loss 8.75 (val 8.00)")


class Trailing(OneWeight):
    """Its validation loss is ten times that of training."""

    def losses_and_predictions(self, images: Tensor, targets: list[BoxTargets]) -> Validated:
        terms = self.losses(images, targets)
        return {name: 10 * value for name, value in terms.items()}, self.predict(images)


def test_a_validation_loss_that_means_nothing_yet_is_left_out_with_the_reason(tmp_path: Path) -> None:
    with heard() as lines:
        fit(task_of(Trailing(9.0)), BATCHES, tmp_path, max_epochs=2, callbacks=[RunProgress()])
    reason, *epochs = lines
    assert "the validation loss (80) is left out of the first lines" in reason
    shown = [line.partition("  AP50")[0] for line in epochs]
    assert shown == ["epoch 1/2  loss 8.75 (val -)", "epoch 2/2  loss 7.75 (val -)"]


def test_the_time_left_counts_neither_the_start_nor_the_first_batch() -> None:
    """Loaders take 100 seconds to start, a batch of 4 images 2, the validation 10; then batches become slower."""
    now = 0.0
    pace = Pace(lambda: now)

    def left() -> str:
        return pace.left(batches=30, validations=2, val_batches=6)

    now += 100
    pace.batch(4)
    assert (pace.rate(), left()) == ("- img/s", "left -:--:--")
    for _ in range(5):
        now += 2
        pace.batch(4)
    assert (pace.rate(), left()) == ("2.00 img/s", "left 0:01:08")  # 30 x 2, and 2 x 6 batches of a third of 2 seconds
    pace.pause()
    now += 10
    pace.pause(validated=True)
    now += 7
    pace.batch(4)
    assert left() == "left 0:01:20"  # 30 x 2 + 2 x 10
    for _ in range(60):
        now += 4
        pace.batch(4)
    assert (pace.rate(), left()) == ("1.00 img/s", "left 0:02:20")


def screen_of(output: str, columns: int) -> list[str]:
    """The lines that a terminal shows, scrolled back to the first, after the control sequences that bars use."""
    rows, row, column = [""], 0, 0
    for code, character in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([\s\S])", output):
        if code.endswith("A"):
            row -= int(code[:-1] or 1)
        elif code == "2K":
            rows[row] = ""
        elif character == "\r":
            column = 0
        elif character == "\n" or (character and column == columns):
            row, column = row + 1, 0 if character != "\n" else column
            rows += [""] * (row + 1 - len(rows))
        if character and character not in "\r\n":
            rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows]


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.processes
@pytest.mark.parametrize("columns", [80, pytest.param(140, marks=pytest.mark.slow)])
def test_a_terminal_shows_every_line_whole(columns: int, tiny_run: TinyRun, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    run_dir = tmp_path / "run"
    settings = ("trainer.max_epochs=4", "trainer.validate_every=2", f"run_dir={run_dir}")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "detseg", "train", str(tiny_run.config_path), *settings]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux's way of saying that nobody writes any more
            part = b""
        if not part:
            break
        parts.append(part)
    os.close(ours)
    output = b"".join(parts).decode()
    assert process.wait() == 0, output
    assert "\u2501" in output  # a bar was there
    lines = screen_of(output, columns)
    assert not any("\u2501" in line for line in lines)
    epochs = [line for line in lines if "epoch " in line and " img/s " in line]
    numbers = r"loss \S+( \(val \S+\)  AP50 \d\.\d{3}  AP \d\.\d{3})?  \S+ img/s  left \d:\d\d:\d\d"
    assert len(epochs) == 4
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(rf"epoch {number}/4  {numbers}", line)
    assert max(map(len, epochs)) <= 80

    said = dict(line.split(maxsplit=1) for line in lines if re.match(r"\w+ {2,}", line))
    assert re.fullmatch(r"cpu \(.+\), 1 thread, float32", said["device"])
    assert said["data"] == "16 training and 9 validation images, network input 64 x 64"
    assert re.fullmatch(r"blue \d+, red \d+, yellow \d+ \(objects\)", said["classes"])
    assert said["model"] == "yolo on csp_nano, 0.45 M parameters"
    assert any(re.fullmatch(r"best epoch: [24], AP \d\.\d{3}, AP50 \d\.\d{3}", line) for line in lines)
    flat = "".join(lines)  # paths are longer than a line; at its end a blank is lost
    assert f"best checkpoint: {run_dir}/checkpoints/best.ckpt" in flat
    assert f"detseg evaluate {run_dir}, and detseg report" in flat
    images = (tiny_run.data_root / "JPEGImages").glob("val*")
    assert any(str(image) in flat[flat.rindex("detseg predict") :] for image in images)
