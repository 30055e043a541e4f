"""Images that look nearly the same: copies that were resized, saved again or brightened, frames of a video.

A difference hash (N. Krawetz, "Kind of Like That", 2013) finds candidates, a small grey thumbnail confirms them: hashes
alone are equal by accident where an image has much even background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from detseg.data.images.read import read_image_hw, read_reduced
from detseg.data.images.threads import in_threads
from detseg.errors import DataError
from detseg.structures import IntArray, UInt8Array

_HASH_BITS, _SIDE = 64, 16
SIGNATURE_BYTES = _HASH_BITS // 8 + _SIDE * _SIDE
"""Bytes of a signature: 8 of the hash, 256 of the thumbnail."""

MAX_HASH_DISTANCE = 12
"""Most bits in which the hashes of near duplicates differ. Of unrelated images they differ in 32 on average."""

MIN_CORRELATION = 0.98
"""Least correlation of the thumbnails of near duplicates. JPEG, half the size, a fifth brighter or a hundredth cut off
keep it above 0.98; unrelated fields of one microscope stay below 0.8."""

_FLAT = 1.0  # standard deviation in grey levels: thumbnails below it show noise
_ENOUGH = 128  # pixels of the shorter side that a signature is made from
_CELLS = 1 << 24  # pairs that are compared at once: 64 MB
_CANDIDATES = 1 << 15  # pairs whose thumbnails are compared at once: 64 MB


def signature(image: UInt8Array) -> UInt8Array:
    """What is compared of an image, (H, W, 3) uint8 RGB → (264,) uint8: stack those of several images."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    fields = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(fields[:, 1:] > fields[:, :-1])
    thumbnail = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.concatenate([bits, thumbnail.ravel()]).astype(np.uint8)


def near_duplicates(signatures: UInt8Array) -> Iterator[IntArray]:
    """All pairs of images that look nearly the same, exactly, in arrays of bounded size.

    Args:
        signatures: (I, 264) uint8, as `signature` gives them.

    Yields:
        (P, 2) int64 positions, the smaller one first, in ascending order. Images without any structure (all black, say)
        are in no pair: there is nothing by which they could be told apart. Pairs need not be transitive.
    """
    signatures = np.asarray(signatures, dtype=np.uint8).reshape(-1, SIGNATURE_BYTES)
    hashes, thumbnails = signatures[:, : _HASH_BITS // 8], signatures[:, _HASH_BITS // 8 :]
    shown = np.flatnonzero(thumbnails.std(axis=1, dtype=np.float32) >= _FLAT)
    signs = np.unpackbits(hashes[shown], axis=1).astype(np.float32) * 2 - 1  # a product is 64 - 2 x the distance
    first = 0
    while first < len(shown):
        rows = signs[first : first + max(_CELLS // (len(shown) - first), 1)]
        near = rows @ signs[first:].T >= _HASH_BITS - 2 * MAX_HASH_DISTANCE
        i, j = np.nonzero(np.triu(near, 1))
        for begin in range(0, len(i), _CANDIDATES):
            pairs = shown[np.stack([i, j], axis=1)[begin : begin + _CANDIDATES] + first]
            confirmed = pairs[_alike(thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]])]
            if len(confirmed):
                yield confirmed
        first += len(rows)


def _alike(one: UInt8Array, other: UInt8Array) -> npt.NDArray[np.bool_]:
    """(P,) whether (P, 256) thumbnails correlate, and differ in brightness by less than within themselves."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    means = np.stack([a.mean(axis=1), b.mean(axis=1)])
    a -= means[0][:, None]
    b -= means[1][:, None]
    stds = np.sqrt(np.stack([np.square(a).mean(axis=1), np.square(b).mean(axis=1)]))
    correlated = (a * b).mean(axis=1) >= MIN_CORRELATION * stds.prod(axis=0)
    return np.asarray(correlated & (np.abs(means[0] - means[1]) <= stds.min(axis=0)))


def duplicate_groups(signatures: UInt8Array) -> IntArray:
    """The group of each image, (I,) int64: near duplicates, and what they are connected with, have one number, that of
    the first of them; an image without near duplicates has its own position."""
    group = np.arange(len(signatures), dtype=np.int64)
    for pairs in near_duplicates(signatures):
        while True:  # each round joins the groups of all pairs to the smaller number of the two
            while (group[group] != group).any():
                group = group[group]
            ends = np.sort(group[pairs], axis=1)
            if (ends[:, 0] == ends[:, 1]).all():
                break
            np.minimum.at(group, ends[:, 1], ends[:, 0])
    return group


def read_signatures(paths: Sequence[Path]) -> UInt8Array:
    """The signatures of image files, (I, 264) uint8; zeros, like no image, of those that cannot be read. Decodes JPEGs
    at a fraction of their size."""
    return np.stack(list(in_threads(_read_signature, paths, "comparing images")))


def _read_signature(path: Path) -> UInt8Array:
    try:
        smallest = min(read_image_hw(path))
        return signature(read_reduced(path, max(k for k in (1, 2, 4, 8) if k == 1 or smallest >= k * _ENOUGH))[0])
    except DataError:
        return np.zeros(SIGNATURE_BYTES, dtype=np.uint8)
