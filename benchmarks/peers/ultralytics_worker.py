"""ultralytics' training, loader, prediction, exports and suppression, by its documented interface."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.utils.nms import non_max_suppression

from benchmarks.peers.serve import PacedTraining, serve

_SIDE, _NMS_IOU = 320, 0.65
_known: dict[str, Any] = {}  # what later requests refer to: the training, loaders by name, the model to predict with


def version() -> str:
    """Of ultralytics."""
    return str(ultralytics.__version__)


def train(unit: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Begin a training of the nano model and hold it at its first ``batch`` or ``epoch``; what is trained."""
    yolo = YOLO("yolov8n.yaml")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        yolo.model(torch.zeros(1, 3, settings["imgsz"], settings["imgsz"]))
    fixed = {"epochs": 100_000, "patience": 100_000, "device": "cpu", "optimizer": "AdamW", "exist_ok": True}
    silent = dict.fromkeys(("val", "plots", "save", "pretrained", "verbose"), False)

    def work(paced: PacedTraining) -> None:
        yolo.add_callback(f"on_train_{unit}_start", paced.before)
        yolo.add_callback(f"on_train_{unit}_end", paced.after)
        yolo.train(**fixed, **silent, **settings)

    parameters = sum(parameter.numel() for parameter in yolo.model.parameters())
    _known["training"] = PacedTraining(work)
    return {"millions": parameters / 1e6, "gflops": counter.get_total_flops() / 1e9}


def advance(units: int) -> float:
    """Seconds of so many further steps or epochs."""
    return float(_known["training"].advance(units))


def prepare(name: str, images: str, size: int, batch: int, **hyp: float) -> list[int]:
    """Open a training set behind torch's DataLoader, on one thread without workers; the shape of a batch."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    settings = get_cfg(overrides={"imgsz": size, "cache": False, "rect": False, "task": "detect", **hyp})
    dataset = build_yolo_dataset(settings, images, batch, {"names": {0: "a"}, "nc": 1, "channels": 3}, mode="train")
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=0, collate_fn=dataset.collate_fn)
    _known[name] = (batch for _ in itertools.count() for batch in loader)
    return list(next(_known[name])["img"].shape)


def milliseconds_an_image(name: str, batches: int) -> float:
    """Of the next batches, into the next epoch where one ends."""
    begin = time.perf_counter()
    images = sum(len(next(_known[name])["img"]) for _ in range(batches))
    return (time.perf_counter() - begin) * 1000 / images


def load(array: str, jpeg: str, num_candidates: int) -> dict[str, Any]:
    """A nano model with random weights, to predict with."""
    _known.update(model=_nano(), sources={"array": _bgr(array), "JPEG": jpeg})
    return _set_threshold(num_candidates, _SIDE)


def export(array: str, folder: str, side: int, format: str, num_candidates: int) -> str:
    """Such a model as it exports it, to predict with; the file."""
    os.chdir(folder)  # into which it writes
    model = _nano()
    model.model.pt_path = f"{folder}/peer_{side}.pt"
    path = Path(model.export(format=format, imgsz=side, verbose=False))
    _known.update(model=YOLO(path, task="detect"), sources={"array": _bgr(array)})
    _set_threshold(num_candidates, side)
    return str(next(path.glob("*.xml")) if path.is_dir() else path)


def _nano() -> Any:
    """With random weights, and statistics of its own maps."""
    torch.manual_seed(0)
    model = YOLO("yolov8n.yaml")
    with torch.no_grad():
        model.model.train()
        for _ in range(60):
            model.model(torch.rand(2, 3, _SIDE, _SIDE))
        model.model.eval()
    return model


def _bgr(array: str) -> Any:
    return np.ascontiguousarray(np.load(array)[..., ::-1])


def _set_threshold(num_candidates: int, side: int) -> dict[str, Any]:
    """The one that so many candidates reach, for later predictions; the size of the input and its own threads."""
    _known["conf"] = 0.5
    predict("array", 1, 0, side)
    own_threads = torch.get_num_threads()
    seen: list[Any] = []
    hook = _known["model"].predictor.model.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    predict("array", 1, 0, side)
    hook.remove()
    images, out = seen[0]
    scores = torch.as_tensor(out[0] if isinstance(out, (list, tuple)) else out)[0, 4:]
    _known["conf"] = float(scores.flatten().sort(descending=True).values[num_candidates - 1])
    return {"input": " × ".join(map(str, images.shape[2:])), "threads": own_threads}


def predict(source: str, count: int, threads: int, side: int = _SIDE) -> dict[str, float]:
    """Predictions of ``array`` or ``JPEG``, one by one; what they took, in milliseconds.  0 threads: torch's own."""
    if threads:
        torch.set_num_threads(threads)
    taken, results = [], []
    given = {"imgsz": side, "conf": _known["conf"], "iou": _NMS_IOU, "verbose": False}
    for _ in range(count):
        begin = time.perf_counter()
        results += _known["model"].predict(_known["sources"][source], **given)
        taken.append(1000 * (time.perf_counter() - begin))
    parts = {name: statistics.median(result.speed[name] for result in results) for name in results[0].speed}
    found = len(results[-1].boxes)
    return {"p50": statistics.median(taken), "p95": float(np.percentile(taken, 95)), "found": found, **parts}


def suppress(file: str, count: int, score_threshold: float, max_detections: int) -> dict[str, Any]:
    """Suppression of decoded boxes and scores, several classes a box, so many times; milliseconds, and how many are
    found in each image.  The file has (B, 4 + C, A) float32: centre, sides, scores."""
    torch.set_num_threads(1)
    if _known.get("file") != file:
        _known.update(file=file, predictions=torch.from_numpy(np.load(file)))
    seconds = 0.0
    for _ in range(count):
        predictions = _known["predictions"].clone()  # it may write into what it is given
        begin = time.perf_counter()
        found = non_max_suppression(predictions, score_threshold, _NMS_IOU, multi_label=True, max_det=max_detections)
        seconds += time.perf_counter() - begin
    return {"ms": 1000 * seconds / count, "found": [len(image) for image in found]}


if __name__ == "__main__":
    serve(version, train, advance, prepare, milliseconds_an_image, load, export, predict, suppress)
