"""From raw maps to detections: 640 × 640 pixels (8400 priors), 80 classes, 8 images, at strides 8, 16 and 32.

Realistic: some hundred candidates of an image reach the threshold, around 21 objects.  Worst case: all 672 000 do.

torchvision's side gets the same maps and does what our contract asks for: sigmoid, boxes, threshold, clipping, removal
of empty boxes, ``batched_nms`` for each image, the best 300.  Its worst case takes most of a minute, so it is run once.
ultralytics' suppression gets decoded boxes and scores, which is less work; by its documented defaults it takes at most
30 000 candidates of an image (``max_nms``) and stops after 2 s + 50 ms an image (``max_time_img``): it may drop what we
do not.  One thread.

    python -m benchmarks.postprocessing --blocks 7
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from benchmarks.in_turn import Row, in_turn, timed
from benchmarks.peer_process import PeerProcess
from benchmarks.row_program import run_rows
from detseg.models.yolo.detector import NmsLimits, best_detections
from detseg.models.yolo.scheme import cell_points
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.ops.boxes import xyxy_to_cxcywh
from detseg.structures import DetectorOutput

STRIDES = (8, 16, 32)
NUM_IMAGES, NUM_CLASSES, BINS, SIDE = 8, 80, 16, 640
WANTED = NmsLimits(score_threshold=0.001, nms_iou=0.65, max_detections=300)
SCHEME = TaskAlignedScheme(NUM_CLASSES, STRIDES, TaskAlignedAssigner(), BINS)


def realistic_maps() -> list[Tensor]:
    """Raw maps as of a trained network: low scores nearly everywhere; around 21 objects an image 5 × 5 priors that
    agree about class and box, and of a second class in part; channels-last, as the network leaves them."""
    generator = torch.Generator().manual_seed(0)
    maps = []
    for stride in STRIDES:
        cells = SIDE // stride
        raw = torch.randn(NUM_IMAGES, 4 * BINS + NUM_CLASSES, cells, cells, generator=generator)
        raw[:, 4 * BINS :] -= 12
        for image in raw:
            for _ in range(7):
                x, y = torch.randint(2, cells - 2, (2,), generator=generator).tolist()
                first, second = torch.randint(NUM_CLASSES, (2,), generator=generator).tolist()
                around = image[:, y - 2 : y + 3, x - 2 : x + 3]
                for side, distance in enumerate(torch.randint(1, BINS, (4,), generator=generator).tolist()):
                    around[side * BINS + distance] += 8
                around[4 * BINS + first] += 9 + 3 * torch.rand(5, 5, generator=generator)
                around[4 * BINS + second] += 4
        maps.append(raw.contiguous(memory_format=torch.channels_last))
    return maps


def worst_maps() -> list[Tensor]:
    """Raw maps of which every score reaches the threshold."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(NUM_IMAGES, 4 * BINS + NUM_CLASSES, SIDE // stride, SIDE // stride) for stride in STRIDES]
    maps = [torch.randn(shape, generator=generator) for shape in shapes]
    return [raw.contiguous(memory_format=torch.channels_last) for raw in maps]


@torch.no_grad()
def decoded(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, A, 4) boxes and (B, A, C) scores of all priors, as a user of torchvision writes it."""
    flat = torch.cat([raw.permute(0, 2, 3, 1).flatten(1, 2) for raw in maps], dim=1)
    points = cell_points(maps, STRIDES)
    sides = flat[..., : 4 * BINS].reshape(*flat.shape[:2], 4, BINS).softmax(dim=-1) @ torch.arange(float(BINS))
    sides = sides * points.strides[:, None]
    boxes = torch.cat([points.centres - sides[..., :2], points.centres + sides[..., 2:]], dim=-1)
    return boxes, flat[..., 4 * BINS :].sigmoid()


def by_torchvision(maps: list[Tensor]) -> list[DetectorOutput]:
    """Decoding, threshold and ``batched_nms`` of every image."""
    found = []
    for boxes, scores in zip(*decoded(maps), strict=True):
        prior, label = torch.where(scores >= WANTED.score_threshold)
        candidates, score = clip_boxes_to_image(boxes[prior], (SIDE, SIDE)), scores[prior, label]
        has_area = (candidates[:, 2:] > candidates[:, :2]).all(dim=1)
        candidates, score, label = candidates[has_area], score[has_area], label[has_area]
        keep = batched_nms(candidates, score, label, WANTED.nms_iou)[: WANTED.max_detections]
        found.append(DetectorOutput(candidates[keep], score[keep], label[keep]))
    return found


def ours(maps: list[Tensor]) -> list[DetectorOutput]:
    """What a detector does with its raw maps."""
    return best_detections(SCHEME, maps, (SIDE, SIDE), WANTED)


def rows(blocks: int) -> Iterator[Row]:
    """Both cases beside torchvision, then both beside ultralytics' suppression."""
    torch.set_num_threads(1)
    cases = [("realistic", realistic_maps(), 2.0), ("worst case", worst_maps(), 1.0)]
    torchvision_name = f"torchvision {torchvision.__version__} batched_nms"
    for name, maps, wanted in cases:
        once = name == "worst case"
        answers: list[list[DetectorOutput]] = []
        repeats = 1 if once else 5
        times = in_turn(
            timed(partial(_again, ours, maps, 5, []), 5, 1000),
            timed(partial(_again, by_torchvision, maps, repeats, answers), repeats, 1000),
            1 if once else blocks,
            warm_up=0 if once else 1,
        )
        yield Row(
            "decode + NMS, 8 images", name, torchvision_name, *times, "ms", wanted, _agreement(ours(maps), answers[0])
        )
    with PeerProcess("ultralytics_predict.py", threads=1) as peer, tempfile.TemporaryDirectory() as folder:
        for name, maps, _ in cases:
            yield _beside_ultralytics(name, maps, peer, Path(folder) / f"{name}.npy", 1 if "worst" in name else blocks)


def _again(
    work: Callable[[list[Tensor]], list[DetectorOutput]],
    maps: list[Tensor],
    repeats: int,
    answers: list[list[DetectorOutput]],
) -> None:
    answers[:] = [work(maps) for _ in range(repeats)]


def _beside_ultralytics(name: str, maps: list[Tensor], peer: PeerProcess, file: Path, blocks: int) -> Row:
    boxes, scores = decoded(maps)
    np.save(file, torch.cat([xyxy_to_cxcywh(boxes), scores], dim=2).transpose(1, 2).contiguous().numpy())
    answers = []

    def theirs() -> float:
        answers.append(
            peer.ask(
                "suppress",
                file=str(file),
                count=1 if blocks == 1 else 5,
                score_threshold=WANTED.score_threshold,
                max_detections=WANTED.max_detections,
            )
        )
        return float(answers[-1]["ms"])

    mine, other = in_turn(timed(partial(_again, ours, maps, 5, []), 5, 1000), theirs, blocks)
    numbers = answers[-1]["found"]
    note = f"theirs without decoding, and clipped to the image by others later; its detections: {numbers}"
    peer_name = f"ultralytics {answers[-1]['version']} non_max_suppression"
    return Row("decode + NMS, 8 images", name, peer_name, mine, other, "ms", None, note)


def _agreement(mine: list[DetectorOutput], other: list[DetectorOutput]) -> str:
    """How many images have the same detections: boxes, scores and labels, among equal scores in any order."""
    same = sum(sorted(_rows(one)) == sorted(_rows(two)) for one, two in zip(mine, other, strict=True))
    return (
        f"the same detections for {same} of {len(mine)} images, {np.mean([len(found) for found in mine]):.0f} an image"
    )


def _rows(found: DetectorOutput) -> list[list[float]]:
    columns = torch.cat([found.scores[:, None], found.labels[:, None], found.boxes], dim=1).double()
    rounded: list[list[float]] = columns.round(decimals=3).tolist()
    return rounded


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=7)
