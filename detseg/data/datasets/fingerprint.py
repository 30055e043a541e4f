"""What a data set is, in a few digests: a run that is resumed notices that its data has changed.

Image files count by their sizes in bytes, since reading them takes minutes. Names are relative to the folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from detseg.data.annotations.model import PackedAnnotations
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import MaskFiles, MaskLayers, SegmentationDataset

VERSION = 2  # counts up when the same data gets other digests; fingerprints of different versions are not compared

Part = bytes | npt.NDArray[Any]


class Fingerprint(TypedDict):
    """``VERSION``, the number of images, and digests in hexadecimal digits."""

    version: int
    images: int
    names: str  # of the images
    annotations: str  # classes, ids, boxes, labels, flags and segmentations, or names and meaning of masks
    files: str  # sizes of the image files
    masks: str  # sizes of the mask files; empty where there are none
    pipeline: str  # the user's own augmentation; empty without one


def fingerprint(dataset: EvalSource, pipeline: bytes = b"") -> Fingerprint:
    """The fingerprint of a data set, and of the pipeline that augments it; its images are not opened. Of one that no
    reader of ours made, the classes and the number of images alone are compared."""
    found = Fingerprint(
        version=VERSION,
        images=len(dataset),
        names="",
        annotations=_digest([repr(dataset.classes.names).encode()]),
        files="",
        masks="",
        pipeline=_digest([pipeline]) if pipeline else "",
    )
    if isinstance(dataset, DetectionDataset | SegmentationDataset):
        found["names"] = _digest([dataset.packed.path_bytes, dataset.packed.path_offsets])
        found["annotations"] = _digest(_annotations(dataset))
        found["files"] = _digest([_sizes(map(dataset.path, range(len(dataset))))])
        if (masks := _mask_files(dataset)) is not None:
            paths = (masks.root / masks.files.path(index) for index in range(len(masks.files)))
            found["masks"] = _digest([_sizes(paths)])
    return found


def _mask_files(dataset: DetectionDataset | SegmentationDataset) -> MaskFiles | MaskLayers | None:
    masks = dataset.masks if isinstance(dataset, SegmentationDataset) else None
    return masks if isinstance(masks, MaskFiles | MaskLayers) else None


def _annotations(dataset: DetectionDataset | SegmentationDataset) -> Iterator[Part]:
    yield repr((dataset.classes.names, dataset.classes.source_ids)).encode()
    yield dataset.packed.image_ids
    if (masks := _mask_files(dataset)) is not None:
        yield from (masks.files.path_bytes, masks.files.path_offsets)
    if isinstance(masks, MaskFiles):
        meaning = masks.encoding
        yield repr((meaning.values, meaning.ignore_index, meaning.colors, meaning.ignore_colors)).encode()
    packed = dataset.packed
    if isinstance(packed, PackedAnnotations):  # of objects, or of maps that are drawn from them
        for column in ("sizes_hw", "offsets", "boxes", "labels", "area", "crowd", "difficult", "truncated"):
            yield getattr(packed, column)
        if packed.regions is not None:
            yield from packed.regions.texts(range(len(packed.regions)))


def _sizes(paths: Iterable[Path]) -> npt.NDArray[np.int64]:
    """Bytes of files; -1 where there is none, which is an error when it is read."""
    return np.array([os.path.getsize(path) if os.path.exists(path) else -1 for path in paths], dtype=np.int64)


def _digest(parts: Iterable[Part]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        found.update(b"%d:" % len(data) + data)  # with its length, so that parts cannot move into each other
    return found.hexdigest()
