"""A process of its own that trains on worst-case batches and says what they took: python -m
detseg.experiment.probe_process

It is told what to train in a first line of JSON, then numbers of images, one a line; it answers each with a line of
JSON.  What it does to weights, statistics and random generators ends with it, and where memory is not refused but
paid for with the life of a process it is this one that is ended, not the one that trains.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from detseg.config.load import config_from_dict
from detseg.experiment.assembly import build_task
from detseg.experiment.worst_batch import WorstImage
from detseg.memory.exhausted import is_out_of_memory
from detseg.memory.host import process_memory
from detseg.ops.images import to_float
from detseg.structures import ClassTable
from detseg.training.optimizers import build_optimizer
from detseg.training.precision import resolve_precision


class Trial:
    """A training of nothing but worst-case batches.

    Args:
        order: ``config`` with a number for ``data.batch_size``, names of the ``classes``, ``device``, and ``hw`` and
            ``num_objects`` of a ``WorstImage``.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self.device = torch.device(order["device"])
        self.on_gpu = self.device.type == "cuda"
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        self.room = torch.cuda.mem_get_info(self.device)[0] if self.on_gpu else 0
        self.base = 0 if self.on_gpu else process_memory()[0]
        self.config = config_from_dict(order["config"], "the settings of the run")
        self.classes = ClassTable(tuple(order["classes"]))
        self.worst = WorstImage(tuple(order["hw"]), order["num_objects"])
        self.precision = resolve_precision(self.config.trainer.precision, self.device.type)
        self.task = build_task(self.config, self.classes, Console(file=io.StringIO()), load_pretrained=False)
        if self.task.frozen is not None:  # what trains later takes memory later
            self.task.frozen.release(self.config.trainer.max_epochs)
        self.task.to(self.device).train()
        self.optimizer = build_optimizer(self.config.optimizer, self.task.model)
        self.is_warm = False

    def measure(self, num_images: int) -> int | None:
        """The most memory in bytes that training and validation on so many images took; None: it did not fit."""
        try:
            if not self.is_warm:  # the optimiser's own numbers come into being in the first step
                self._train(num_images)
                self.is_warm = True
            if self.on_gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
            self._train(num_images)
            self._validate(num_images)
            return torch.cuda.max_memory_allocated(self.device) if self.on_gpu else process_memory()[1] - self.base
        except ValueError:  # one image of few pixels leaves batch normalisation a single value; two take more
            if num_images > 1:
                raise
            return self.measure(2)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.optimizer.zero_grad()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
        return None

    def _train(self, num_images: int) -> None:
        """One step in the order of Lightning's: the last step's gradients are there until the losses are computed."""
        settings = self.config.trainer
        batch = self.worst.batch(num_images, self.config, self.classes).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            terms = self.task.model.losses(to_float(batch.images), self.task.targets(batch))
        total = torch.stack(list(terms.values())).sum()
        if settings.accumulate_grad_batches == 1:
            self.optimizer.zero_grad()
        torch.autograd.backward(total)
        if settings.gradient_clip_norm:
            torch.nn.utils.clip_grad_norm_(self.task.parameters(), settings.gradient_clip_norm)
        self.optimizer.step()
        if self.task.average is not None:
            self.task.average.update(self.task.model, 1)

    @torch.no_grad()
    def _validate(self, num_images: int) -> None:
        self.task.eval()
        batch = self.worst.batch(num_images, self.config, self.classes).to(self.device)
        self.task.evaluated_model.losses_and_predictions(to_float(batch.images), self.task.targets(batch))
        self.task.train()


def main() -> None:
    """Serve the process at the other ends of stdin and stdout."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not get among the answers
    with suppress(OSError):  # where memory runs out, this process is the one to end
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    trial = Trial(json.loads(sys.stdin.readline()))
    print(json.dumps({"room": trial.room}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"bytes": trial.measure(int(line))}), file=answers, flush=True)


if __name__ == "__main__":
    main()
