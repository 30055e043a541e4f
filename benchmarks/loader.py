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

NUM_FILES = 256
HEIGHT, WIDTH = 480, 640
SIZE = np.array([WIDTH, HEIGHT])
BATCH, BATCHES = 16, 8
"""Images of a batch, batches of a block."""

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
            files = sorted((DATA / source).rglob("*.jpg"))[: 8 if small else None]
            if not files:
                raise SystemExit(f"{DATA / source}: no images; set DETSEG_DATA to the folder of the shared data")
            images = [read_image(file) for file in files]
            datasets[name] = write_set(Path(folder) / name, images, BATCH * BATCHES * (blocks + 2))
        with PeerProcess(threads=1) as peer:
            for (kind, dataset), mosaic, size in itertools.product(datasets.items(), (0, 1), (640, 320)):
                key, hyp = f"{kind} {mosaic} {size}", {**THEIR_AUGMENTATION, "mosaic": float(mosaic)}
                root = str(Path(folder) / kind / "images")
                shape = peer.ask("prepare", name=key, images=root, size=size, batch=BATCH, **hyp)
                if shape != [BATCH, 3, size, size]:
                    raise RuntimeError(f"the peer's batches are of shape {shape}")
                theirs = partial(peer.ask, "milliseconds_an_image", name=key, batches=BATCHES)
                times = in_turn(our_block(dataset, size, mosaic), theirs, blocks)
                work = f"640 × 480 {kind} → {size}, {'mosaic' if mosaic else 'flip'}, {changes}"
                yield Row(stage, work, f"ultralytics {peer.ask('version')}", *times, "ms", 2.0)
        work, dataset = f"640 × 480 blood cells → 640, flip, {changes}", datasets["cells"]
        ours, name = our_block(dataset, 640, mosaic=0), f"torchvision {torchvision.__version__} v2"
        yield Row(stage, work, name, *in_turn(ours, torchvision_block(dataset, 640), blocks), "ms", 2.0)
        paths = (str(dataset.path(i % len(dataset))) for i in itertools.count())
        bare = batches_block([cv2.imread(next(paths)) for _ in range(BATCH)] for _ in itertools.count())
        yield Row(stage, work, f"bare cv2.imread, OpenCV {cv2.__version__}", *in_turn(ours, bare, blocks), "ms", 0.2)


def write_set(root: Path, images: list[UInt8Array], num_images: int, num_boxes: int = 12) -> DetectionDataset:
    """Write JPEGs of one size, cut at random places from images, under so many names, with boxes for both sides."""
    rng = np.random.default_rng(0)
    file = CocoFile(ClassTable(("a",)))
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(num_images):
        path = root / "images" / f"{number:05}.jpg"
        if number < NUM_FILES:
            cut = cv2.cvtColor(_random_cut(images[number % len(images)], rng), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(path), cut, [cv2.IMWRITE_JPEG_QUALITY, 90])
        else:
            os.link(root / "images" / f"{number % NUM_FILES:05}.jpg", path)
        corners = rng.uniform(0, 0.8, (num_boxes, 2)) * SIZE
        boxes, labels = np.hstack([corners, corners + 0.15 * SIZE]).tolist(), [0] * num_boxes
        area, crowd = [0.15 * WIDTH * 0.15 * HEIGHT] * num_boxes, [0] * num_boxes
        file.add(number + 1, path.name, (HEIGHT, WIDTH), boxes, labels, area=area, iscrowd=crowd)
        text = yolo_labels(boxes, labels, (HEIGHT, WIDTH))
        (root / "labels" / f"{path.stem}.txt").write_text(text, encoding="utf-8")
    (root / "boxes.json").write_text(json.dumps(file.content), encoding="utf-8")
    return read_coco(root / "images", root / "boxes.json")


def _random_cut(image: UInt8Array, rng: np.random.Generator) -> UInt8Array:
    """A part of an image, enlarged where it is too small for one."""
    zoom = max(HEIGHT / image.shape[0], WIDTH / image.shape[1], 1.0)
    image = np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom), dtype=np.uint8)
    top, left = int(rng.integers(image.shape[0] - HEIGHT + 1)), int(rng.integers(image.shape[1] - WIDTH + 1))
    return image[top : top + HEIGHT, left : left + WIDTH]


def our_block(dataset: DetectionDataset, size: int, mosaic: float) -> Block:
    """Milliseconds an image of the next batches of our loader."""
    config = AUGMENTATION.model_copy(update={"mosaic": float(mosaic)})
    options: dict[str, Any] = {"input_hw": (size, size), "batch_size": BATCH, "num_workers": 0}
    loader = train_loader(dataset, config, **options, seed=0, max_epochs=100_000)

    def batches() -> Iterator[Any]:
        for epoch in itertools.count():
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # ours
            yield from loader

    return batches_block(batches())


def batches_block(batches: Iterator[Any]) -> Block:
    """Milliseconds an image of the next batches."""
    return timed(lambda: deque(itertools.islice(batches, BATCHES), maxlen=0), BATCH * BATCHES, 1000)


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

    def image(index: int) -> torch.Tensor:
        objects = dataset.annotations(index)
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes), format="XYXY", canvas_size=(HEIGHT, WIDTH))
        pixels = tv_tensors.Image(decode_jpeg(read_file(str(dataset.path(index)))))
        changed, _ = change(pixels, {"boxes": boxes, "labels": torch.from_numpy(objects.labels)})
        return torch.as_tensor(changed)

    order = itertools.chain.from_iterable(torch.randperm(len(dataset)).tolist() for _ in itertools.count())
    return batches_block(torch.stack([image(next(order)) for _ in range(BATCH)]) for _ in itertools.count())
