"""The audit of the augmentation: it sees what the pipeline does, and changes nothing of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.audit import ALL, AugmentationAudit
from detseg.data.loading.loader import TrainLoader, train_loader
from detseg.structures import ClassTable, InstanceMasks, Sample


class Boxes:
    """Noisy images of 64 x 64 pixels with the same boxes in each."""

    classes = ClassTable(("a",))

    def __init__(self, boxes: list[list[float]], num: int = 1) -> None:
        self.boxes, self.num = np.array(boxes, dtype=np.float32), num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Sample:
        num = len(self.boxes)
        return Sample(
            index=index,
            image_id=index,
            path=f"{index}.png",
            image=np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8),
            boxes=self.boxes,
            labels=np.zeros(num, dtype=np.int64),
            ignore=np.zeros(num, dtype=np.bool_),
        )


def loader_of(source: Boxes, side: int = 64, **settings: Any) -> tuple[TrainLoader, AugmentationConfig]:
    config = AugmentationConfig.model_validate({"horizontal_flip": 0.0, **settings})
    data: Any = source
    size: dict[str, Any] = {"input_hw": (side, side), "batch_size": 4, "num_workers": 0, "max_epochs": 9}
    return train_loader(data, config, seed=3, **size), config


def audited(source: Boxes, side: int = 64, **settings: Any) -> AugmentationAudit:
    loader, config = loader_of(source, side, **settings)
    audit = AugmentationAudit(config, (side, side))
    loader.dataset.observe(audit)  # type: ignore[attr-defined]  # of a training loader
    for _ in loader:
        pass
    return audit


EVERYTHING = {
    "crop": 0.5,
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "scale_jitter": [0.5, 2],
    "affine": {"probability": 0.5, "rotate_degrees": 20.0},
    "color": {"probability": 0.5},
    "blur": 0.5,
    "noise": 0.5,
    "clahe": {"probability": 0.5},
    "salt_and_pepper": {"probability": 0.5},
    "cutout": {"probability": 0.5},
    "mosaic": 0.4,
    "mixup": 0.3,
    "multi_scale": [0.5, 1.5],
}
SPREAD = [[1, 1, 9, 12], [20, 20, 50, 44], [40, 2, 62, 7], [0, 60, 64, 63], [30, 30, 33, 33]]


def test_an_observed_loader_gives_the_same_samples() -> None:
    source = Boxes(SPREAD, 30)
    plain, watched = loader_of(source, 96, **EVERYTHING)[0], loader_of(source, 96, **EVERYTHING)
    watched[0].dataset.observe(AugmentationAudit(watched[1], (96, 96)))  # type: ignore[attr-defined]  # of a training loader
    for one, other in zip(plain, watched[0], strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one.images, other.images)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one.targets, other.targets, strict=True))


def test_a_zoom_by_two_keeps_what_lies_in_the_middle() -> None:
    # Of 64 pixels the middle 32 are seen: the first box whole, of the second the right half, of the third nothing, and
    # the last one is 1.5 pixels high in the end.
    boxes = [[20, 20, 40, 40], [12, 20, 20, 30], [0, 0, 10, 10], [20, 30, 40, 30.75]]
    audit = audited(Boxes(boxes, 4), affine={"probability": 1.0, "scale": [2, 2], "translate": 0.0})
    assert audit.names == ["letterbox", "affine", ALL]
    letterbox, affine, total = (audit.row(name) for name in audit.names)
    assert (letterbox.images, letterbox.objects, letterbox.dropped, letterbox.fraction_kept) == (4, 16, 4, 1.0)
    assert (letterbox.below_pixel, letterbox.below_min) == (4, 4)
    assert (affine.images, affine.objects, affine.dropped) == (4, 12, 4)
    assert math.isclose(affine.fraction_kept, 0.5)  # (1 + 0.5 + 0) / 3
    assert (affine.below_pixel, affine.below_min) == (0, 4)
    assert (total.images, total.objects, total.dropped, total.below_min) == (4, 16, 8, 0)


@pytest.mark.parametrize("seed_of_boxes", [0, 1])
def test_what_the_steps_drop_adds_up_to_what_the_network_lacks(seed_of_boxes: int) -> None:
    corners = np.random.default_rng(seed_of_boxes).integers(0, 50, (12, 2))
    boxes = np.concatenate([corners, corners + 1 + np.arange(12)[:, None]], axis=1).astype(float).tolist()
    source = Boxes(boxes, 40)
    settings = {**EVERYTHING, "affine": {"probability": 0.6, "scale": [0.5, 2.0], "translate": 0.3}}  # upright
    audit = audited(source, 96, **settings)
    steps = [audit.row(name) for name in audit.names if name != ALL]
    dropped, total = sum(row.dropped for row in steps), audit.row(ALL)
    assert total.dropped > 100
    assert abs(dropped - total.dropped) <= 0.005 * total.objects  # boxes come to lie on whole pixels
    assert audit.num_images == 40
    left = sum(
        len(target.labels) for batch in loader_of(source, 96, **settings)[0] if batch for target in batch.targets
    )
    assert audit.row(ALL).objects - audit.row(ALL).dropped == left
    pairs = (("horizontal_flip", 0.5), ("mosaic", 0.4), ("color", 0.5), ("blur", 0.5), ("cutout", 0.5))
    pairs += (("clahe", 0.5), ("salt_and_pepper", 0.5))
    for name, probability in pairs:
        assert 0.2 < audit.row(name).images / 40 / probability < 1.8
    assert audit.row("multi_scale").images > 20


class Rectangles(Boxes):
    """The same with masks that fill the boxes, which have whole numbers."""

    def __getitem__(self, index: int) -> Sample:
        masks = np.zeros((len(self.boxes), 64, 64), dtype=np.bool_)
        for mask, (x1, y1, x2, y2) in zip(masks, self.boxes.astype(int).tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        return replace(super().__getitem__(index), masks=InstanceMasks.from_dense(masks))


def test_of_a_copy_paste_what_is_covered_is_dropped_and_what_is_pasted_counts() -> None:
    # All images have objects in the same places: a pasted one covers the one that was there.
    audit = audited(Rectangles([[4, 4, 20, 20], [30, 30, 60, 50]], 40), copy_paste=1.0)
    row, total = audit.row("copy_paste"), audit.row(ALL)
    assert (row.images, row.objects, total.images) == (40, 80, 40)
    assert 20 < row.dropped < 60  # about every other one
    assert math.isclose(row.fraction_kept, 1 - row.dropped / 80)
    assert (total.objects, total.dropped) == (80 + row.dropped, row.dropped)
    assert audit.names == ["letterbox", "copy_paste", ALL]


def test_copy_paste_is_off_at_the_end_and_draws_nothing_when_off() -> None:
    source = Rectangles(SPREAD, 12)
    off, last = (loader_of(source, copy_paste=p, no_mosaic_last_epochs=9, **EVERYTHING)[0] for p in (0.0, 1.0))
    for one, other in zip(off, last, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one.images, other.images)


def test_the_users_own_pipeline_is_told_by_transform_and_by_what_it_dropped(tmp_path: Any) -> None:
    albumentations = pytest.importorskip("albumentations")
    pipeline = albumentations.Compose([albumentations.Crop(0, 0, 32, 64), albumentations.Blur(p=0.5)])
    albumentations.save(pipeline, tmp_path / "a.yaml", data_format="yaml")
    audit = audited(Boxes([[2, 2, 20, 20], [40, 2, 60, 20]], 24), albumentations=str(tmp_path / "a.yaml"))
    row = audit.row("albumentations")
    assert (row.images, row.objects, row.dropped) == (24, 48, 24)
    assert audit.row("albumentations: Crop").images == 24
    assert 4 < audit.row("albumentations: Blur").images < 20
    assert audit.row(ALL).dropped == 24
