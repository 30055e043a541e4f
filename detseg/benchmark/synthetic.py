"""Pictures with plausible objects, for a benchmark on a machine that has none of the data.

They are written to a folder as JPEG files with COCO annotations (detectors) or PNG masks (segmenters), so that reading
and decoding are timed as they will be.  Smooth noise of several sizes compresses, and is decoded, like a photograph.

Letters: N objects, H and W pixels.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from detseg.config.schema.data import CocoConfig, DataSection, MaskFolderConfig, ShapesConfig, VocConfig
from detseg.config.schema.experiment import DetectorConfig, ExperimentConfig
from detseg.config.schema.segmentation import FcnConfig, UNetConfig
from detseg.structures import UInt8Array

Outline = npt.NDArray[np.int32]
"""(V, 2) x and y."""

MEAN_OBJECTS = 7
"""Of an image, as in COCO."""

_NUM_VAL = 32
_LEAST_TRAIN, _MOST_TRAIN = 320, 600
_DECODED_BYTES = 160e6
"""Of all training images at the input's size: more than a loader process keeps decoded for its mosaics."""

_NUM_DRAWN = 48
"""Different pictures; the others are copies."""

_JPEG_QUALITY = 90
_CORNERS = 24
"""Vertices of an object's outline."""


def with_synthetic_data(config: ExperimentConfig, root: Path) -> ExperimentConfig:
    """Write pictures that suit the model into a folder; returns the settings that read them.

    The classes are ``data.classes``, or as many as the layout usually has: 20 for ``voc``, 80 for ``coco``.

    Args:
        config: the settings; what all layouts have in common stays: image size, batch, workers, augmentation.
        root: an empty folder.
    """
    rng = np.random.default_rng(0)
    names = class_names(config)
    hw = _picture_hw(config.data.input_hw)
    num_train = max(_num_train(config.data.input_hw), 2 * config.data.num_images)
    common = {key: getattr(config.data, key) for key in DataSection.model_fields if key != "classes"}
    data: CocoConfig | MaskFolderConfig
    if isinstance(config.model, DetectorConfig):
        for split, num_images in (("train", num_train), ("val", _NUM_VAL)):
            _write_objects(root, split, num_images, names, hw, rng)
        files = {f"{split}_images": Path(split) for split in ("train", "val")}
        files |= {f"{split}_annotations": Path(f"{split}.json") for split in ("train", "val")}
        data = CocoConfig(**common, classes=names, name="coco", root=root, **cast(Any, files))
    else:
        for split, num_images in (("train", num_train), ("val", _NUM_VAL)):
            _write_maps(root, split, num_images, len(names), hw, rng)
        data = MaskFolderConfig(**common, classes=names, name="mask_folder", root=root)
    return config.model_copy(update={"data": data})


def class_names(config: ExperimentConfig) -> tuple[str, ...]:
    """The classes of the settings, or made-up ones, as many as the layout usually has."""
    data, model = config.data, config.model
    if data.classes is not None:
        return data.classes
    values = getattr(data, "mask_values", None) or getattr(data, "mask_colors", None)
    if isinstance(model, FcnConfig | UNetConfig):
        background = 1
        given = model.loss.class_weights if isinstance(model.loss.class_weights, tuple) else None
        if model.binary:
            return ("background", "object")
        if values or given:
            return tuple(f"class{i}" for i in range(len(values or given or ())))
    else:
        background = 0
    num_objects = {VocConfig: 20, ShapesConfig: 5, CocoConfig: 80}.get(type(data), 20)
    return tuple(f"class{i}" for i in range(num_objects + background))


def _num_train(input_hw: tuple[int, int]) -> int:
    fill = int(_DECODED_BYTES / (3 * input_hw[0] * input_hw[1] * 3 / 4))
    return min(max(fill, _LEAST_TRAIN), _MOST_TRAIN)


def _picture_hw(input_hw: tuple[int, int]) -> tuple[int, int]:
    """480 x 640 pixels; as large as the network input where that is larger, smaller where it is far smaller."""
    longest = max(min(640, 4 * max(input_hw)), *input_hw)
    return longest * 3 // 4, longest


def _write_objects(
    root: Path, split: str, num_images: int, names: tuple[str, ...], hw: tuple[int, int], rng: np.random.Generator
) -> None:
    (root / split).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    outlines: list[list[Outline]] = []
    for number in range(num_images):
        file = root / split / f"{number:06d}.jpg"
        if number < _NUM_DRAWN:
            picture = _background(hw, rng)
            outlines.append(_outlines(hw, rng))
            for outline in outlines[-1]:
                cv2.fillPoly(picture, [outline], rng.integers(0, 256, 3).tolist())
            _write_picture(file, picture, rng)
        else:
            shutil.copyfile(root / split / f"{number % _NUM_DRAWN:06d}.jpg", file)
        images.append({"id": number + 1, "file_name": file.name, "height": hw[0], "width": hw[1]})
        for outline in outlines[number % _NUM_DRAWN]:
            (x, y), (right, bottom) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": len(annotations) % len(names) + 1,
                    "bbox": [x, y, right - x, bottom - y],
                    "area": float(cv2.contourArea(outline)),
                    "segmentation": [outline.ravel().tolist()],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


def _write_maps(
    root: Path, split: str, num_images: int, num_classes: int, hw: tuple[int, int], rng: np.random.Generator
) -> None:
    """In the folders that a ``MaskFolderConfig`` names if it is not told any."""
    images, masks = root / split / "images", root / split / "masks"
    for folder in (images, masks):
        folder.mkdir(parents=True)
    label = 0
    for number in range(num_images):
        image, mask = images / f"{number:06d}.jpg", masks / f"{number:06d}.png"
        if number >= _NUM_DRAWN:
            for file in (image, mask):
                shutil.copyfile(file.with_stem(f"{number % _NUM_DRAWN:06d}"), file)
            continue
        picture, labels = _background(hw, rng), np.zeros(hw, dtype=np.uint8)
        for outline in _outlines(hw, rng):
            label = (label + 1) % num_classes
            cv2.fillPoly(picture, [outline], rng.integers(0, 256, 3).tolist())
            cv2.fillPoly(labels, [outline], label)
        _write_picture(image, picture, rng)
        cv2.imwrite(str(mask), labels)


def _background(hw: tuple[int, int], rng: np.random.Generator) -> UInt8Array:
    """(H, W, 3) uint8: noise whose strength grows with the size of its grains."""
    picture = np.full((*hw, 3), 110.0, dtype=np.float32)
    for grain, strength in ((4, 4), (16, 12), (64, 30), (160, 40)):
        grid = rng.standard_normal((hw[0] // grain + 2, hw[1] // grain + 2, 3)).astype(np.float32)
        picture += strength * cv2.resize(grid, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(picture.clip(0, 255), dtype=np.uint8)


def _outlines(hw: tuple[int, int], rng: np.random.Generator) -> list[Outline]:
    """Of the objects of a picture: bumpy ellipses within it, with sides of 1/20 to 1/2; small ones are commoner."""
    height, width = hw
    found: list[Outline] = []
    for _ in range(1 + rng.poisson(MEAN_OBJECTS - 1)):
        half = 0.5 * np.exp(rng.uniform(np.log(0.05), np.log(0.5), 2)) * (width, height)
        centre = rng.uniform(half, (width, height) - half)
        angles = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
        radius = rng.uniform(0.8, 1.0, (_CORNERS, 1))
        points = centre + radius * half * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        found.append(np.round(points).astype(np.int32))
    return found


def _write_picture(path: Path, picture: UInt8Array, rng: np.random.Generator) -> None:
    grain = 3 * rng.standard_normal(picture.shape, dtype=np.float32)  # of the sensor
    noisy = (picture + grain).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
