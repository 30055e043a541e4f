"""Asks a process of its own (``probe_process``) what training on so many images takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from detseg.config.load import config_to_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError
from detseg.experiment.worst_batch import WorstImage
from detseg.structures import ClassTable


class MemoryProbe:
    """Measures batches in a ``with`` block, at whose end the process that does it ends, too.

    Args:
        config: the settings of the training.
        classes: of the data.
        worst: the image that batches are made of.
        device: what the training computes on.

    Attributes:
        room: bytes that were free on the device before anything was there; 0: it is the CPU.
    """

    def __init__(self, config: ExperimentConfig, classes: ClassTable, worst: WorstImage, device: str) -> None:
        one = config.data.model_copy(update={"batch_size": 1})
        # Compiling would take minutes for each size that is tried; compiled networks keep fewer maps, not more.
        plain = config.trainer.model_copy(update={"compile": False})
        settings = config_to_dict(config.model_copy(update={"data": one, "trainer": plain}))
        self._order: dict[str, Any] = {
            "config": settings,
            "classes": classes.names,
            "device": device,
            "hw": worst.hw,
            "num_objects": worst.num_objects,
        }
        self.room = 0

    def __enter__(self) -> MemoryProbe:
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        package = str(Path(__file__).resolve().parents[2])  # also where it is not installed
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "detseg.experiment.probe_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": path},
        )
        answer = self._ask(json.dumps(self._order))
        self.room = 0 if answer is None else int(answer["room"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def measure(self, num_images: int) -> int | None:
        """The most memory in bytes that training on so many images takes; None: it does not fit.

        Raises:
            ConfigError: the training does not run at all.
        """
        answer = self._ask(str(num_images))
        return None if answer is None else answer["bytes"]

    def _ask(self, line: str) -> dict[str, Any] | None:
        """The answer to a line; None: the system has killed the process, which is how a CPU's memory runs out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            if answer := self._process.stdout.readline():
                loaded: dict[str, Any] = json.loads(answer)
                return loaded
        except BrokenPipeError:
            pass
        if self._process.wait() == -signal.SIGKILL:
            return None
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or ["it ended without a word"]
        raise ConfigError(
            f"data.batch_size: auto: the trial that measures memory failed: {said[-1]}; mend that, or give a number"
        )
