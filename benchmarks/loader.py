"""Loading training batches on one core: JPEG → decoded → letterbox, flip, affine map, colour → batch."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from functools import partial
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

from benchmarks.comparison import DATA, Block, Row, in_turn, timed
from benchmarks.peers.process import PeerProcess, yolo_labels
from detseg.config.schema.data import AffineConfig, AugmentationConfig, ColorConfig
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import CocoFile
from detseg.data.images.read import read_image
from detseg.data.loading.loader import train_loader
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import ClassTable, UInt8Array

NUM_FILES, NUM_BOXES = 256, 12
HEIGHT, WIDTH = 480, 640
SIZE = np.array([WIDTH, HEIGHT])
BATCH, BATCHES = 16, 8  # images of a batch, batches of a block

COLOR = ColorConfig(probability=1, brightness=0.4, saturation=0.7)
AUGMENTATION = AugmentationConfig(affine=AffineConfig(probability=1, scale=(0.5, 1.5)), color=COLOR)
THEIR_AUGMENTATION = {"fliplr": 0.5, "scale": 0.5, "translate": 0.1, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}


def loader(blocks: int = 5, small: bool = False) -> Iterator[Row]:
    """Beside ultralytics with mosaic off and on, torchvision, and bare decoding."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    stage, changes = "loader, one core", "affine map, colour"
    with tempfile.TemporaryDirectory() as folder:
        datasets = {}
        for name, source in (("cells", "bccd"), ("photographs", "coco_mini")):
            images = [read_image(file) for file in sorted((DATA / source).rglob("*.jpg"))[: 8 if small else None]]
            datasets[name] = _write_set(Path(folder) / name, images, BATCH * BATCHES * (blocks + 2))
        with PeerProcess(threads=1) as peer:
            for (kind, dataset), mosaic, size in itertools.product(datasets.items(), (0, 1), (640, 320)):
                key, hyp = f"{kind} {mosaic} {size}", {**THEIR_AUGMENTATION, "mosaic": float(mosaic)}
                root = str(Path(folder) / kind / "images")
                shape = peer.ask("prepare", name=key, images=root, size=size, batch=BATCH, **hyp)
                assert shape == [BATCH, 3, size, size]
                theirs = partial(peer.ask, "milliseconds_an_image", name=key, batches=BATCHES)
                times = in_turn(_our_block(dataset, size, mosaic), theirs, blocks)
                work = f"640 × 480 {kind} → {size}, {'mosaic' if mosaic else 'flip'}, {changes}"
                yield Row(stage, work, f"ultralytics {peer.ask('version')}", *times, "ms", 2.0)
        work, dataset = f"640 × 480 blood cells → 640, flip, {changes}", datasets["cells"]
        ours, name = _our_block(dataset, 640, mosaic=0), f"torchvision {torchvision.__version__} v2"
        yield Row(stage, work, name, *in_turn(ours, _torchvision_block(dataset, 640), blocks), "ms", 2.0)
        paths = (str(dataset.path(i % len(dataset))) for i in itertools.count())
        bare = _block([cv2.imread(next(paths)) for _ in range(BATCH)] for _ in itertools.count())
        yield Row(stage, work, f"bare cv2.imread, OpenCV {cv2.__version__}", *in_turn(ours, bare, blocks), "ms", 0.2)


def _write_set(root: Path, images: list[UInt8Array], num_images: int) -> DetectionDataset:
    """Write JPEGs of one size, random parts of images, under so many names, with boxes for both sides."""
    rng = np.random.default_rng(0)
    file = CocoFile(ClassTable(("a",)))
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(num_images):
        path = root / "images" / f"{number:05}.jpg"
        if number < NUM_FILES:
            image = images[number % len(images)]
            zoom = max(HEIGHT / image.shape[0], WIDTH / image.shape[1], 1.0)
            bgr = cv2.cvtColor(cv2.resize(image, None, fx=zoom, fy=zoom), cv2.COLOR_RGB2BGR)
            top, left = (int(rng.integers(rest + 1)) for rest in (bgr.shape[0] - HEIGHT, bgr.shape[1] - WIDTH))
            cut = bgr[top : top + HEIGHT, left : left + WIDTH]
            cv2.imwrite(str(path), cut, [cv2.IMWRITE_JPEG_QUALITY, 90])
        else:
            os.link(root / "images" / f"{number % NUM_FILES:05}.jpg", path)
        corners = rng.uniform(0, 0.8, (NUM_BOXES, 2)) * SIZE
        boxes, labels = np.hstack([corners, corners + 0.15 * SIZE]).tolist(), [0] * NUM_BOXES
        area = [0.15 * WIDTH * 0.15 * HEIGHT] * NUM_BOXES
        file.add(number + 1, path.name, (HEIGHT, WIDTH), boxes, labels, area=area, iscrowd=labels)
        (root / "labels" / f"{path.stem}.txt").write_text(yolo_labels(boxes, labels, (HEIGHT, WIDTH)))
    (root / "boxes.json").write_text(json.dumps(file.content), encoding="utf-8")
    return read_coco(root / "images", root / "boxes.json")


def _our_block(dataset: DetectionDataset, size: int, mosaic: float) -> Block:
    config = AUGMENTATION.model_copy(update={"mosaic": float(mosaic)})
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": 0, "seed": 0, "max_epochs": 100_000}
    loader = train_loader(dataset, config, input_hw=(size, size), **options)

    def batches() -> Iterator[Any]:
        for epoch in itertools.count():
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # ours
            yield from loader

    return _block(batches())


def _block(batches: Iterator[Any]) -> Block:
    """Milliseconds an image of the next batches."""
    return timed(lambda: deque(itertools.islice(batches, BATCHES), maxlen=0), BATCH * BATCHES, 1000)


def _torchvision_block(dataset: DetectionDataset, size: int) -> Block:
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

    def image(index: int) -> torch.Tensor:
        objects = dataset.annotations(index)
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=(HEIGHT, WIDTH))
        pixels = tv_tensors.Image(decode_jpeg(read_file(str(dataset.path(index)))))
        changed, _ = change(pixels, {"boxes": boxes, "labels": torch.from_numpy(objects.labels)})
        return torch.as_tensor(changed)

    order = itertools.chain.from_iterable(torch.randperm(len(dataset)).tolist() for _ in itertools.count())
    return _block(torch.stack([image(next(order)) for _ in range(BATCH)]) for _ in itertools.count())
