"""Loading training batches on one core: JPEG → decoded → letterbox, flip, affine map, colour → batch, in one process.

The peers: ultralytics' training data set with mosaic off and on, torchvision's transforms (v2) on tensors, and a bare
loop of ``cv2.imread``, of whose speed a fifth is wanted.  All load the same JPEGs of 640 × 480 pixels with 12 boxes
each, in batches of 16 and in random order, with the augmentations that are ultralytics' defaults: one image in two
mirrored; each zoomed by 0.5 to 1.5, shifted and changed in colour.  There are so many files that no block sees one
again: what either side keeps of a small set from epoch to epoch does not count.  Where the input is 320 pixels, ours
decodes the JPEGs at half their size, as it does in training.

Pictures of two kinds, from the shared data: blood cells (30 kB) and photographs (coco_mini, cut to size: 100 kB).

    python -m benchmarks.loader --blocks 5
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before any library starts its threads

import cv2
import numpy as np
import torch
import torchvision
from torchvision import tv_tensors
from torchvision.io import decode_jpeg, read_file
from torchvision.transforms import v2

from benchmarks.in_turn import Block, Row, in_turn
from benchmarks.peer_process import ROOT, PeerProcess
from benchmarks.row_program import run_rows
from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig
from detseg.data.augment.geometry import moved
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.datasets.contract import checked_sample
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.images.read import read_image
from detseg.data.loading.examples import Example, collate, to_item
from detseg.data.loading.loader import train_loader
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import Batch, UInt8Array

DATA = Path(os.environ.get("DETSEG_DATA", ROOT.parent / "shared" / "data"))
NUM_PICTURES, NUM_BOXES = 256, 12
HEIGHT, WIDTH = 480, 640
BATCH, BATCHES = 16, 8
"""Images of a batch, batches of a block."""

COLOR = ColorConfig(probability=1, brightness=0.4, saturation=0.7)
AUGMENTATION = AugmentationConfig(affine=AffineConfig(probability=1, scale=(0.5, 1.5)), color=COLOR)
THEIR_AUGMENTATION = {"fliplr": 0.5, "scale": 0.5, "translate": 0.1, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}


def rows(blocks: int) -> Iterator[Row]:
    """Beside ultralytics with mosaic off and on, torchvision, and bare decoding."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cells, photographs = Path(folder) / "cells", Path(folder) / "photographs"
        num_images = BATCH * BATCHES * (blocks + 2)
        write_set(cells, pictures("bccd"), num_images)
        write_set(photographs, pictures("coco_mini"), num_images)
        for root in (cells, photographs):
            dataset = read_coco(root / "images", root / "boxes.json")
            with PeerProcess("ultralytics_loader.py", threads=1) as peer:
                yield from beside_ultralytics(dataset, root, peer, blocks)
        dataset = read_coco(cells / "images", cells / "boxes.json")
        ours = our_block(dataset, 640, mosaic=0)
        work = "640 × 480 blood cells → 640, flip, affine map, colour"
        times = in_turn(ours, torchvision_block(dataset, 640), blocks)
        name = f"torchvision {torchvision.__version__} v2"
        yield Row("loader, one core", work, name, *times, "ms", wanted=2, note=parts_note(dataset, 640))
        times = in_turn(ours, imread_block(dataset), blocks)
        yield Row("loader, one core", work, f"bare cv2.imread, OpenCV {cv2.__version__}", *times, "ms", wanted=0.2)


def beside_ultralytics(dataset: DetectionDataset, root: Path, peer: PeerProcess, blocks: int) -> Iterator[Row]:
    """The rows of one kind of pictures."""
    name = f"ultralytics {peer.ask('version')}"
    for mosaic, size in itertools.product((0, 1), (640, 320)):
        hyp = {**THEIR_AUGMENTATION, "mosaic": float(mosaic)}
        key = f"{mosaic} {size}"
        shape = peer.ask("prepare", name=key, images=str(root / "images"), size=size, batch=BATCH, **hyp)
        if shape != [BATCH, 3, size, size]:
            raise RuntimeError(f"the peer's batches are of shape {shape}")

        def theirs(key: str = key) -> float:
            return float(peer.ask("milliseconds_an_image", name=key, batches=BATCHES))

        times = in_turn(our_block(dataset, size, mosaic), theirs, blocks)
        what = "mosaic, affine map, colour" if mosaic else "flip, affine map, colour"
        work = f"640 × 480 {root.name} → {size}, {what}"
        yield Row("loader, one core", work, name, *times, "ms", wanted=2)


def pictures(folder: str) -> list[UInt8Array]:
    """The JPEGs of a folder of the shared data."""
    files = sorted((DATA / folder).rglob("*.jpg"))
    if not files:
        raise SystemExit(f"{DATA / folder}: there are no pictures; set DETSEG_DATA to the folder of the shared data")
    return [read_image(file) for file in files]


def write_set(root: Path, pictures: list[UInt8Array], num_images: int) -> None:
    """Write JPEGs of one size, cut at random places from pictures, under so many names, with boxes for both sides."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(num_images):
        file = root / "images" / f"{number:05}.jpg"
        if number < NUM_PICTURES:
            cut = cv2.cvtColor(random_cut(pictures[number % len(pictures)], rng), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(file), cut, [cv2.IMWRITE_JPEG_QUALITY, 90])
        else:
            os.link(root / "images" / f"{number % NUM_PICTURES:05}.jpg", file)
        images.append({"id": number + 1, "file_name": file.name, "height": HEIGHT, "width": WIDTH})
        lines = []
        for x, y in rng.uniform(0, 0.8, (NUM_BOXES, 2)).tolist():
            box = [x * WIDTH, y * HEIGHT, 0.15 * WIDTH, 0.15 * HEIGHT]
            annotation = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "category_id": 1}
            annotations.append({**annotation, "id": len(annotations) + 1, "image_id": number + 1})
            lines.append(f"0 {x + 0.075:.6f} {y + 0.075:.6f} 0.15 0.15\n")
        (root / "labels" / f"{file.stem}.txt").write_text("".join(lines), encoding="utf-8")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (root / "boxes.json").write_text(json.dumps(content), encoding="utf-8")


def random_cut(picture: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """A part of a picture, enlarged where it is too small for one."""
    zoom = max(HEIGHT / picture.shape[0], WIDTH / picture.shape[1], 1.0)
    picture = np.asarray(cv2.resize(picture, None, fx=zoom, fy=zoom), dtype=np.uint8)
    top, left = int(rng.integers(picture.shape[0] - HEIGHT + 1)), int(rng.integers(picture.shape[1] - WIDTH + 1))
    return picture[top : top + HEIGHT, left : left + WIDTH]


def our_block(dataset: DetectionDataset, size: int, mosaic: float) -> Block:
    """Milliseconds an image of the next batches of our loader."""
    config = AUGMENTATION.model_copy(update={"mosaic": float(mosaic)})
    options: dict[str, Any] = {"input_hw": (size, size), "batch_size": BATCH, "num_workers": 0}
    loader = train_loader(dataset, config, **options, seed=0, max_epochs=100_000)

    def batches() -> Iterator[Batch | None]:
        for epoch in itertools.count():
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # ours
            yield from loader

    return batches_block(batches())


def batches_block(batches: Iterator[Any]) -> Block:
    """Milliseconds an image of the next batches."""

    def block() -> float:
        begin = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        return (time.perf_counter() - begin) * 1000 / (BATCH * BATCHES)

    return block


def torchvision_block(dataset: DetectionDataset, size: int) -> Block:
    """A batch's images through torchvision's decoder and transforms, one by one, with their boxes, then stacked."""
    change = v2.Compose(
        [
            v2.Resize((size * HEIGHT // WIDTH, size), antialias=True),
            v2.Pad([0, (size - size * HEIGHT // WIDTH) // 2], fill=PAD_VALUE),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(0, (0.1, 0.1), (0.5, 1.5), interpolation=v2.InterpolationMode.BILINEAR, fill=PAD_VALUE),
            v2.ColorJitter(COLOR.brightness, COLOR.contrast, COLOR.saturation, COLOR.hue),
            v2.SanitizeBoundingBoxes(min_size=2),
        ]
    )

    def batches() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(dataset)).tolist()
            for start in range(0, len(order), BATCH):
                yield torch.stack([image(index) for index in order[start : start + BATCH]])

    def image(index: int) -> torch.Tensor:
        objects = dataset.annotations(index)
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=(HEIGHT, WIDTH))
        pixels = tv_tensors.Image(decode_jpeg(read_file(str(dataset.path(index)))))
        changed, _ = change(pixels, {"boxes": boxes, "labels": torch.from_numpy(objects.labels)})
        return torch.as_tensor(changed)

    return batches_block(batches())


def imread_block(dataset: DetectionDataset) -> Block:
    """Nothing but decoding."""

    def batches() -> Iterator[None]:
        for start in itertools.count(0, BATCH):
            for index in range(start, start + BATCH):
                cv2.imread(str(dataset.path(index % len(dataset))))
            yield None

    return batches_block(batches())


def parts_note(dataset: DetectionDataset, size: int) -> str:
    """Where our time goes: the stages of the loader one by one, a batch at a time."""
    transform, rng, hw = TrainTransform(AUGMENTATION), np.random.default_rng(0), (size, size)
    spent: dict[str, float] = {}

    def stage(name: str, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        begin = time.perf_counter()
        done = [work(item) for item in items]
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin
        return done

    for start in range(0, BATCH * BATCHES, BATCH):
        samples = stage("decode", lambda index: checked_sample(dataset, index, hw), range(start, start + BATCH))
        items = stage("geometry", lambda s: moved(to_item(s), transform.motion(hw, rng), hw), samples)
        items = stage("drop rule and colour", lambda item: transform.finished(item, rng), items)
        stage("collate", lambda batch: collate([Example(item, 0) for item in batch]), [items])
    return "ours: " + ", ".join(f"{name} {taken / BATCH / BATCHES * 1000:.2f} ms" for name, taken in spent.items())


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=5)
