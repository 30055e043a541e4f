"""What albumentations does: CLAHE, blur, noise, JPEG artefacts and cutout; and the user's own pipeline.

This is the only file that imports it. The user's pipeline runs on the network's input after our geometry and before
colour, CLAHE, blur, noise, JPEG artefacts and cutout, which a later interpolation would smooth.
"""

from __future__ import annotations

import copy
import json
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import yaml

from detseg.config.schema.data import AugmentationConfig
from detseg.data.augment.geometry import AugmentItem, Motion, keep_visible, moved
from detseg.errors import ConfigError, DataError
from detseg.messages import one_line
from detseg.ops.letterbox import PAD_VALUE
from detseg.structures import IGNORE_LABEL

if TYPE_CHECKING:
    from detseg.data.augment.audit import AugmentationAudit

BLUR_SIGMA = (0.3, 1.2)  # standard deviation of the blur, pixels: that of a slightly missed focus
NOISE_STD = (0.01, 0.05)  # standard deviation of the noise as a fraction of the full brightness


def _import_albumentations() -> Any:
    """albumentations, which on import asks a server for its newest version unless the environment forbids it."""
    key = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        import albumentations
    finally:
        os.environ.pop(key)
        os.environ.update({} if before is None else {key: before})
    return albumentations


A: Any = _import_albumentations()


def pixel_changes(config: AugmentationConfig) -> SeededPipeline:
    """The pixel changes that the settings ask for, in order: CLAHE, blur, noise, salt and pepper, JPEG, cutout."""
    clahe, salt_and_pepper, jpeg, cutout = config.clahe, config.salt_and_pepper, config.jpeg, config.cutout
    longest = min(cutout.max_size, 0.999)  # it would take 1.0 for one pixel
    sides = (longest / 4, longest)
    changes = [
        A.CLAHE(clahe.clip_limit, p=clahe.probability),
        A.GaussianBlur(blur_limit=0, sigma_limit=BLUR_SIGMA, p=config.blur),
        # One value for the three channels: luminance is what sensors disturb most, and it is faster.
        A.GaussNoise(std_range=NOISE_STD, per_channel=False, p=config.noise),
        A.SaltAndPepper(salt_and_pepper.amount, p=salt_and_pepper.probability),
        A.ImageCompression(compression_type="jpeg", quality_range=jpeg.quality, p=jpeg.probability),
        A.CoarseDropout((1, cutout.max_holes), sides, sides, PAD_VALUE, p=cutout.probability if longest else 0),
    ]
    return SeededPipeline(A.Compose([change for change in changes if change.p > 0], strict=True))


class SeededPipeline:
    """A pipeline whose random choices all come from the generator of a call, which it keeps: a copy for each thread."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._of_thread: dict[int, Any] = {}
        self._audit: AugmentationAudit | None = None
        self._names: Mapping[str, str] = {}

    def observe(self, audit: AugmentationAudit, names: Mapping[str, str]) -> None:
        """Tell an audit of each transform that is applied, by the name given for its class, or that of the class."""
        self._pipeline.save_applied_params = True
        self._of_thread, self._audit, self._names = {}, audit, names

    def __call__(self, rng: np.random.Generator, **targets: Any) -> dict[str, Any]:
        """The targets after the pipeline, whose choices ``rng`` draws."""
        thread = threading.get_ident()
        if thread not in self._of_thread:
            self._of_thread[thread] = copy.deepcopy(self._pipeline)
        pipeline = self._of_thread[thread]
        # By set_random_seed every transform would have the same stream: those of one probability all happen, or none.
        pipeline.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result = dict(pipeline(**targets))
        if self._audit is not None:
            for name, _ in result.get("applied_transforms", ()):
                self._audit.applied(self._names.get(name, f"albumentations: {name}"))
        return result


_SETTING = "data.augmentation.albumentations"
MIN_SIDE = 0.01  # boxes with a shorter side, pixels, are dropped: albumentations raises if rounding leaves nothing
# Transforms that call cv2.resize, whose INTER_NEAREST shifts masks against the image by up to half a pixel.
_CROPS_RESIZED = (A.RandomResizedCrop, A.RandomSizedCrop, A.RandomSizedBBoxSafeCrop, A.CropAndPad)
_RESIZES = (A.Resize, A.RandomScale, A.LongestMaxSize, A.SmallestMaxSize, *_CROPS_RESIZED)
# Transforms whose choices depend on boxes.
_READ_BOXES = (A.BBoxSafeRandomCrop, A.AtLeastOneBBoxRandomCrop, A.ConstrainedCoarseDropout)


def load_pipeline(file: Path) -> Any:
    """Read what ``A.save(pipeline, file, data_format="yaml")``, or ``"json"``, has written; a ConfigError if it is not
    that. Transforms are looked up by name among those of albumentations; nothing in the file is imported."""
    try:
        text = file.read_text(encoding="utf-8")
        return A.from_dict(json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text))
    except Exception as error:  # albumentations takes what it is given, so that anything may be raised
        raise ConfigError(f"{_SETTING}: {file}: not a pipeline as A.save writes it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = one_line(error).partition(" For further information")[0]  # pydantic's, with an address
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {text}"


class UserPipeline:
    """Runs a copy of a pipeline, ``A.Compose`` or another transform, on images with their objects and semantic maps.

    `min_visibility` and the limits of the pipeline's own ``bbox_params`` apply to boxes after each transform,
    `min_box_size` at the end; masks are dropped when nothing is left. ``content`` is what albumentations would write to
    a file. A ConfigError if it is no pipeline, cannot be written to a file, or has invalid arguments.
    """

    def __init__(self, pipeline: Any, config: AugmentationConfig) -> None:
        if not isinstance(pipeline, A.BasicTransform | A.BaseCompose):
            raise ConfigError(f"{_SETTING}: expected a pipeline of albumentations, got {type(pipeline).__name__}")
        self._min_box_size = config.min_box_size
        pipeline = copy.deepcopy(pipeline if isinstance(pipeline, A.Compose) else A.Compose([pipeline]))
        leaves = _leaves(pipeline)
        self._moves = any(isinstance(leaf, A.DualTransform) for leaf in leaves)
        self._reads_boxes = any(isinstance(leaf, _READ_BOXES) for leaf in leaves)
        own = pipeline.processors["bboxes"].params if "bboxes" in pipeline.processors else A.BboxParams("pascal_voc")
        try:
            if lost := [type(leaf).__name__ for leaf in leaves if not leaf.is_serializable()]:
                raise ValueError(f"{lost[0]} cannot be saved, so the run could not be repeated; write a class instead")
            if any(isinstance(leaf, A.Morphological) for leaf in leaves):
                raise ValueError("Morphological of albumentations 2.0 moves boxes wrongly where there are several")
            limits = {
                "min_area": own.min_area,
                "min_visibility": max(own.min_visibility, config.min_visibility),
                "min_width": max(own.min_width, MIN_SIDE),
                "min_height": max(own.min_height, MIN_SIDE),
                "max_accept_ratio": own.max_accept_ratio,
            }
            boxes = A.BboxParams("pascal_voc", clip=True, filter_invalid_bboxes=True, **limits)
            options = {"bbox_params": boxes if self._moves else None, "additional_targets": {"inside": "mask"}}
            self.content = json.dumps(A.to_dict(pipeline)["transform"], sort_keys=True, default=_plain).encode()
            self._run = SeededPipeline(A.Compose(pipeline.transforms, **options, p=pipeline.p, strict=True))
        except Exception as error:  # as above
            raise ConfigError(f"{_SETTING}: {_reason(error)}") from error
        for leaf in leaves:
            leaf.set_deterministic(False)  # it is true in a ReplayCompose
            leaf.mask_interpolation = cv2.INTER_NEAREST_EXACT if isinstance(leaf, _RESIZES) else cv2.INTER_NEAREST
            for name in ("fill_mask", "mask_drop_value"):
                if getattr(leaf, name, None) is not None:
                    setattr(leaf, name, 0)  # what is filled has neither a label nor an object

    def observe(self, audit: AugmentationAudit) -> None:
        """See ``SeededPipeline.observe``."""
        self._run.observe(audit, {})

    def __call__(self, item: AugmentItem, rng: np.random.Generator) -> AugmentItem:
        """An image of the same size (another is letterboxed) with the objects that are left; ``num_dropped`` are not. A
        DataError if the pipeline raised, or its image is not uint8 RGB."""
        try:
            result = self._run(rng, image=item.image, **(self._targets(item) if self._moves else {}))
            changed = _from_result(item, result) if self._moves else replace(item, image=result["image"])
        except Exception as error:
            raise DataError(f"{_SETTING}: the pipeline failed: {_reason(error)}") from error
        image = changed.image
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise DataError(
                f"{_SETTING}: expected uint8 of shape (H, W, 3) from the pipeline, got {image.dtype} of shape "
                f"{tuple(image.shape)}; leave out Normalize, ToFloat and ToTensorV2: the model normalises"
            )
        if not self._moves:
            return changed
        if changed.hw != item.hw:
            changed = moved(changed, Motion(), item.hw)
        rows = (changed := keep_visible(changed, 0.0, self._min_box_size)).labels
        num_dropped = len(item.labels) - len(np.unique(rows))
        return replace(changed, labels=item.labels[rows], ignore=item.ignore[rows], num_dropped=num_dropped)

    def _targets(self, item: AugmentItem) -> dict[str, Any]:
        targets: dict[str, Any] = {}
        if item.masks is None or self._reads_boxes:
            rows = np.arange(len(item.boxes), dtype=np.float32)
            targets["bboxes"] = np.column_stack([item.boxes, item.labels, rows]).astype(np.float32)  # N 6
        if item.masks is not None:  # some transforms want a map, if an empty one
            targets["masks"] = np.stack(item.masks.maps or (np.zeros(item.hw, dtype=np.uint8),))  # L H W
        if item.semantic is not None:
            targets |= {"mask": item.semantic, "inside": np.ones(item.hw, dtype=np.uint8)}
        return targets


def _from_result(item: AugmentItem, result: dict[str, Any]) -> AugmentItem:
    """What a pipeline has made of an item, with rows of its objects for labels."""
    changed = replace(item, image=result["image"], labels=np.arange(len(item.labels)))
    if item.semantic is not None:
        semantic = np.where(result["inside"] == 1, result["mask"], IGNORE_LABEL).astype(np.uint8)
        changed = replace(changed, semantic=semantic)
    if item.masks is not None:
        maps = tuple(np.ascontiguousarray(ids) for ids in result["masks"]) if item.masks.maps else ()
        return replace(changed, masks=replace(item.masks, maps=maps, full_areas=np.zeros(len(item.masks))))
    boxes = np.reshape(result["bboxes"], (-1, 6)).astype(np.float32)  # several of one row where borders mirror
    return replace(changed.select(boxes[:, 5].astype(np.int64)), boxes=boxes[:, :4])


def _plain(value: Any) -> Any:  # objects by their class: their text may hold an address in memory
    return value.tolist() if hasattr(value, "tolist") else str(type(value))


def _leaves(pipeline: Any) -> list[Any]:
    parts = [_leaves(part) if isinstance(part, A.BaseCompose) else [part] for part in pipeline.transforms]
    return [leaf for part in parts for leaf in part]
