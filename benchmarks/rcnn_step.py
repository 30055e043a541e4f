"""A training step of Faster R-CNN beside torchvision's reference loop: the same network, weights, batches and threads.

The reference is what torchvision's ``references/detection/engine.py`` does for a batch: images and targets to the
device, the model in training mode, the sum of its losses, its value read for the log, backward, step, in float32.  Ours
is a whole Lightning training with our task on our wrapper of that network, in ``auto`` precision; a second row has it
in float32, too.

    python -m benchmarks.rcnn_step
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torchvision.models import detection

from benchmarks.in_turn import Row, in_turn
from benchmarks.row_program import run_rows
from benchmarks.training import LIGHTNING_NAMES, PacedTraining
from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import SgdConfig
from detseg.factory import build_model
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.setup.trainer import resolve_precision
from detseg.training.task import Task

VARIANT, SIDE, BATCH, OBJECTS, STEPS = "resnet50_fpn", 320, 2, 10, 2
NUM_CLASSES = 3
SGD: dict[str, Any] = {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.0001}


def rows(blocks: int) -> Iterator[Row]:
    """Ours by default, then in float32."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    batches = [random_batch() for _ in range(STEPS)]
    precision = resolve_precision("auto", "cpu")
    for format_ in dict.fromkeys((precision, "float32")):
        theirs, ours = both_models()
        reference = Reference(theirs, batches)
        task = Task(Detection(), ours, ClassTable(tuple("abc")), SgdConfig(name="sgd", **SGD))
        training = PacedTraining(task, batches, "batch", precision=LIGHTNING_NAMES[format_])
        mine, other = in_turn(
            training.block(STEPS),
            reference.block,
            blocks,
        )
        yield Row(
            "training step of Faster R-CNN" + ("" if format_ == precision else ", ours in float32 too"),
            f"ResNet-50-FPN, {SIDE} px, batch {BATCH}, {OBJECTS} objects an image; ours {format_}",
            f"torchvision {torchvision.__version__}, float32",
            mine,
            other,
            "ms",
            1.1 if format_ == precision else None,
            "the same network and weights",
        )


def random_batch() -> Batch:
    """Noise with random boxes."""
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    targets = []
    for _ in range(BATCH):
        corner = (torch.rand(OBJECTS, 2) * SIDE * 0.7).round()
        boxes = torch.cat([corner, corner + 8 + (torch.rand(OBJECTS, 2) * SIDE * 0.25).round()], dim=1).clamp(max=SIDE)
        labels = torch.randint(0, NUM_CLASSES, (OBJECTS,))
        targets.append(BoxTargets(boxes, labels, torch.zeros(OBJECTS, dtype=torch.bool)))
    return Batch(images, targets, list(range(BATCH)))


def both_models() -> tuple[Any, Any]:
    """torchvision's model that resizes nothing, and ours with its weights.

    Raises:
        RuntimeError: they are not the same network.
    """
    theirs = getattr(detection, f"fasterrcnn_{VARIANT}")(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES + 1, min_size=SIDE, max_size=SIDE
    )
    settings = {"model": {"name": "faster_rcnn", "variant": VARIANT}, "data": {"name": "coco", "root": "unused"}}
    ours = build_model(config_from_dict(settings).model, ClassTable(tuple("abc")))
    state = {name.replace("backbone.fpn.", "neck.fpn."): value for name, value in theirs.state_dict().items()}
    missing = ours.load_state_dict(state, strict=False)
    changed = [name for name in (*missing.missing_keys, *missing.unexpected_keys) if not name.startswith("normalize")]
    if changed:
        raise RuntimeError(f"the two networks differ: {changed[:5]}")
    return theirs.train(), ours.train()


class Reference:
    """torchvision's loop over the same batches."""

    def __init__(self, model: Any, batches: list[Batch]) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **SGD)
        self.data = [
            (
                [image.float() / 255 for image in batch.images],
                [{"boxes": target.boxes, "labels": target.labels + 1} for target in batch.targets],
            )
            for batch in batches
        ]

    def block(self) -> float:
        """Milliseconds of a step."""
        begin = time.perf_counter()
        for images, targets in self.data:
            losses = sum(self.model(images, targets).values())
            losses.item()
            self.optimizer.zero_grad()
            losses.backward()
            self.optimizer.step()
        return (time.perf_counter() - begin) * 1000 / len(self.data)


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=6)
