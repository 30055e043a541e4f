"""Time of a training step against torchvision's reference loop: the same network, weights, batches and threads.

The reference is what torchvision's ``references/detection/engine.py`` does for a batch: images and targets to the
device, the model in training mode, the sum of its losses, its value read for the log, backward, step.  Ours is a whole
Lightning training with our task on our wrapper of that network.  Blocks of both follow each other in turn, so that what
else the machine does falls on both.

    python benchmarks/rcnn_step.py --variant resnet50_fpn --size 320 --batch 2
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision.models import detection

from detseg.config.load import config_from_dict
from detseg.config.training import SgdConfig
from detseg.factory import build_model
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.training.detection_task import DetectionTask
from detseg.training.instance_task import InstanceTask
from detseg.training.lightning_noise import quiet_lightning

NUM_CLASSES = 3
SGD = {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0001}


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("faster_rcnn", "mask_rcnn"), default="faster_rcnn")
    parser.add_argument("--variant", default="resnet50_fpn")
    parser.add_argument("--size", type=int, default=320, help="side of the square images, pixels")
    parser.add_argument("--batch", type=int, default=2, help="images of a step")
    parser.add_argument("--objects", type=int, default=10, help="objects of an image")
    parser.add_argument("--steps", type=int, default=5, help="steps of a block")
    parser.add_argument("--blocks", type=int, default=6, help="blocks of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="32-true", help="Lightning's name; the reference is always float32")
    arguments = parser.parse_args()
    quiet_lightning()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batches = [random_batch(arguments) for _ in range(arguments.steps + 1)]
    theirs, ours = both_models(arguments)
    sides: dict[str, Callable[[], list[float]]] = {
        "torchvision": lambda: reference_steps(theirs, batches),
        "detseg": lambda: our_steps(ours, batches, arguments),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for block in range(arguments.blocks + 1):
        for name, run in sides.items():
            found = run()
            if block:  # the first one warms up
                times[name] += found
    ratios = [
        statistics.median(times["detseg"][i : i + arguments.steps])
        / statistics.median(times["torchvision"][i : i + arguments.steps])
        for i in range(0, len(times["detseg"]), arguments.steps)
    ]
    report: dict[str, Any] = {"settings": vars(arguments), "torch": torch.__version__}
    report["torchvision"] = torchvision.__version__
    for name, values in times.items():
        report[f"{name} seconds a step"] = [round(f(values), 4) for f in (statistics.median, min, max)]
    report["ratio, median and range over blocks"] = [round(f(ratios), 3) for f in (statistics.median, min, max)]
    print(json.dumps(report, indent=1))


def random_batch(arguments: argparse.Namespace) -> Batch:
    """Noise with random boxes, and their rectangles as masks."""
    side, num = arguments.size, arguments.objects
    images = torch.randint(0, 256, (arguments.batch, 3, side, side), dtype=torch.uint8)
    targets = []
    for _ in range(arguments.batch):
        corner = (torch.rand(num, 2) * side * 0.7).round()
        boxes = torch.cat([corner, corner + 8 + (torch.rand(num, 2) * side * 0.25).round()], dim=1).clamp(max=side)
        x, y = torch.arange(side), torch.arange(side)[:, None]
        masks = torch.stack([(x >= b[0]) & (x < b[2]) & (y >= b[1]) & (y < b[3]) for b in boxes])
        labels = torch.randint(0, NUM_CLASSES, (num,))
        with_masks = masks if arguments.model == "mask_rcnn" else None
        targets.append(BoxTargets(boxes, labels, torch.zeros(num, dtype=torch.bool), with_masks))
    return Batch(images, targets, list(range(arguments.batch)))


def both_models(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """torchvision's model that resizes nothing, and ours with its weights."""
    constructor = getattr(detection, f"{arguments.model.replace('_', '')}_{arguments.variant}")
    theirs = constructor(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES + 1,
        min_size=arguments.size,
        max_size=arguments.size,
    )
    classes = ClassTable(tuple("abc"))
    settings = {
        "model": {"name": arguments.model, "variant": arguments.variant},
        "data": {"name": "coco", "root": "unused"},
    }
    ours = build_model(config_from_dict(settings).model, classes)
    state = {name.replace("backbone.fpn.", "neck.fpn."): value for name, value in theirs.state_dict().items()}
    missing = ours.load_state_dict(state, strict=False)
    changed = [name for name in (*missing.missing_keys, *missing.unexpected_keys) if not name.startswith("normalize")]
    if changed:
        raise SystemExit(f"the two networks differ: {changed[:5]}")
    return theirs.train(), ours.train()


def reference_steps(model: Any, batches: list[Batch]) -> list[float]:
    """Seconds of each step but the first of torchvision's loop."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **SGD)
    data = [
        (
            [image.float() / 255 for image in batch.images],
            [
                {"boxes": t.boxes, "labels": t.labels + 1} | ({} if t.masks is None else {"masks": t.masks.byte()})
                for t in batch.targets
            ],
        )
        for batch in batches
    ]
    seconds = []
    for images, targets in data:
        start = time.perf_counter()
        losses = sum(model(images, targets).values())
        losses.item()
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


class StepTimer(L.Callback):
    """When each training step of a run was over."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Takes the time."""
        self.ends.append(time.perf_counter())


def our_steps(model: Any, batches: list[Batch], arguments: argparse.Namespace) -> list[float]:
    """Seconds from the end of each step to that of the next, the loops of Lightning included."""
    optimizer = SgdConfig(name="sgd", **SGD)
    task_class = InstanceTask if arguments.model == "mask_rcnn" else DetectionTask
    task = task_class(copy.deepcopy(model), ClassTable(tuple("abc")), optimizer)
    timer = StepTimer()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        precision=arguments.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[timer],
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]  # a list is enough of a data set
    return [b - a for a, b in zip(timer.ends, timer.ends[1:], strict=False)]


if __name__ == "__main__":
    main()
