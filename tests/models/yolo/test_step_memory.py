"""A batch with one image of 2000 objects takes at most three times the memory of a batch without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.config.load import config_from_dict
from detseg.factory import build_model
from detseg.structures import BoxTargets, ClassTable

ROOT = Path(__file__).parents[3]
ANCHORS = [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
HEADS: dict[str, dict[str, object]] = {
    "task_aligned": {"name": "task_aligned"},
    "anchor": {"name": "anchor", "anchors": ANCHORS},
    "grid": {"name": "grid"},
}
SIDE, BATCH = 256, 2


def targets(most: int) -> list[BoxTargets]:
    """An image with so many objects, and others with 20."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for num in [most] + [20] * (BATCH - 1):
        corner = torch.rand(num, 2, generator=generator) * SIDE * 0.85
        boxes = torch.cat([corner, corner + 4 + torch.rand(num, 2, generator=generator) * SIDE * 0.1], dim=1)
        labels = torch.randint(0, 80, (num,), generator=generator)
        made.append(BoxTargets(boxes, labels, torch.arange(num) % 20 == 7))
    return made


def memory(kind: str) -> int:
    """Bytes that this process holds (``VmRSS``) or held at most since the last reset (``VmHWM``)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def peaks_of_steps(head: str) -> list[int]:
    """Bytes that steps with 20 and with 2000 objects in an image take at most; none where they cannot be measured."""
    settings = {"model": {"name": "yolo", "head": HEADS[head]}, "data": {"name": "coco", "root": "unused"}}
    classes = ClassTable(tuple(f"class{i}" for i in range(80)))
    model: Any = build_model(config_from_dict(settings).model, classes, load_pretrained=False).train()
    model = model.to(memory_format=torch.channels_last)
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    peaks = []
    for most in (20, 20, 2000):  # what libraries take on first use is not meant
        batch = targets(most)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return []
        before = memory("VmRSS")
        torch.autograd.backward(list(model.losses(images, batch).values()))
        peaks.append(memory("VmHWM") - before)
        model.zero_grad()
    return peaks[1:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what a process holds on Linux only")
def test_thousands_of_objects_fit() -> None:
    # In a process of its own, whose allocator gives large blocks back at once: what the tests before left in the heap,
    # and what glibc keeps for later, is no part of the measure.
    code = "from tests.models.yolo.test_step_memory import HEADS, peaks_of_steps as p; print(*map(p, HEADS), sep='\\n')"
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=exact)
    for head, line in zip(HEADS, done.stdout.splitlines(), strict=True):
        peaks = json.loads(line)
        if not peaks:
            pytest.skip("this machine does not let a process reset its peak of memory")
        few, many = peaks
        assert many < 3 * few, head
