"""What a data set is, in a few digests: a run that is resumed notices that its data has changed.

Image files count by their sizes in bytes, not by their contents, which takes minutes to read: an image that is replaced
by another one of the same size is not noticed. Where the folder lies does not count: names are relative to it.
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
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.formats.instances_to_labels import CocoMasks

VERSION = 2
"""Counts up when the same data gets other digests; fingerprints of different versions are not compared."""

_DIGEST_BYTES = 16

Part = bytes | npt.NDArray[Any]


class Fingerprint(TypedDict):
    """Plain data; digests are hexadecimal.

    Attributes:
        version: ``VERSION`` when it was made.
        images: number of images.
        names: digest of the images' names, relative to the data set's folder, in order.
        annotations: digest of class names, ids, boxes, labels, flags, and the text of the segmentations; of masks that
            are images: of their names and of what their values mean.
        files: digest of the sizes in bytes of the image files.
        masks: digest of the sizes in bytes of the mask files; empty where there are none.
        pipeline: digest of the user's own augmentation pipeline; empty without one.
    """

    version: int
    images: int
    names: str
    annotations: str
    files: str
    masks: str
    pipeline: str


def fingerprint(dataset: DetectionDataset | SegmentationDataset, pipeline: bytes = b"") -> Fingerprint:
    """The fingerprint of a data set, and of the pipeline that augments it; its images are not opened.

    Raises:
        DataError: the annotation file, of which the segmentations are read, has changed since it was opened.
    """
    positions = range(len(dataset))
    masks = dataset.masks if isinstance(dataset, SegmentationDataset) else None
    return Fingerprint(
        version=VERSION,
        images=len(dataset),
        names=_digest([dataset.packed.path_bytes, dataset.packed.path_offsets]),
        annotations=_digest(_annotations(dataset)),
        files=_sizes(dataset.path(i) for i in positions),
        masks=_sizes(masks.root / masks.files.path(i) for i in positions) if isinstance(masks, PictureMasks) else "",
        pipeline=_digest([pipeline]) if pipeline else "",
    )


def _annotations(dataset: DetectionDataset | SegmentationDataset) -> Iterator[Part]:
    yield repr((dataset.classes.names, dataset.classes.source_ids)).encode()
    yield dataset.packed.image_ids
    if isinstance(dataset, DetectionDataset):
        yield from _objects(dataset.packed)
        return
    match dataset.masks:
        case PictureMasks(files=files, encoding=encoding):
            yield from (files.path_bytes, files.path_offsets)
            yield repr((encoding.values, encoding.ignore_index, encoding.colors, encoding.ignore_colors)).encode()
        case CocoMasks(packed=packed):
            yield from _objects(packed)
        case _:
            pass  # a source of the user's own: what it draws is not known here


def _objects(packed: PackedAnnotations) -> Iterator[Part]:
    yield from (packed.sizes_hw, packed.offsets, packed.boxes, packed.labels, packed.area)
    yield from (packed.crowd, packed.difficult, packed.truncated)
    if packed.regions is not None:
        yield from packed.regions.texts(range(len(packed.regions)))


def _sizes(paths: Iterable[Path]) -> str:
    return _digest([np.array([_size(path) for path in paths], dtype=np.int64)])


def _size(path: Path) -> int:
    """Bytes of a file; -1 where there is none, which is an error when it is read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest(parts: Iterable[Part]) -> str:
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        # The length comes first, else the end of one part could be the beginning of the next.
        found.update(b"%d:" % len(data))
        found.update(data)
    return found.hexdigest()
