"""A training step of the nano detector beside ultralytics': 320 px, batch 16, 80 classes, 8 objects an image.

Both train as they do by default on a CPU: ours in ``auto`` precision, theirs in float32.  The images are the same noise
with the same boxes, in memory; the time is that of the step alone, without the loader.  A second row has ours in
float32, a third our losses beside our whole step.

    python -m benchmarks.yolo_step
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.in_turn import Row, in_turn
from benchmarks.peer_process import PeerProcess
from benchmarks.row_program import run_rows
from benchmarks.training import LIGHTNING_NAMES, PacedTraining
from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.ops.letterbox import stack_images, to_float
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks import Detection
from detseg.training.setup.trainer import resolve_precision
from detseg.training.task import Task

SIDE, BATCH, CLASSES, OBJECTS, STEPS = 320, 16, 80, 8, 2
NO_AUGMENTATION = dict.fromkeys(
    ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "flipud", "fliplr", "mosaic", "mixup"), 0.0
)
PEER_SETTINGS: dict[str, Any] = {
    "imgsz": SIDE, "batch": BATCH, "epochs": 100_000, "workers": 0, "device": "cpu", "cache": "ram", "val": False,
    "plots": False, "save": False, "pretrained": False, "verbose": False, "optimizer": "AdamW", "exist_ok": True,
    "patience": 100_000, **NO_AUGMENTATION,
}  # fmt: skip


def rows(blocks: int) -> Iterator[Row]:
    """Ours by default, ours in float32, and our losses."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    batch = random_batch()
    precision = resolve_precision("auto", "cpu")
    with tempfile.TemporaryDirectory() as folder, PeerProcess("ultralytics_train.py") as peer:
        write_yolo_layout(batch, Path(folder))
        settings = {**PEER_SETTINGS, "data": f"{folder}/data.yaml", "project": f"{folder}/runs"}
        other_model = peer.ask("start", model="yolov8n.yaml", unit="batch", settings=settings)
        for format_ in dict.fromkeys((precision, "float32")):
            task = new_task()
            size = f"{parameters(task.model) / 1e6:.2f} M parameters, {gflops(task.model):.2f} GFLOPs forward an image"
            training = PacedTraining(task, [batch], "batch", precision=LIGHTNING_NAMES[format_])
            mine, other = in_turn(
                training.block(STEPS),
                lambda: float(peer.ask("go_on", units=STEPS)) * 1000 / STEPS,
                blocks,
            )
            yield Row(
                "training step" if format_ == precision else "training step, ours in float32 too",
                f"nano, {SIDE} px, batch {BATCH}, {CLASSES} classes, {OBJECTS} objects an image; ours {format_}",
                f"ultralytics {other_model['version']} yolov8n.yaml, float32",
                mine,
                other,
                "ms",
                1.5 if format_ == precision else None,
                f"ours {size}, theirs {other_model['parameters'] / 1e6:.2f} M, {other_model['gflops']:.2f} GFLOPs",
            )
    yield loss_share(new_task().model, batch, blocks)


def loss_share(model: Any, batch: Batch, blocks: int) -> Row:
    """The losses with assignment and their gradient, ``ours``, beside forward and backward with them, ``theirs``."""
    shares: list[tuple[float, float]] = []
    model.train()
    for _ in range(blocks * STEPS + 1):
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, resolve_precision("auto", "cpu") == "bfloat16"):
            maps = model(to_float(batch.images))
        leaves = [raw.detach().requires_grad_() for raw in maps]
        between = time.perf_counter()
        terms = model.scheme.losses([raw.float() for raw in leaves], batch.targets)
        torch.autograd.backward(list(terms.values()))
        losses = time.perf_counter() - between
        torch.autograd.backward(maps, [raw.grad for raw in leaves])
        model.zero_grad()
        shares.append((losses * 1000, (time.perf_counter() - begin) * 1000))
    mine, whole = zip(*shares[1:], strict=True)
    return Row("loss + assignment", "of the same step", "our forward and backward with them", mine, whole, "ms", 10.0)


def new_task() -> Task:
    """The default detector and optimiser, with averaged weights."""
    settings = {"model": {"name": "yolo"}, "data": {"name": "coco", "root": "unused"}}
    classes = ClassTable(tuple(f"class{i}" for i in range(CLASSES)))
    model = build_model(config_from_dict(settings).model, classes, load_pretrained=False)
    return Task(Detection(), model, classes, ema_decay=0.999)


def random_batch() -> Batch:
    """Noise with random boxes."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(BATCH)]
    targets = []
    for _ in range(BATCH):
        corner = torch.rand(OBJECTS, 2) * SIDE * 0.6
        boxes = torch.cat([corner, corner + 16 + torch.rand(OBJECTS, 2) * SIDE * 0.3], dim=1)
        targets.append(BoxTargets(boxes, torch.randint(0, CLASSES, (OBJECTS,)), torch.zeros(OBJECTS, dtype=torch.bool)))
    return Batch(stack_images(images), targets, list(range(BATCH)))


def write_yolo_layout(batch: Batch, folder: Path) -> None:
    """The batch, once over, as ultralytics' documented text format."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image.permute(1, 2, 0).numpy()[..., ::-1])
        centres = torch.cat(
            [target.boxes[:, :2] + target.boxes[:, 2:], 2 * (target.boxes[:, 2:] - target.boxes[:, :2])], 1
        )
        lines = [
            f"{label} {' '.join(f'{v:.6f}' for v in row)}"
            for label, row in zip(target.labels.tolist(), (centres / 2 / SIDE).tolist(), strict=True)
        ]
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines), encoding="utf-8")
    names = "\n".join(f"  {i}: class{i}" for i in range(CLASSES))
    text = f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def parameters(model: Any) -> int:
    """How many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def gflops(model: Any) -> float:
    """10⁹ floating-point operations of a forward pass of one image; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    model.train()
    return float(counter.get_total_flops()) / 1e9


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=8)
