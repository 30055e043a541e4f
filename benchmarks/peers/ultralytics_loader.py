"""ultralytics' training data set behind torch's DataLoader, without workers, by its documented interface."""

from __future__ import annotations

import itertools
import time
from typing import Any

import cv2
import torch
import ultralytics
from torch.utils.data import DataLoader
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset

from benchmarks.peers.serve import serve

cv2.setNumThreads(0)
torch.set_num_threads(1)

_batches: dict[str, Any] = {}


def version() -> str:
    """Of ultralytics."""
    return str(ultralytics.__version__)


def prepare(name: str, images: str, size: int, batch: int, **hyp: float) -> list[int]:
    """Open images with labels beside them; the shape of a batch.

    Args:
        name: what the loader is asked for by.
        images: folder, with YOLO labels in the folder `labels` beside it.
        size: side of the network input, pixels.
        batch: images of a batch.
        hyp: settings of the augmentation, by their documented names.
    """
    settings = get_cfg(overrides={"imgsz": size, "cache": False, "rect": False, "task": "detect", **hyp})
    dataset = build_yolo_dataset(settings, images, batch, {"names": {0: "a"}, "nc": 1, "channels": 3}, mode="train")
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=0, collate_fn=dataset.collate_fn)
    _batches[name] = (batch for _ in itertools.count() for batch in loader)
    return list(next(_batches[name])["img"].shape)


def milliseconds_an_image(name: str, batches: int) -> float:
    """Of the next batches, into the next epoch where one ends."""
    iterator = _batches[name]
    begin = time.perf_counter()
    images = sum(len(next(iterator)["img"]) for _ in range(batches))
    return (time.perf_counter() - begin) * 1000 / images


serve({"version": version, "prepare": prepare, "milliseconds_an_image": milliseconds_an_image})
