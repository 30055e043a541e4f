"""From raw maps to detections, beside torchvision's and ultralytics' suppression; one thread."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from benchmarks.comparison import Row, in_turn, timed
from benchmarks.peers.process import PeerProcess
from detseg.models.yolo.detector import best_detections
from detseg.models.yolo.scheme import cell_points
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.structures import DetectorOutput

STRIDES = (8, 16, 32)
NUM_CLASSES, REG_MAX = 80, 16
SCORE_THRESHOLD, NMS_IOU, MAX_DETECTIONS = LIMITS = 0.001, 0.65, 300
SCHEME = TaskAlignedScheme(NUM_CLASSES, STRIDES, TaskAlignedAssigner(), REG_MAX)


def _realistic_maps(num_images: int, side: int) -> list[Tensor]:
    """Raw maps as of a trained network: low scores nearly everywhere; around 21 objects an image 5 × 5 priors that
    agree about class and box, and of a second class in part."""
    generator = torch.Generator().manual_seed(0)
    maps = _worst_maps(num_images, side)
    for raw in maps:
        cells = raw.shape[-1]
        raw[:, 4 * REG_MAX :] -= 12
        for image in raw:
            for _ in range(7):
                x, y = torch.randint(2, cells - 2, (2,), generator=generator).tolist()
                first, second = torch.randint(NUM_CLASSES, (2,), generator=generator).tolist()
                around = image[:, y - 2 : y + 3, x - 2 : x + 3]
                for edge, distance in enumerate(torch.randint(1, REG_MAX, (4,), generator=generator).tolist()):
                    around[edge * REG_MAX + distance] += 8
                around[4 * REG_MAX + first] += 9 + 3 * torch.rand(5, 5, generator=generator)
                around[4 * REG_MAX + second] += 4
    return maps


def _worst_maps(num_images: int, side: int) -> list[Tensor]:
    """Raw maps of which every score reaches the threshold; channels-last, as the network leaves them."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(num_images, 4 * REG_MAX + NUM_CLASSES, side // stride, side // stride) for stride in STRIDES]
    return [torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last) for shape in shapes]


@torch.no_grad()
def _decoded(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(B, A, 4) boxes and (B, A, C) scores of all priors, as a user of torchvision writes it."""
    flat = torch.cat([raw.permute(0, 2, 3, 1).flatten(1, 2) for raw in maps], dim=1)
    points = cell_points(maps, STRIDES)
    edges = flat[..., : 4 * REG_MAX].reshape(*flat.shape[:2], 4, REG_MAX).softmax(dim=-1) @ torch.arange(float(REG_MAX))
    edges = edges * points.strides[:, None]
    boxes = torch.cat([points.centres - edges[..., :2], points.centres + edges[..., 2:]], dim=-1)
    return boxes, flat[..., 4 * REG_MAX :].sigmoid()


def _by_torchvision(maps: list[Tensor], side: int) -> list[DetectorOutput]:
    found = []
    for boxes, scores in zip(*_decoded(maps), strict=True):
        prior, label = torch.where(scores >= SCORE_THRESHOLD)
        candidates, score = clip_boxes_to_image(boxes[prior], (side, side)), scores[prior, label]
        has_area = (candidates[:, 2:] > candidates[:, :2]).all(dim=1)
        candidates, score, label = candidates[has_area], score[has_area], label[has_area]
        keep = batched_nms(candidates, score, label, NMS_IOU)[:MAX_DETECTIONS]
        found.append(DetectorOutput(candidates[keep], score[keep], label[keep]))
    return found


def postprocessing(blocks: int = 7, small: bool = False) -> Iterator[Row]:
    """Each case beside torchvision, then beside ultralytics' suppression."""
    torch.set_num_threads(1)
    num_images, side = (2, 160) if small else (8, 640)
    stage = f"decode + NMS, {num_images} images"
    cases = {"realistic": _realistic_maps(num_images, side), "worst case": _worst_maps(num_images, side)}
    with PeerProcess(threads=1) as peer, tempfile.TemporaryDirectory() as folder:
        asked = {"score_threshold": SCORE_THRESHOLD, "max_detections": MAX_DETECTIONS}
        for name, maps in cases.items():
            worst, found = name == "worst case", [list[DetectorOutput](), list[DetectorOutput]()]
            blocks, repeats = (1, 1) if worst else (blocks, 5)
            ours = _block(partial(best_detections, SCHEME, maps, (side, side), *LIMITS), 5, found[0])
            theirs = _block(partial(_by_torchvision, maps, side), repeats, found[1])
            times = in_turn(ours, theirs, blocks, warm_up=0 if worst else 1)
            same = sum(sorted(_rows(one)) == sorted(_rows(other)) for one, other in zip(*found, strict=True))
            mean = np.mean([len(image) for image in found[0]])
            note = f"the same detections for {same} of {num_images} images, {mean:.0f} an image"
            peer_name = f"torchvision {torchvision.__version__} batched_nms"
            yield Row(stage, name, peer_name, *times, "ms", 1.0 if worst else 2.0, note)

            boxes, scores = _decoded(maps)
            file = f"{folder}/{name}.npy"
            np.save(
                file,
                torch.cat([box_convert(boxes, "xyxy", "cxcywh"), scores], dim=2).transpose(1, 2).contiguous().numpy(),
            )
            times = in_turn(ours, peer.block("suppress", "ms", file=file, count=repeats, **asked), blocks)
            numbers = peer.last["found"]
            note = f"theirs without decoding, and clipped to the image by others later; its detections: {numbers}"
            peer_name = f"ultralytics {peer.ask('version')} non_max_suppression"
            yield Row(stage, name, peer_name, *times, "ms", note=note)


def _block(work: Callable[[], list[DetectorOutput]], repeats: int, found: list[DetectorOutput]) -> Callable[[], float]:
    """Milliseconds of a call; what the last one found is put into ``found``."""

    def again() -> None:
        for _ in range(repeats):
            found[:] = work()

    return timed(again, repeats, 1000)


def _rows(found: DetectorOutput) -> list[list[float]]:
    """Score, label and box of each, to a thousandth; sorted, they are in one order among equal scores."""
    columns = torch.cat([found.scores[:, None], found.labels[:, None], found.boxes], dim=1).double()
    rounded: list[list[float]] = columns.round(decimals=3).tolist()
    return rounded
