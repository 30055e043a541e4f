"""Loaders that lose a process, wait for one, or have no room: one line within bounded time, and no process left."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.data.loading import processes
from detseg.data.loading.loader import BatchLoader, eval_loader
from detseg.data.loading.processes import loader_errors
from detseg.errors import DetsegError
from detseg.structures import Sample
from tests.data.images.painted import LabeledSource, PaintedSource

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and shared memory are those of Linux")


class _Failing(PaintedSource):
    """What happens to a process that reads its fourth image, or the image never comes."""

    def __init__(self, fails: Callable[[], object]) -> None:
        super().__init__(8)
        self.fails = fails

    def __getitem__(self, index: int) -> Sample:
        if index == 3:
            self.fails()
        return super().__getitem__(index)


def is_stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def faults() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def reads_for_ever() -> None:
    os.read(os.pipe()[0], 1)


def holds_python() -> None:
    """Native code that lets no other thread run, nor a handler of signals."""
    ctypes.PyDLL(None).sleep(1000)


def read_slowly(loader: BatchLoader) -> None:
    batches = iter(loader)
    next(batches)
    time.sleep(0.5)  # the process has come to the fourth image; torch raises in here what it knows of it
    list(batches)


LATE = "data.loader_timeout: no batch came from the loader's processes for 1 s: is there a disk"
KILLED, FAULTED = (f"a loader process has died, killed by {name}: " for name in ("SIGKILL", "SIGSEGV"))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fails", "message"),
    [(reads_for_ever, LATE), (is_stopped, LATE), (holds_python, LATE), (is_killed, KILLED), (faults, FAULTED)],
)
def test_a_process_that_stalls_or_dies_is_one_line_and_none_is_left(fails: Callable[[], object], message: str) -> None:
    """Also where the batches before are in the queue: a process must hand over their memory."""
    others = set(multiprocessing.active_children())
    loader = eval_loader(_Failing(fails), input_hw=(32, 32), batch_size=1, num_workers=1, timeout=1)
    began = time.monotonic()
    with pytest.raises(DetsegError) as caught, loader_errors():
        read_slowly(loader)
    assert str(caught.value).startswith(message)
    del loader
    gc.collect()
    assert not set(multiprocessing.active_children()) - others
    assert time.monotonic() - began < 30  # it would be 300 s, or for ever


_ENDINGS = """
import multiprocessing, os, signal, sys
from detseg.data.loading.loader import eval_loader
from tests.data.loading.test_loader_failures import _Failing, reads_for_ever

if __name__ == "__main__":
    source = _Failing({"stopped": int, "stuck": reads_for_ever}[sys.argv[1]])
    loader = eval_loader(source, input_hw=(32, 32), batch_size=1, num_workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    if sys.argv[1] == "stopped":
        os.kill(worker.pid, signal.SIGSTOP)
    print(worker.pid, flush=True)
    if sys.argv[2] != "END":
        list(batches)
"""


@pytest.mark.parametrize(
    ("state", "how"),
    [("stopped", "END"), ("stuck", "SIGKILL"), pytest.param("stopped", "SIGINT", marks=pytest.mark.slow)],
)
def test_a_process_that_ends_leaves_none_behind(state: str, how: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_ENDINGS)
    command, environment = [sys.executable, str(script), state, how], os.environ | {"PYTHONPATH": ":".join(sys.path)}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        main = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
    assert main.stdout is not None
    worker = int(main.stdout.readline())
    try:
        if how != "END":
            time.sleep(0.5)
            main.send_signal(signal.Signals[how])
        assert main.wait(20) == {"END": 0, "SIGINT": -signal.SIGINT, "SIGKILL": -signal.SIGKILL}[how]
        deadline = time.monotonic() + 20
        while is_running(worker):
            assert time.monotonic() < deadline, "the loader process outlives its parent"
            time.sleep(0.1)
    finally:
        main.kill()
        main.stdout.close()
        if is_running(worker):
            os.kill(worker, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
    assert line.startswith("/nowhere has 0 MB free, and batches of the loader's processes may take 2 MB: those without")


def test_the_room_that_batches_take_is_with_their_label_maps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "_has_warned", False)
    monkeypatch.setattr(processes, "_SHARED", str(Path("/nowhere")))
    (batch,) = eval_loader(LabeledSource(2), input_hw=(640, 960), batch_size=2, num_workers=0)
    assert batch.semantic is not None
    one = batch.images.nbytes + batch.semantic.nbytes
    with caplog.at_level(logging.WARNING, "detseg"):
        eval_loader(LabeledSource(2), input_hw=(640, 960), batch_size=2, num_workers=2)
    assert f"may take {9 * one / 2**20:.0f} MB" in caplog.text  # four of each process and one at work


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
