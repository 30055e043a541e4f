"""ultralytics' prediction and its suppression alone, by its documented interface."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.utils.nms import non_max_suppression

from benchmarks.peers.serve import serve

_SIDE, _NMS_IOU = 320, 0.65
_known: dict[str, Any] = {}


def load(array: str, jpeg: str, num_candidates: int) -> dict[str, Any]:
    """A nano model with random weights and statistics of its own maps, and the threshold that so many candidates of
    the picture reach."""
    torch.manual_seed(0)
    model = YOLO("yolov8n.yaml")
    with torch.no_grad():
        model.model.train()
        for _ in range(60):
            model.model(torch.rand(2, 3, _SIDE, _SIDE))
        model.model.eval()
    rgb = np.load(array)
    _known.update(model=model, sources={"array": np.ascontiguousarray(rgb[..., ::-1]), "JPEG": jpeg}, conf=0.5)
    predict("array", 1, 0)
    own_threads = torch.get_num_threads()
    seen: list[Any] = []
    hook = model.predictor.model.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    predict("array", 1, 0)
    hook.remove()
    images, out = seen[0]
    scores = (out[0] if isinstance(out, (list, tuple)) else out)[0, 4:]
    _known["conf"] = float(scores.flatten().sort(descending=True).values[num_candidates - 1])
    return {"version": ultralytics.__version__, "input": list(images.shape), "threads": own_threads}


def predict(source: str, count: int, threads: int) -> dict[str, float]:
    """So many predictions, one after the other; what they took, in milliseconds.

    Args:
        source: ``array`` or ``JPEG``.
        count: predictions.
        threads: of torch; 0: as they are set.
    """
    if threads:
        torch.set_num_threads(threads)
    taken, speeds, num = [], [], 0
    for _ in range(count):
        begin = time.perf_counter()
        (result,) = _known["model"].predict(
            _known["sources"][source], imgsz=_SIDE, conf=_known["conf"], iou=_NMS_IOU, verbose=False
        )
        taken.append(1000 * (time.perf_counter() - begin))
        speeds.append(result.speed)
        num = len(result.boxes)
    middle = {name: statistics.median(speed[name] for speed in speeds) for name in speeds[0]}
    return {
        "p50": statistics.median(taken),
        "p95": float(np.percentile(taken, 95)),
        "pre": middle["preprocess"],
        "network": middle["inference"],
        "post": middle["postprocess"],
        "found": num,
    }


def suppress(file: str, count: int, score_threshold: float, max_detections: int) -> dict[str, Any]:
    """Suppression of decoded boxes and scores, several classes a box, so many times; milliseconds, and how many are
    found in each image.

    Args:
        file: (B, 4 + C, A) float32 as ``.npy``: centre, sides, scores.
        count: times.
        score_threshold: candidates below it are dropped.
        max_detections: of an image.
    """
    torch.set_num_threads(1)
    if _known.get("file") != file:
        _known.update(file=file, predictions=torch.from_numpy(np.load(file)))
    seconds = 0.0
    for _ in range(count):
        predictions = _known["predictions"].clone()  # it may write into what it is given
        begin = time.perf_counter()
        found = non_max_suppression(predictions, score_threshold, _NMS_IOU, multi_label=True, max_det=max_detections)
        seconds += time.perf_counter() - begin
    taken = 1000 * seconds / count
    return {"ms": taken, "version": ultralytics.__version__, "found": [len(image) for image in found]}


if __name__ == "__main__":
    serve({"load": load, "predict": predict, "suppress": suppress})
