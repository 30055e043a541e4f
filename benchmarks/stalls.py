"""How long `detseg train` takes to end, or to say what is wrong, where its loader fails: little shared memory, a
process that is killed or stopped. Prints the table of docs/reliability.md (Linux; a /dev/shm of its own needs root).

    python -m benchmarks.stalls data/bccd
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

_SETTINGS = "yolo_bccd data.fraction=0.1 data.num_workers=2 trainer.num_previews=0 tracking=[]"
_SHORT = "data.image_size=416 data.batch_size=4 trainer.max_epochs=1"  # batches of the loader: 25 MB
_LONG = "data.image_size=64 data.loader_timeout=8 trainer.max_epochs=500 trainer.validate_every=500"

Fault = Callable[[int, list[int]], None]
"""What is done to a training and its loader processes, by their numbers."""


class Training:
    """A `detseg train` that runs; ``lines``: what it has said, each with the time."""

    def __init__(self, root: Path, settings: str, shared_memory: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        places = [f"data.root={root}", f"run_dir={self._folder.name}/run"]
        command = [sys.executable, "-m", "detseg", "train", *_SETTINGS.split(), *settings.split(), *places]
        if shared_memory is not None:
            mount = f'mount -t tmpfs -o size={shared_memory} tmpfs /dev/shm && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
        self.began, self.lines = time.monotonic(), list[tuple[float, str]]()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line))

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        while not any(text in line for _, line in self.lines):
            if self.process.poll() is not None:
                raise SystemExit(f"the training ended before {text!r}: {self.lines[-1:]}")
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Its loader processes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> float:
        """Wait for its end; returns when that was."""
        self.process.wait()
        ended = time.monotonic()
        self._reader.join(10)
        self._folder.cleanup()
        return ended


def small(root: Path, size: str) -> list[str]:
    """A row for a training with little shared memory: from its start on."""
    training = Training(root, _SHORT, size)
    workers = list[int]()
    while training.process.poll() is None:
        workers = training.workers() or workers
        time.sleep(0.2)
    ended = training.end()
    before = itertools.takewhile(lambda entry: not entry[1].startswith("epoch "), training.lines)
    found = [at for at, line in before if "/dev/shm has" in line]
    said = f"{found[0] - training.began:.1f}, before the first step" if found else "none: there is room"
    return [f"`/dev/shm` of {size[:-1]} MB", said, f"{ended - training.began:.1f}", *_after(training, workers)]


def broken(root: Path, what: str, fault: Fault) -> list[str]:
    """A row for a training of which something fails in an epoch after the second: from then on."""
    training = Training(root, _LONG)
    training.wait_for("epoch 2/")
    workers = training.workers()
    fault(training.process.pid, workers)
    began = time.monotonic()
    ended = training.end()
    at, line = training.lines[-1]
    print(f"{what}: {line.strip()}", file=sys.stderr)
    return [what, f"{at - began:.1f}", f"{ended - began:.1f}", *_after(training, workers)]


def _after(training: Training, workers: list[int]) -> list[str]:
    """The exit code, and how many of these processes run a second later."""
    time.sleep(1)
    return [str(training.process.returncode), str(sum(_is_running(pid) for pid in workers))]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _stop_and_ask(main: int, workers: list[int]) -> None:
    _stop(main, workers)
    time.sleep(3)  # it waits for a batch by now
    os.kill(main, signal.SIGTERM)


def _stop(_: int, workers: list[int]) -> None:
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="How a training ends where its loader fails.")
    parser.add_argument("root", type=Path, help="folder of BCCD")
    root = parser.parse_args().root.resolve()
    rows = [["", "seconds to the line", "to the exit", "exit code", "orphans"], ["---"] * 5]
    rows += [small(root, size) for size in ("1m", "8m", "64m")]
    rows.append(broken(root, "a process is killed (SIGKILL)", lambda _, workers: os.kill(workers[0], signal.SIGKILL)))
    rows.append(broken(root, "all are stopped (SIGSTOP), `data.loader_timeout=8`", _stop))
    rows.append(broken(root, "all are stopped, and 3 seconds later SIGTERM", _stop_and_ask))
    for row in rows:
        print(f"| {' | '.join(row)} |")
    load = os.getloadavg()[0]
    versions = f"Python {platform.python_version()}, torch {version('torch')}, lightning {version('lightning')}"
    print(f"{date.today()}, {versions}, {os.cpu_count()} cores, load {load:.1f}")


if __name__ == "__main__":
    main()
