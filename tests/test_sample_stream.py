"""One sample stream: global batches hold the same images, crops and mosaics in all layouts of processes and workers."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch.distributed as dist

from detseg.config.schema.data import (
    AffineConfig,
    AugmentationConfig,
    ClaheConfig,
    ColorConfig,
    CutoutConfig,
    ElasticConfig,
    JpegConfig,
    SaltAndPepperConfig,
)
from detseg.data.formats.coco import read_coco
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.loader import train_loader
from detseg.data.loading.sampling import SampleRequest
from detseg.structures import Batch
from detseg.training.distributed import Processes
from tests.forked import run_together
from tests.tiny import write_ellipses

NUM_BATCHES = 30
GLOBAL_BATCH = 16
NUM_IMAGES = 40  # two and a half global batches: the third of an epoch is filled up from its beginning

BOXES = AugmentationConfig(
    vertical_flip=0.3,
    crop=0.3,
    affine=AffineConfig(probability=0.5, rotate_degrees=10),
    color=ColorConfig(probability=0.5),
    blur=0.2,
    noise=0.2,
    jpeg=JpegConfig(probability=0.2),
    cutout=CutoutConfig(probability=0.2),
    clahe=ClaheConfig(probability=0.2),
    salt_and_pepper=SaltAndPepperConfig(probability=0.2),
    mosaic=0.5,
    mixup=0.3,
    multi_scale=(0.5, 1.5),
)
FOR_MASKS = {"elastic": ElasticConfig(probability=0.5), "scale_jitter": (0.5, 2.0), "copy_paste": 0.3}
MASKS = BOXES.model_copy(update=FOR_MASKS)


def digests(batch: Batch) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(B, 32) SHA-256 of each image with its objects, and of its position in the data set."""
    rows = []
    for image, target, index in zip(batch.images, batch.targets, batch.indices, strict=True):
        digest = hashlib.sha256(str((index, tuple(image.shape))).encode())
        for column in (image, target.boxes, target.labels, target.ignore, target.masks):
            if column is not None:
                digest.update(column.contiguous().numpy().tobytes())
        rows.append(np.frombuffer(digest.digest(), dtype=np.uint8))
    return np.stack(rows)


def _coco(root: Path) -> tuple[Path, Path]:
    return root / "train", root / "annotations" / "instances_train.json"


def stream(root: Path, masks: bool, num_workers: int, rank: int, world_size: int) -> list[np.ndarray[Any, Any]]:
    """The digests of this process's share of the first batches."""
    source = read_coco(*_coco(root), masks=masks)
    loader = train_loader(
        source,
        (MASKS if masks else BOXES).model_copy(update={"albumentations": root / "pipeline.yaml"}),
        input_hw=(64, 96),
        batch_size=GLOBAL_BATCH // world_size,
        num_workers=num_workers,
        seed=3,
        max_epochs=100,
        rank=rank,
        world_size=world_size,
    )
    found: list[np.ndarray[Any, Any]] = []
    epoch = 0
    while len(found) < NUM_BATCHES:
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # ours
        found += [digests(batch) for batch in loader if batch is not None]
        epoch += 1
    return found[:NUM_BATCHES]


def global_digest(root: Path, masks: bool, num_workers: int) -> str:
    """In each of several processes: the digest of the global batches, put together in the first one."""
    dist.init_process_group("gloo")
    processes = Processes()
    own = stream(root, masks, num_workers, processes.rank, processes.world_size)
    several = processes.gather({str(number): rows for number, rows in enumerate(own)})
    whole = hashlib.sha256()
    for number in range(NUM_BATCHES if several else 0):
        rows = np.concatenate([part[str(number)] for part in several])
        assert len(rows) == GLOBAL_BATCH
        whole.update(rows.tobytes())
    processes.any(True)  # until the first one is done
    dist.destroy_process_group()
    return whole.hexdigest()


@pytest.mark.processes
@pytest.mark.parametrize("masks", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["boxes", "masks"])
def test_four_layouts_deal_the_same_global_batches(masks: bool, tmp_path: Path) -> None:
    root = write_ellipses(tmp_path / "data", {"train": NUM_IMAGES})
    pipeline = A.Compose([A.Rotate(p=0.3), A.Blur(p=0.3), A.RandomScale(p=0.3)])
    A.save(pipeline, root / "pipeline.yaml", data_format="yaml")
    layouts = [(1, 0), (1, 8), (4, 0), (4, 2)]
    found = {
        (num_processes, num_workers): run_together(global_digest, num_processes, root, masks, num_workers)[0]
        for num_processes, num_workers in layouts
    }
    assert len(set(found.values())) == 1, found
    print(f"sha256 of the first {NUM_BATCHES} global batches: {found[1, 0]}")


def test_threads_see_the_samples_of_one(tmp_path: Path) -> None:
    pipeline = A.Compose([A.Rotate(p=0.5), A.RandomBrightnessContrast(p=0.5), A.HorizontalFlip()])
    source = read_coco(*_coco(write_ellipses(tmp_path, {"train": NUM_IMAGES})))
    requests = [SampleRequest(epoch, index, 64, 96, mix=True) for epoch in range(3) for index in range(NUM_IMAGES)]
    alone, shared = (TrainDataset(source, BOXES, seed=3, albumentations=pipeline) for _ in range(2))
    expected = [alone[request].item.image.tobytes() for request in requests]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda request: shared[request].item.image.tobytes(), requests))
    finally:
        sys.setswitchinterval(before)
    assert [one == other for one, other in zip(found, expected, strict=True)] == [True] * len(requests)
