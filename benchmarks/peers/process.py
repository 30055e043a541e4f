"""A peer in its own environment, asked over a pipe: it is a black box, none of its code is imported here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

_ROOT = Path(__file__).parents[2]

PEER_PYTHON = "DETSEG_PEER_PYTHON"
"""Variable that names the Python of the peer's environment; default: the one that ``make bench`` sets up."""


class PeerProcess:
    """Runs a worker with the peer's Python and so many threads of its torch; a context manager.  A RuntimeError says
    that there is no such environment, that the worker has ended, or what error it reports."""

    def __init__(self, threads: int = 2, worker: str = "ultralytics_worker.py") -> None:
        python = Path(os.environ.get(PEER_PYTHON, _ROOT / ".venv-ultralytics" / "bin" / "python"))
        if not python.exists():
            raise RuntimeError(f"{python}: no environment of the peer; `make bench` sets it up, or set {PEER_PYTHON}")
        changes = {"OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        environment = {**os.environ, **changes, "PYTHONPATH": str(_ROOT)}  # for benchmarks.peers alone
        command, pipe = [str(python), str(Path(__file__).parent / worker)], subprocess.PIPE
        self.last: dict[str, Any] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer of the worker's function ``do`` to arguments of plain data."""
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None and answers is not None  # noqa: PT018  # for mypy
        asks.write(json.dumps({"do": do, **arguments}) + "\n")
        asks.flush()
        line = answers.readline()
        answer = json.loads(line) if line else {"error": "that it has ended"}
        if "error" in answer:
            self._errors.seek(0)
            raise RuntimeError(f"the peer reports {answer['error']}\n{self._errors.read()[-2000:]}")
        return answer["result"]

    def block(self, do: str, key: str, **arguments: Any) -> Callable[[], float]:
        """A block of ``in_turn``: asks, and returns a number of the answer, which ``last`` holds."""

        def work() -> float:
            self.last = self.ask(do, **arguments)
            return float(self.last[key])

        return work


def yolo_labels(boxes: list[list[float]], labels: list[int], hw: tuple[int, int]) -> str:
    """A label file as ultralytics documents it, of xyxy pixels: class, centre and sides as fractions of the image."""
    lines = []
    for label, (x1, y1, x2, y2) in zip(labels, boxes, strict=True):
        values = ((x1 + x2) / 2 / hw[1], (y1 + y2) / 2 / hw[0], (x2 - x1) / hw[1], (y2 - y1) / hw[0])
        lines.append(f"{label} {' '.join(f'{value:.6f}' for value in values)}\n")
    return "".join(lines)
