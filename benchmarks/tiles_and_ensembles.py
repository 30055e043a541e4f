"""Tiles, ensembles, test-time augmentation and calibrated scores of trained models, measured.

    python -m benchmarks.tiles_and_ensembles --detectors runs/yolo runs/rcnn --segmenters runs/unet_a runs/unet_b

The runs are of BCCD (`configs/yolo_bccd.yaml`), judged on its test split, and of CamVid, judged on val, since the small
set has no other one. All numbers are printed.

- A 6000 x 4000 image, pasted from BCCD's 72 test images: AP in tiles beside AP image by image. Tiles as large as the
  images are scaled as these are. What the edge of an image cuts is no longer alone there, so that even a perfect
  predictor of large images would not reach the same AP; of other objects it would.
- Cells planted on the seams of tiles: how often each is found.
- AP or mIoU of the members, of flips and scales, and of the ensembles.
- The calibration error of the detectors before and after: fitted on val, judged on test.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import measured_on
from benchmarks.scores import box_scores, map_scores
from detseg.checkpoint import read_model_checkpoint, run_checkpoint
from detseg.data.build import Split
from detseg.data.datasets.detection import DetectionDataset
from detseg.evaluation.report.calibration import calibration, calibration_file
from detseg.evaluation.report.outcomes import Ranked, rank
from detseg.evaluation.run import evaluation_config, open_split_for
from detseg.metrics.detection import DetectionEvaluator
from detseg.ops.letterbox import PAD_VALUE
from detseg.predict import Detections, ensemble, load_predictor
from detseg.predict.combine.views import Flip
from detseg.predict.refine import ScoreCalibration
from detseg.predict.tiles.cuts import starts_of
from detseg.structures import FloatArray, ImageAnnotations, IntArray, UInt8Array

HW = (4000, 6000)
TILE = (480, 640)  # the size of BCCD's images
COLUMNS, ORIGIN = 9, (120, 80)  # images in a row of the large one; x and y of the first
SHOWN = 0.3  # the score from which objects count as found


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", type=Path, nargs="*", default=[])
    parser.add_argument("--segmenters", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    logging.getLogger("detseg").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{measured_on()}\n")
    if arguments.detectors:
        large_image(arguments.detectors[0])
        calibrated(arguments.detectors)
        combined(arguments.detectors, "AP", "test", _score_boxes, ((1.0, 1.25), (0.75, 1.0, 1.25)))
    if arguments.segmenters:
        combined(arguments.segmenters, "mIoU", "val", _score_maps, ((1.0, 1.25),))


def opened(run: Path, split: Split = "test") -> Any:
    """A split of the data that a run was trained on."""
    checkpoint = run_checkpoint(run)
    contents = read_model_checkpoint(checkpoint)
    return open_split_for(evaluation_config(contents.config, str(checkpoint), ()), split, contents.classes, checkpoint)


def large_image(run: Path) -> None:
    """AP of the pasted image in tiles, and image by image; memory, time, and planted cells."""
    predictor: Any = load_predictor(run, "cpu", 0.0)
    dataset: DetectionDataset = opened(run)
    samples = [dataset[i] for i in range(len(dataset))]
    image = np.full((*HW, 3), PAD_VALUE, dtype=np.uint8)
    corners = []
    for i, sample in enumerate(samples):
        x, y = ORIGIN[0] + i % COLUMNS * TILE[1], ORIGIN[1] + i // COLUMNS * TILE[0]
        image[y : y + sample.hw[0], x : x + sample.hw[1]] = sample.image
        corners.append((x, y))
    print(f"Large image, {run.name}: {HW[1]} x {HW[0]} of {len(samples)} test images\n")
    seams = "objects on seams: found once, twice or more, not"
    print(f"| how | AP | AP50 | AP of objects that no image cuts | s | peak memory beyond the image | {seams} |")
    print("|---|---|---|---|---|---|---|")
    every = list[tuple[Detections, tuple[int, int]]]()
    begin = time.perf_counter()
    for sample, corner in zip(samples, corners, strict=True):
        every.append((predictor(sample.image), corner))
    taken = time.perf_counter() - begin
    _row("image by image", _pasted(every), dataset, corners, _seams(120), f"{taken:.1f} | -")
    for overlap, merge in ((0, "ios"), (80, "ios"), (120, "ios"), (160, "ios"), (240, "ios"), (120, "nms")):
        begin = time.perf_counter()
        found, peak = _growth(partial(predictor, image, 4, tile=TILE, overlap=overlap, merge=merge))
        taken = time.perf_counter() - begin
        numbers = f"{taken:.1f} | {peak / 2**20:.0f} MB"
        _row(f"tiles, overlap {overlap}, {merge}", found, dataset, corners, _seams(overlap), numbers)
    _planted(predictor, samples)


def _pasted(found: Sequence[tuple[Detections, tuple[int, int]]]) -> Detections:
    boxes = [one.boxes + np.array([*corner, *corner], dtype=np.float32) for one, corner in found]
    scores, labels = (np.concatenate([getattr(one, name) for one, _ in found]) for name in ("scores", "labels"))
    return Detections(np.concatenate(boxes), scores, labels, found[0][0].classes)


def _row(
    how: str,
    found: Detections,
    dataset: DetectionDataset,
    corners: Sequence[tuple[int, int]],
    seams: tuple[FloatArray, FloatArray],
    numbers: str,
) -> None:
    """AP against the images: a detection is of the image that its centre is in."""
    evaluator, of_inner = DetectionEvaluator(dataset.classes), DetectionEvaluator(dataset.classes)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    counts = np.zeros(3, dtype=np.int64)
    for i, (x, y) in enumerate(corners):
        inside: Any = ((centres >= (x, y)) & (centres < (x + TILE[1], y + TILE[0]))).all(axis=1)
        own = found[inside]
        own = Detections(own.boxes - np.array([x, y, x, y], np.float32), own.scores, own.labels, own.classes)
        evaluator.update(dataset.image_id(i), own, dataset.annotations(i))
        truth = dataset.annotations(i)
        at_edge = (truth.boxes[:, :2] < 3).any(axis=1) | (truth.boxes[:, 2:] > np.array(TILE[::-1]) - 3).any(axis=1)
        of_inner.update(dataset.image_id(i), own, replace(truth, difficult=truth.difficult | at_edge))
        counts += _times(own[own.scores >= SHOWN], truth, (x, y), seams)
    result, inner = evaluator.compute().numbers, of_inner.compute().numbers["AP"]
    once, more, none = counts.tolist()
    print(
        f"| {how} | {result['AP']:.3f} | {result['AP50']:.3f} | {inner:.3f} | {numbers} | {once}, {more}, {none} |",
        flush=True,
    )


def _seams(overlap: int) -> tuple[FloatArray, FloatArray]:
    """x and y of the inner edges of all tiles."""
    edges = []
    for length, side in ((HW[1], TILE[1]), (HW[0], TILE[0])):
        starts = starts_of(length, side, overlap)
        edges.append(np.array([*starts[1:], *(start + side for start in starts[:-1])], dtype=np.float64))
    return edges[0], edges[1]


def _times(
    found: Detections, truth: ImageAnnotations, corner: tuple[int, int], seams: tuple[FloatArray, FloatArray]
) -> IntArray:
    """How many objects that a seam cuts are found once, more often, and not: by detections of their class of which
    most lies in the object and no other one holds more."""
    boxes = truth.boxes + np.array([*corner, *corner])
    on_seam = np.zeros(len(boxes), dtype=np.bool_)
    for axis, edges in enumerate(seams):
        on_seam |= ((boxes[:, axis, None] + 2 < edges) & (edges < boxes[:, axis + 2, None] - 2)).any(axis=1)
    low = np.maximum(found.boxes[:, None, :2], truth.boxes[None, :, :2])
    inside = (np.minimum(found.boxes[:, None, 2:], truth.boxes[None, :, 2:]) - low).clip(min=0).prod(axis=2)
    own = inside / (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)[:, None]
    own[found.labels[:, None] != truth.labels] = 0
    of = np.where(own.max(axis=1, initial=0) > 0.5, own.argmax(axis=1) if own.size else 0, -1)
    times = np.bincount(of[of >= 0], minlength=len(boxes))[on_seam & ~truth.ignore]
    return np.array([(times == 1).sum(), (times > 1).sum(), (times == 0).sum()])


def _planted(predictor: Any, samples: Sequence[Any]) -> None:
    """White cells with their surroundings, set on the crossings of seams, far apart: each is one object."""
    label, patches = predictor.classes.names.index("WBC"), list[tuple[UInt8Array, tuple[int, int]]]()
    for sample in samples:
        for x1, y1, x2, y2 in sample.boxes[sample.labels == label].round().astype(int).tolist():
            if (
                x1 > 20
                and y1 > 20
                and x2 < sample.hw[1] - 20
                and y2 < sample.hw[0] - 20
                and max(x2 - x1, y2 - y1) < 200
            ):
                patch = sample.image[y1 - 20 : y2 + 20, x1 - 20 : x2 + 20]
                patches.append((patch, ((x2 - x1) // 2 + 20, (y2 - y1) // 2 + 20)))
    background = np.median([sample.image.mean(axis=(0, 1)) for sample in samples], axis=0).astype(np.uint8)
    overlap = 240
    starts = [starts_of(length, side, overlap) for length, side in zip(HW, TILE, strict=True)]
    print(
        f"\nPlanted: {len(patches)} white cells of up to 200 pixels, overlap {overlap}; found by how many detections\n"
    )
    print("| where | once | more often | not |\n|---|---|---|---|")
    where = {"on crossings of seams": 0, "at a third of a tile": 1}
    for name, third in where.items():
        image = np.broadcast_to(background, (*HW, 3)).copy()
        places = [
            (y + (TILE[0] // 3 if third else 0), x + (TILE[1] // 3 if third else 0))
            for y, x in itertools.product(starts[0][1:-1:2], starts[1][1:-1:2])
        ]
        centres = []
        for (patch, (dx, dy)), (y, x) in zip(itertools.cycle(patches), places, strict=False):
            image[y - dy : y - dy + patch.shape[0], x - dx : x - dx + patch.shape[1]] = patch
            centres.append((x, y))
        found = predictor(image, 4, tile=TILE, overlap=overlap)
        found = found[(found.scores >= SHOWN) & (found.labels == label)]
        middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        near = np.abs(middles[:, None] - np.array(centres)[None]).max(axis=2) < 110
        times = near.sum(axis=0)
        print(f"| {name}: {len(centres)} | {(times == 1).sum()} | {(times > 1).sum()} | {(times == 0).sum()} |")
    print(flush=True)


def _growth(work: Callable[[], Any]) -> tuple[Any, int]:
    """What some work returns, and the bytes by which its peak of memory is above what was in use before; Linux."""

    def memory(kind: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak becomes what is in use now
    before = memory("VmRSS")
    result = work()
    return result, memory("VmHWM") - before


def calibrated(runs: Sequence[Path]) -> None:
    """The expected calibration error of the detections from 0.1 on, on test; the map is fitted on val."""
    print("| calibration error on test | scores as they are | calibrated on val |\n|---|---|---|")
    for run in runs:
        predictor: Any = load_predictor(run, "cpu", 0.0)
        ranked, names = _ranked(predictor, opened(run, "val")), predictor.classes.names
        content = calibration_file(ranked, names, 0.5)
        calibrate = ScoreCalibration(content["classes"], content["other classes"])
        own = opened(run)
        errors = [_calibration_error(predictor, own), _calibration_error(lambda x: calibrate(predictor(x)), own)]  # noqa: B023  # used at once
        print(f"| {run.name} | {errors[0]:.3f} | {errors[1]:.3f} |", flush=True)
    print()


def _calibration_error(predict: Callable[[Any], Detections], dataset: DetectionDataset) -> float:
    ranked = _ranked(predict, dataset)
    scores = np.concatenate([one.scores for one in ranked])
    return calibration(scores, np.concatenate([one.right for one in ranked]), 0.1).error


def _ranked(predict: Callable[[Any], Detections], dataset: DetectionDataset) -> list[Ranked]:
    evaluator = DetectionEvaluator(dataset.classes)
    for index in range(len(dataset)):
        evaluator.update(dataset.image_id(index), predict(dataset.path(index)), dataset.annotations(index))
    return rank(evaluator.records, len(dataset.classes), 0.5)


def _score_boxes(predictor: Any, dataset: Any) -> dict[str, float]:
    def detect(image: UInt8Array) -> tuple[Any, Any, Any]:
        found = predictor(image)
        return found.boxes, found.labels, found.scores

    return box_scores(detect, dataset)


def _score_maps(predictor: Any, dataset: Any) -> dict[str, float]:
    return map_scores(lambda image: predictor(image).labels, dataset)


def combined(
    runs: Sequence[Path],
    metric: str,
    split: Split,
    score: Callable[[Any, Any], dict[str, float]],
    scales: Sequence[tuple[float, ...]],
) -> None:
    """The score of each member, of it with flips and scales, and of all together."""
    dataset = opened(runs[0], split)
    members: list[Any] = [load_predictor(run, "cpu", 0.0 if metric == "AP" else None) for run in runs]
    rows: dict[str, Any] = {run.name: member for run, member in zip(runs, members, strict=True)}
    flip: tuple[Flip, ...] = ("horizontal",)
    rows |= {f"{run.name}, flipped": ensemble([one], None, flip) for run, one in zip(runs, members, strict=True)}
    for own in scales:
        name = ", ".join(f"{scale:g}" for scale in own)
        rows[f"{runs[0].name}, flipped, scales {name}"] = ensemble(members[:1], None, flip, own)
    for number in range(2, len(runs) + 1):
        names = " + ".join(run.name for run in runs[:number])
        rows[names] = ensemble(members[:number])
        rows[f"{names}, flipped"] = ensemble(members[:number], None, flip)
    first = score(members[0], dataset)
    print(f"| {len(dataset)} images of {split} | {' | '.join(first)} | ms an image |\n|{'---|' * (len(first) + 2)}")
    for name, predictor in rows.items():
        begin = time.perf_counter()
        numbers = score(predictor, dataset)
        taken = (time.perf_counter() - begin) / len(dataset) * 1e3
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in numbers.values())} | {taken:.0f} |", flush=True)
    print()


if __name__ == "__main__":
    main()
