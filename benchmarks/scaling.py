"""How each stage grows: its time at several sizes of one quantity, everything else held, and the exponent between them.

python -m benchmarks.scaling            print the table
python -m benchmarks.scaling --write    write it into docs/scaling.md
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.coco_file import write_large_coco
from benchmarks.coco_records import synthetic_records
from benchmarks.comparison import ROOT, measured_on, timed, write_results
from benchmarks.loader import our_block, write_set
from benchmarks.training import random_targets
from detseg.config.schema.model import YoloConfig
from detseg.data.formats.coco import read_coco
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.factory.yolo import build_detector
from detseg.metrics.detection.evaluator import DetectionEvaluator
from detseg.metrics.segmentation.confusion import pair_counts
from detseg.models.yolo.search import Wanted, best_detections
from detseg.structures import ClassTable

Work = Callable[[], object]


def measured(folder: Path) -> Iterator[str]:
    """A line of the table for each stage and quantity: medians of three; ``folder`` takes the files that are made."""
    stages: list[tuple[str, str, tuple[int, ...], Callable[[int], Work]]] = [
        ("COCO file, load", "images", (2000, 8000, 32000), lambda n: _read(folder, n, 7)),
        ("COCO file, load", "objects of an image", (5, 20, 80), lambda n: _read(folder, 2000, n)),
        (
            "order of an epoch",
            "images",
            (10**4, 10**5, 10**6),
            lambda n: partial(list, EpochBatchSampler(n, 16, 0, (32, 32))),
        ),
        ("loader, one process", "image side, pixels", (160, 320, 640), lambda n: _load(folder, n, 20)),
        ("loader, one process", "objects of an image", (20, 200, 2000), lambda n: _load(folder, 320, n)),
        ("network, forward", "image side, pixels", (160, 320, 640), lambda n: _forward(1, n)),
        ("network, forward", "images of a batch", (2, 4, 8), lambda n: _forward(n, 320)),
        ("assignment and loss", "objects of an image", (2, 20, 200), lambda n: _losses(n, 20)),
        ("assignment and loss", "classes", (8, 80, 800), lambda n: _losses(20, n)),
        ("decode and NMS", "candidates above threshold", (10**3, 10**4, 10**5), lambda n: _nms(n / 168_000, 20)),
        ("decode and NMS", "classes, half the scores above threshold", (2, 8, 32), lambda n: _nms(0.5, n)),
        ("COCO evaluation", "images, 50 detections each", (250, 1000, 4000), lambda n: _evaluate(n, 50, 20)),
        ("COCO evaluation", "detections of an image", (20, 80, 320), lambda n: _evaluate(300, n, 20)),
        ("COCO evaluation", "classes", (5, 20, 80), lambda n: _evaluate(500, 50, n)),
        ("confusion matrix", "pixels", (2**18, 2**20, 2**22), lambda n: _count(n, 20)),
        ("confusion matrix", "classes", (2, 20, 200), lambda n: _count(2**20, n)),
    ]
    for stage, quantity, sizes, prepare in stages:
        seconds = {}
        for size in sizes:
            block = timed(prepare(size))
            block()
            seconds[size] = statistics.median(block() for _ in range(3))
        (small, before), (large, after) = list(seconds.items())[-2:]  # where constant costs weigh least
        exponent = math.log(after / before) / math.log(large / small)
        times = ", ".join(f"{n}: {s:.2f} s" if s >= 1 else f"{n}: {s * 1e3:.3g} ms" for n, s in seconds.items())
        yield f"| {stage} | {quantity} | {times} | {exponent:.2f} |"


def _read(folder: Path, num_images: int, num_objects: int) -> Work:
    root = folder / f"coco {num_images} {num_objects}"
    return partial(read_coco, root / "images", write_large_coco(root, num_images, num_images * num_objects))


def _load(folder: Path, side: int, num_objects: int) -> Work:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return our_block(write_set(folder / f"{side} {num_objects}", [noise], 128, num_objects), side, mosaic=0)


def _detector(num_classes: int) -> Any:
    return build_detector(YoloConfig(), num_classes).eval().to(memory_format=torch.channels_last)


def _forward(num_images: int, side: int) -> Work:
    return partial(torch.no_grad()(_detector(20)), torch.rand(num_images, 3, side, side))


def _maps(num_images: int, side: int, num_classes: int) -> list[Tensor]:
    return [torch.randn(num_images, 64 + num_classes, side // stride, side // stride) for stride in (8, 16, 32)]


def _losses(num_objects: int, num_classes: int) -> Work:
    maps, targets = _maps(4, 320, num_classes), random_targets(320, 4, num_objects, num_classes)
    return partial(_detector(num_classes).scheme.losses, [raw.requires_grad_() for raw in maps], targets)


def _nms(fraction: float, num_classes: int) -> Work:
    """An image of 640 × 480 pixels, of whose scores a fraction is above the threshold."""
    maps = _maps(1, 640, num_classes)
    for raw in maps:
        raw[:, 64:] = torch.where(torch.rand(raw[:, 64:].shape) < fraction, raw[:, 64:], -20.0)
    return partial(best_detections, _detector(num_classes).scheme, maps, (640, 640), Wanted(0.001, 0.65, 300))


def _evaluate(num_images: int, num_detections: int, num_classes: int) -> Work:
    evaluator = DetectionEvaluator(ClassTable(tuple(f"class {k}" for k in range(num_classes))))
    evaluator.merge(synthetic_records(num_images, 7 * num_images, num_detections * num_images, num_classes).to_state())
    return evaluator.compute


def _count(num_pixels: int, num_classes: int) -> Work:
    return partial(pair_counts, *torch.randint(num_classes, (2, num_pixels), dtype=torch.uint8))


if __name__ == "__main__":
    torch.set_num_threads(2)
    lines = ["| stage | grows with | time | exponent |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        for line in measured(Path(name)):
            lines.append(line)
            print(line, flush=True)
    if "--write" in sys.argv:
        write_results(ROOT / "docs" / "scaling.md", "scaling", f"{measured_on()}\n\n" + "\n".join(lines))
