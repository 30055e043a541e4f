"""Trains with ultralytics' public ``YOLO(...).train``, held at its documented callbacks until the next block is due.

Of ultralytics nothing but the documented interface is used.
"""

from __future__ import annotations

import threading
import time
from queue import Queue
from typing import Any

import torch
import ultralytics
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO

from benchmarks.peers.serve import serve


class Paced:
    """A training that goes on for one step or one epoch at a time."""

    def __init__(self) -> None:
        self.permits: Queue[int] = Queue()
        self.done: Queue[float | BaseException] = Queue()
        self.left = 0
        self.begin = self.taken = 0.0

    def start(self, model: str, unit: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin a training and hold it at its first step or epoch; what is trained."""
        yolo = YOLO(model)
        side = settings["imgsz"]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            yolo.model(torch.zeros(1, 3, side, side))
        yolo.add_callback(f"on_train_{unit}_start", self._wait)
        yolo.add_callback(f"on_train_{unit}_end", self._count)
        threading.Thread(target=self._train, args=(yolo, settings), daemon=True).start()
        return {
            "version": ultralytics.__version__,
            "parameters": sum(parameter.numel() for parameter in yolo.model.parameters()),
            "gflops": counter.get_total_flops() / 1e9,
        }

    def go_on(self, units: int) -> float:
        """Seconds of so many steps or epochs, what lies between them left out."""
        self.permits.put(units)
        taken = self.done.get()
        if isinstance(taken, BaseException):
            raise taken
        return taken

    def _train(self, yolo: Any, settings: dict[str, Any]) -> None:
        try:
            yolo.train(**settings)
        except BaseException as error:  # handed on to whoever waits
            self.done.put(error)

    def _wait(self, _: Any) -> None:
        if not self.left:
            self.left, self.taken = self.permits.get(), 0.0
        self.begin = time.perf_counter()

    def _count(self, _: Any) -> None:
        self.taken += time.perf_counter() - self.begin
        self.left -= 1
        if not self.left:
            self.done.put(self.taken)


if __name__ == "__main__":
    paced = Paced()
    serve({"start": paced.start, "go_on": paced.go_on})
