"""Loaders that lose a process, wait for one, or have no room: one line within bounded time, and no process left."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.data.loading import processes
from detseg.data.loading.loader import BatchLoader, eval_loader
from detseg.errors import DetsegError
from detseg.structures import Sample
from tests.data.images.painted import LabeledSource, PaintedSource

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and shared memory are those of Linux")


class _Stuck(PaintedSource):
    """Its third image never comes."""

    def __getitem__(self, index: int) -> Sample:
        while index == 2:
            time.sleep(1)
        return super().__getitem__(index)


class _Killed(PaintedSource):
    """A process that reads its third image is killed, as for want of memory."""

    def __getitem__(self, index: int) -> Sample:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def error_of(loader: BatchLoader) -> str:
    try:
        list(loader)
    except DetsegError as error:
        return str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_Stuck(8), "data.loader_timeout: no batch came from the loader's processes for 1 s: is there a disk"),
        (_Killed(8), "a loader process has died: "),
    ],
)
def test_a_stall_or_a_killed_process_is_one_line_and_leaves_no_process(source: PaintedSource, message: str) -> None:
    others = set(multiprocessing.active_children())
    loader = eval_loader(source, input_hw=(32, 32), batch_size=1, num_workers=2, timeout=1)
    began = time.monotonic()
    assert error_of(loader).startswith(message)
    assert time.monotonic() - began < 60  # it would be 300 s, or for ever
    for worker in set(multiprocessing.active_children()) - others:
        worker.join(10)
        assert worker.exitcode == -signal.SIGKILL


def test_batches_without_room_in_shared_memory_go_through_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(eval_loader(LabeledSource(10), input_hw=(64, 96), batch_size=4, num_workers=0))

    def full(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    found = list(eval_loader(LabeledSource(10), input_hw=(64, 96), batch_size=4, num_workers=2))
    for one, other in zip(expected, found, strict=True):
        assert one.semantic is not None
        assert other.semantic is not None
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.semantic, other.semantic)
        assert one.indices == other.indices


def test_little_shared_memory_is_said_once_before_the_first_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"input_hw": (320, 320), "batch_size": 1}
    monkeypatch.setattr(processes, "_has_warned", False)
    with caplog.at_level(logging.WARNING, "detseg"):
        eval_loader(PaintedSource(1), **options, num_workers=1)
        assert not caplog.messages
        monkeypatch.setattr(processes, "_SHARED", str(Path("/nowhere")))
        for num_workers in (1, 2):
            eval_loader(PaintedSource(1), **options, num_workers=num_workers)
    (line,) = caplog.messages
    assert line.startswith("/nowhere has 0 MB free, and batches of the loader's processes may take 1 MB: those without")


_SCRIPT = """
import sys, torch
from detseg.data.loading.loader import eval_loader
from tests.data.images.painted import PaintedSource

def loaded(num_workers):
    return eval_loader(PaintedSource(24), input_hw=(640, 640), batch_size=4, num_workers=num_workers, timeout=60)

if __name__ == "__main__":
    with_workers = [batch.images for batch in loaded(2)]
    assert all(torch.equal(one, batch.images) for one, batch in zip(with_workers, loaded(0), strict=True))
    print(len(with_workers))
"""


def _in_small_memory(size: str, script: Path) -> subprocess.CompletedProcess[str]:
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {sys.executable} {script}"
    command = ["unshare", "--mount", "sh", "-c", mount]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)


@pytest.mark.skipif(shutil.which("unshare") is None or os.getuid() != 0, reason="mounts need root")
@pytest.mark.parametrize(("size", "is_small"), [("1m", True), ("8m", True), ("64m", False)])
def test_a_small_file_system_for_shared_memory(size: str, is_small: bool, tmp_path: Path) -> None:
    """Two processes with four batches of 4.9 MB each: 39 MB and the one at work."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = _in_small_memory(size, script)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("mounts are not allowed here")
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
    assert ("those without room go through pipes" in done.stderr) == is_small
    assert "Traceback" not in done.stderr
