"""What saving costs a training: the wait at a save, the time until the file is on the disk, and the share of a run.

Everything is saved: weights, averaged weights, and AdamW's two means.  The wait is set beside a plain copy of the same
tensors in memory; the writing is done by a thread beside the training, and what it takes away from it is seen in the
time of blocks of steps with saves and without, in turn.

    python benchmarks/checkpoint_cost.py --model yolo
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from detseg.checkpoint import LAST
from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast, in_memory
from detseg.training.setup.trainer import quiet_lightning
from detseg.training.task import Task

MODELS: dict[str, dict[str, Any]] = {
    "yolo": {"name": "yolo"},
    "faster_rcnn": {"name": "faster_rcnn", "variant": "resnet50_fpn"},
}


class TimedFiles(AtomicCheckpointIO):
    """Takes down the times of a save's parts."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[float] = []
        self.writes: list[float] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Saves, with a copy more, which is the measure; then waits for the disk, which training does not."""
        begin = time.perf_counter()
        in_memory(checkpoint)
        self.copies.append(time.perf_counter() - begin)
        super().save_checkpoint(checkpoint, path, storage_options)


class TimedSaver(BestAndLast):
    """Takes down how long training waits."""

    def __init__(self, folder: Path, files: TimedFiles, every_steps: int | None) -> None:
        super().__init__(folder, "none", files, every_steps)
        self.waits: list[float] = []

    def save(self, trainer: L.Trainer, best: bool = False) -> None:
        """Saves."""
        files: Any = self.files
        files.flush()
        begin = time.perf_counter()
        super().save(trainer, best)
        self.waits.append(time.perf_counter() - begin - files.copies[-1])
        files.flush()
        files.writes.append(time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="yolo")
    parser.add_argument("--size", type=int, default=320, help="side of the square images, pixels")
    parser.add_argument("--batch", type=int, default=4, help="images of a step")
    parser.add_argument("--steps", type=int, default=30, help="steps of a block")
    parser.add_argument("--every", type=int, default=10, help="steps from save to save, in the blocks with saves")
    parser.add_argument("--blocks", type=int, default=5, help="blocks with saves, and without")
    arguments = parser.parse_args()
    quiet_lightning()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report: dict[str, Any] = {"settings": vars(arguments), "torch": torch.__version__}
        parts = TimedSaver(folder, TimedFiles(), every_steps=1)
        block(arguments, parts, steps=12)
        files: Any = parts.files
        for name, values in (("copy", files.copies), ("wait", parts.waits), ("until on the disk", files.writes)):
            report[f"{name}, ms"] = [round(1000 * f(values[2:]), 1) for f in (statistics.median, min, max)]
        report["file, MB"] = round((folder / LAST).stat().st_size / 1e6, 1)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for number in range(arguments.blocks + 1):
            for saving in (False, True):
                saver = BestAndLast(folder, "none", AtomicCheckpointIO(), arguments.every if saving else None)
                found = block(arguments, saver, arguments.steps)
                if number:  # the first one warms up
                    seconds[saving].append(found)
        ratios = [a / b for a, b in zip(seconds[True], seconds[False], strict=True)]
        report["ms a step without saves"] = round(1000 * statistics.median(seconds[False]) / arguments.steps, 1)
        report["steps with saves against steps without"] = [round(f(ratios), 3) for f in (statistics.median, min, max)]
    print(json.dumps(report, indent=1))


def block(arguments: argparse.Namespace, saver: BestAndLast, steps: int) -> float:
    """Seconds of so many steps of a new training, the last save's writing left out."""
    torch.manual_seed(0)
    config = config_from_dict({"model": MODELS[arguments.model], "data": {"name": "coco", "root": "unused"}})
    classes = ClassTable(("a", "b", "c"))
    task = Task(Detection(), build_model(config.model, classes, load_pretrained=False), classes, ema_decay=0.999)
    stopwatch = Stopwatch()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[saver, stopwatch],
        plugins=[saver.files],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches: Any = [random_batch(arguments)] * (steps + 2)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    saver.files.flush()
    return stopwatch.times[-1] - stopwatch.times[1]


class Stopwatch(L.Callback):
    """Takes down when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """The end of the step before, its save included."""
        self.times.append(time.perf_counter())


def random_batch(arguments: argparse.Namespace) -> Batch:
    """Noise with a few random boxes."""
    side = arguments.size
    images = torch.randint(0, 256, (arguments.batch, 3, side, side), dtype=torch.uint8)
    targets = []
    for _ in range(arguments.batch):
        corner = torch.rand(8, 2) * side * 0.6
        boxes = torch.cat([corner, corner + 16 + torch.rand(8, 2) * side * 0.3], dim=1)
        targets.append(BoxTargets(boxes, torch.randint(0, 3, (8,)), torch.zeros(8, dtype=torch.bool)))
    return Batch(images, targets, list(range(arguments.batch)))


if __name__ == "__main__":
    main()
