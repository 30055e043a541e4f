"""A peer in its own environment, asked over a pipe: it is a black box, none of its code is imported here."""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from pathlib import Path
from threading import Thread
from typing import Any, Self

ROOT = Path(__file__).parents[1]

PEER_PYTHON = "DETSEG_PEER_PYTHON"
"""Variable that names the Python of the peer's environment; default: the one that ``make bench`` sets up."""


class PeerProcess:
    """Runs a worker of ``benchmarks/peers`` with the peer's Python; a context manager.

    Args:
        worker: file name of the worker.
        threads: of its torch.

    Raises:
        RuntimeError: there is no such environment, the worker has ended, or it reports an error.
    """

    def __init__(self, worker: str, threads: int = 2) -> None:
        python = Path(os.environ.get(PEER_PYTHON, ROOT / ".venv-ultralytics" / "bin" / "python"))
        if not python.exists():
            raise RuntimeError(
                f"{python}: no such environment of the peer; `make bench` sets it up, or set {PEER_PYTHON}"
            )
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
        environment["PYTHONPATH"] = str(ROOT)  # for benchmarks.peers alone
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / "peers" / worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        self._last_words: deque[str] = deque(maxlen=20)
        Thread(target=lambda: self._last_words.extend(self._process.stderr or ()), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to one request.

        Args:
            do: name of a function of the worker.
            arguments: plain data.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer has ended: {''.join(self._last_words)[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"the peer reports {answer['error']}\n{''.join(self._last_words)[-2000:]}")
        return answer["result"]
