"""A user's own pipeline of albumentations: everything moves with the image, and nothing is lost or left to chance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.data.loading.examples import TrainDataset
from detseg.data.loading.loader import train_loader
from detseg.data.loading.sampling import SampleRequest
from detseg.errors import ConfigError, DataError
from detseg.structures import IGNORE_LABEL
from tests.data.images.painted import (
    PaintedSource,
    assert_bounds_of_masks,
    assert_masks_on_pixels,
    assert_valid,
    ellipses,
    painted,
    with_masks,
)

HW = (96, 128)
OFF = AugmentationConfig(horizontal_flip=0.0, min_box_size=0.0, min_visibility=0.0)

MOVES: dict[str, list[Any]] = {
    "flips": [A.HorizontalFlip(), A.VerticalFlip()],
    "crop": [A.RandomResizedCrop(size=HW, scale=(0.3, 1.0), p=1)],
    "smaller": [A.RandomCrop(height=70, width=60, p=1)],
    "larger": [A.PadIfNeeded(min_height=200, min_width=200, p=1)],
    "box-safe crop": [A.RandomSizedBBoxSafeCrop(height=HW[0], width=HW[1], p=1)],
    "affine": [A.Affine(scale=(0.6, 1.5), translate_percent=(-0.2, 0.2), p=1)],
    "quarter turns": [A.D4(p=1)],
    "rotation": [A.Rotate(limit=180, p=1)],
    "perspective": [A.Perspective(scale=(0.05, 0.2), p=1)],
    "elastic": [A.ElasticTransform(alpha=60, sigma=8, p=1)],
    "grid": [A.GridDistortion(p=1)],
    "optical": [A.OpticalDistortion(p=1)],
    "dropout": [A.CoarseDropout(num_holes_range=(3, 8), fill=0, fill_mask=255, p=1)],
    "one of": [A.OneOf([A.Rotate(p=1), A.Sequential([A.HorizontalFlip(p=1), A.Affine(p=1)], p=1)], p=0.8)],
}


def transform(transforms: list[Any], config: AugmentationConfig = OFF, **options: Any) -> TrainTransform:
    return TrainTransform(config, A.Compose(transforms, **options))


def run(change: TrainTransform, item: AugmentItem, seed: int = 0) -> AugmentItem:
    return change(item, HW, np.random.default_rng(seed))


@pytest.mark.parametrize("name", sorted(MOVES))
def test_masks_and_maps_lie_on_their_pixels(name: str) -> None:
    change = transform(MOVES[name])
    for seed in range(15):
        item = ellipses(HW, seed)
        masks = assert_bounds_of_masks(item)
        semantic = np.zeros(HW, dtype=np.uint8)
        for mask, label in zip(masks, item.labels.tolist(), strict=True):
            semantic[mask] = label + 1
        result = run(change, replace(item, semantic=semantic), seed)
        assert_valid(result, HW)
        assert result.semantic is not None
        assert set(np.unique(result.semantic).tolist()) <= {0, 1, 2, 3, IGNORE_LABEL}
        assert_masks_on_pixels(result, 6)
        dense = assert_bounds_of_masks(result)
        for label in range(3):
            np.testing.assert_array_equal(result.semantic == label + 1, dense[result.labels == label].any(axis=0))
        np.testing.assert_array_equal(result.ignore, result.labels == 1)


def test_borders_that_mirror_show_objects_again() -> None:
    pad = A.PadIfNeeded(min_height=96, min_width=256, position="top_left", border_mode=cv2.BORDER_REFLECT, p=1)
    item = replace(painted(HW, (108, 40, 118, 60)), labels=np.array([5]))
    result = run(transform([pad]), item)  # 96 × 256, letterboxed to a half
    assert sorted(result.boxes.tolist()) == [[54, 44, 59, 54], [69, 44, 74, 54]]
    assert (result.labels.tolist(), result.num_dropped) == ([5, 5], 0)
    filled = with_masks(item, (item.image == 255).all(axis=2)[None])
    assert run(transform([pad]), filled).boxes.tolist() == [[54, 44, 74, 54]]


EVERY_MOVE = [A.SomeOf([t for transforms in MOVES.values() for t in transforms], n=3), A.Resize(*HW)]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.sampled_from([0.0, 0.3]))
def test_any_valid_boxes_in_valid_boxes_out(seed: int, num: int, visibility: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.choice([0.0, 1.0, rng.random()], (num, 2)) * rng.uniform(0, 1, (num, 2))
    high = low + (1 - low) * 10.0 ** rng.uniform(-7, 0, (num, 2))  # many are thin
    boxes = (np.concatenate([low, high], axis=1) * [HW[1], HW[0], HW[1], HW[0]]).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    item = replace(painted(HW, *[(0, 0, 0, 0)] * len(boxes)), boxes=boxes, labels=np.arange(len(boxes)))
    result = run(transform(EVERY_MOVE, OFF.model_copy(update={"min_visibility": visibility})), item, seed)
    assert_valid(result, HW)
    assert result.num_dropped == len(boxes) - len(np.unique(result.labels))


def test_the_drop_rule_and_the_pipeline_s_own_limits() -> None:
    item = replace(painted(HW, (0, 0, 40, 40), (30, 0, 70, 40), (64, 0, 65, 96)), labels=np.arange(3))
    half = [A.Crop(x_min=64, y_min=0, x_max=128, y_max=96, p=1), A.Resize(*HW, p=1)]
    # Of the second box 6 of 40 columns are left: 12 × 40 pixels after the resize; the third is 2 pixels wide.
    for visibility, size, expected in ((0.1, 0.0, [1, 2]), (0.2, 0.0, [2]), (0.1, 2.5, [1])):
        config = OFF.model_copy(update={"min_visibility": visibility, "min_box_size": size})
        result = run(transform(half, config), item)
        dropped = 3 - len(expected) - (size > 1)  # not what our own geometry has dropped before
        assert (result.labels.tolist(), result.num_dropped) == (expected, dropped)
    assert run(transform(half), item).boxes.tolist() == [[0, 0, 12, 40], [0, 0, 2, 96]]
    limits = A.BboxParams(format="coco", label_fields=["names"], min_width=5)
    assert run(transform(half, bbox_params=limits), item).labels.tolist() == [1]


def test_random_choices_come_from_the_generator_alone_and_each_for_itself() -> None:
    pipeline = A.Compose([A.HorizontalFlip(), A.VerticalFlip(), A.GaussNoise()], seed=3)
    change, item = TrainTransform(OFF, pipeline), painted(HW, (10, 20, 30, 40))
    results = [run(change, item, seed) for seed in range(60)]
    for seed in (0, 7, 59):
        again = run(TrainTransform(OFF, pipeline), item, seed)
        np.testing.assert_array_equal(again.image, results[seed].image)
    kinds = {(*r.boxes[0, :2].tolist(), len(np.unique(r.image)) > 2) for r in results}
    assert len(kinds) == 8  # two flips and noise, independent of each other


def test_dropped_objects_are_counted(tmp_path: Path) -> None:
    A.save(A.Compose([A.Rotate(p=0.7), A.RandomCrop(40, 40), A.Blur()]), tmp_path / "pipeline.yaml", data_format="yaml")
    nums = []
    for workers, pipeline in ((0, None), (0, tmp_path / "pipeline.yaml"), (2, tmp_path / "pipeline.yaml")):
        options: dict[str, Any] = {"input_hw": (64, 64), "batch_size": 4, "seed": 0, "max_epochs": 9}
        config = AugmentationConfig(mosaic=0.5, albumentations=pipeline)
        loader = train_loader(PaintedSource(16), config, num_workers=workers, **options)
        nums.append(sum(len(target) for batch in loader if batch for target in batch.targets))
        assert loader.num_objects == nums[-1]
    before, left, with_workers = nums
    assert 0 < left == with_workers < before
    assert loader.lines() == [
        f"data.augmentation.albumentations: the pipeline removed {before - left} of {before} objects "
        f"({1 - left / before:.2%}) from the training images of this process"
    ]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_saved_pipeline_is_the_pipeline(suffix: str, tmp_path: Path) -> None:
    pipeline = A.Compose([A.OneOf([A.Rotate(), A.Affine(shear=10)]), A.ElasticTransform(p=1), A.ColorJitter()], p=0.9)
    file = tmp_path / f"pipeline.{suffix}"
    A.save(pipeline, file, data_format=suffix)
    saved = TrainTransform(OFF.model_copy(update={"albumentations": file}))
    for seed in range(5):
        item = ellipses(HW, seed)
        one, other = run(saved, item, seed), run(TrainTransform(OFF, pipeline), item, seed)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)


FLIP = {"__class_fullname__": "HorizontalFlip", "p": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([A.Lambda(image=lambda image, **_: image, name="mine").to_dict()["transform"]], "non-serializable transform"),
        ([{"__class_fullname__": "os.system", "p": 1}], "KeyError: 'os.system'"),
        ([7], "AttributeError: 'int' object"),
        ([{**FLIP, "q": 3}], r"Argument\(s\) 'q' are not valid for transform HorizontalFlip"),
        ([{**FLIP, "p": 7}], r"p Input should be less than or equal to 1 \[[^\n]*\]$"),
        (None, r"a\.yaml: not a pipeline as A.save writes it: No such file or directory$"),
        ("{", "flow"),
        ("transform: {__class_fullname__: Compose, transforms: [], bbox_params: {min_area: x}}", "TypeError"),
        ("transform: &a {__class_fullname__: Compose, transforms: [*a]}", "recursion"),
        ("transform: " + "[" * 5000, "recursion"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_files_that_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    if isinstance(content, list | dict):
        content = json.dumps({"transform": {"__class_fullname__": "Compose", "transforms": content}})  # YAML as well
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^data.augmentation.albumentations: .*{message}") as caught:
        TrainTransform(OFF.model_copy(update={"albumentations": file}))
    assert "\n" not in str(caught.value)


def test_pipelines_that_cannot_be_used_are_told_in_one_line() -> None:
    for pipeline, message in (
        ([A.HorizontalFlip()], "expected a pipeline of albumentations, got list"),
        (A.Compose([A.OneOf([A.Blur(), A.Lambda(image=np.flip, name="mine")])]), "ValueError: Lambda cannot be saved"),
        (A.FDA(), "NotImplementedError: FDA cannot be reliably serialized"),
        (A.Morphological(), "ValueError: Morphological of albumentations 2.0 moves boxes wrongly"),
    ):
        with pytest.raises(ConfigError, match=f"^data.augmentation.albumentations: {message}"):
            TrainTransform(OFF, pipeline)
    for transforms, message in (
        ([A.Normalize()], r"got float32 of shape \(96, 128, 3\); leave out Normalize"),
        ([A.ToTensorV2()], r"got torch.uint8 of shape \(3, 96, 128\); leave out"),
        ([A.MaskDropout(p=1)], "the pipeline failed: ValueError: MaskDropout requires"),
    ):
        dataset = TrainDataset(PaintedSource(3), OFF, 0, albumentations=A.Compose(transforms))
        error = dataset.__getitems__([SampleRequest(0, 1, *HW, mix=False)])
        assert isinstance(error, DataError)
        with pytest.raises(DataError, match=f"^data.augmentation.albumentations: .*{message}"):
            raise error


def test_the_user_s_pipeline_is_left_alone() -> None:
    pipeline = A.Compose([A.Affine(fill_mask=7, mask_interpolation=cv2.INTER_LINEAR, p=1)])
    before = yaml.safe_dump(A.to_dict(pipeline))
    run(TrainTransform(OFF, pipeline), painted(HW))
    assert yaml.safe_dump(A.to_dict(pipeline)) == before
