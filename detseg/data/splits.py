"""Divides a set of images into parts: in proportion of its classes, with groups of images whole, by a seed.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011,
algorithm 1): the class with the fewest images that are still to be placed goes first, each of its images to the part
that lacks most of this class. Here groups of images are placed instead of single ones, large groups first, and a part
takes nothing beyond its size while another one has room.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from detseg.data.annotations.model import PackedAnnotations
from detseg.data.datasets.detection import ImageDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.images.find import file_identity
from detseg.data.images.similar import duplicate_groups, read_signatures
from detseg.data.images.threads import in_threads
from detseg.errors import ConfigError, DataError
from detseg.messages import counted, one_line, printable
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import FloatArray, IntArray


def stratified_parts(counts: IntArray, fractions: Sequence[float], groups: IntArray, seed: int) -> IntArray:
    """Assign each image to a part.

    Args:
        counts: (I, C), what is kept in proportion: objects of each class in each image, or 1 for each class it shows.
        fractions: (P,) of the images in each part; they add up to 1. Every part gets an image where there are enough.
        groups: (I,) int64; images with one number stay together.
        seed: the same seed gives the same parts, on every machine.

    Returns:
        (I,) int64, 0 to P - 1. The sizes are the fractions rounded, as near as whole groups allow.
    """
    counts = np.asarray(counts)
    shown = np.concatenate([counts > 0, counts.sum(axis=1, keepdims=True) == 0], axis=1)  # the last: without objects
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)  # (I,), (G,)
    wanted = np.zeros((len(sizes), shown.shape[1]))  # (G, C + 1) images of each class in each group
    np.add.at(wanted, group_of, shown)
    order = random_stream(Stream.SPLITS, seed, 0).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    room = part_sizes(len(groups), fractions).astype(np.float64)
    lacking = wanted.sum(axis=0) * np.asarray(fractions, dtype=np.float64)[:, None]  # (P, C + 1)
    part_of_group, left = np.full(len(sizes), -1, dtype=np.int64), wanted.sum(axis=0)
    while (left > 0).any():
        rarest = int(np.argmin(np.where(left > 0, left, np.inf)))
        for group in order[(part_of_group[order] < 0) & (wanted[order, rarest] > 0)]:
            part = _most_lacking(lacking[:, rarest], room, int(sizes[group]))
            part_of_group[group] = part
            lacking[part] -= wanted[group]
            room[part] -= sizes[group]
            left -= wanted[group]
    return np.asarray(part_of_group[group_of], dtype=np.int64)


def part_sizes(number: int, fractions: Sequence[float]) -> IntArray:
    """(P,) int64 whole numbers of images that add up to ``number``, nearest to the fractions (largest remainders), each
    at least 1 where there are so many images."""
    exact = number * np.asarray(fractions, dtype=np.float64)
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    sizes[np.argsort(-(exact - sizes), kind="stable")[: number - int(sizes.sum())]] += 1
    while number >= len(sizes) and (sizes == 0).any():
        sizes[np.argmin(sizes)] += 1
        sizes[np.argmax(sizes)] -= 1
    return sizes


def _most_lacking(lacking: FloatArray, room: FloatArray, size: int) -> int:
    """The part that lacks most of a class, among those with room for so many images, else among those with most room;
    of equals the one with more room, then the first."""
    fits = room >= size
    candidates = np.flatnonzero(fits if fits.any() else room == room.max())
    return int(candidates[np.lexsort((-room[candidates], -lacking[candidates].round(9)))[0]])


def pattern_groups(paths: Sequence[str], pattern: str, where: str) -> tuple[IntArray, int]:
    """(I,) int64: images whose paths match a regular expression alike (in its first group, if it has one) are together;
    those that do not match are alone; and the number of these. A ConfigError that begins with ``where``: it is none, or
    no path matches."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        what = f"expected near-duplicates, none or a regular expression, got {pattern!r} ({one_line(error)})"
        raise ConfigError(f"{where}: {what}") from None
    first: dict[str, int] = {}
    groups, alone = list[int](), 0
    for number, path in enumerate(paths):
        match = expression.search(path)
        key = None if match is None else match[1] if expression.groups else match[0]
        groups.append(number if key is None else first.setdefault(key, number))
        alone += key is None
    if alone == len(paths) > 0:
        raise ConfigError(f"{where}: '{printable(pattern)}' matches no path of an image, such as {paths[0]}")
    return np.array(groups, dtype=np.int64), alone


NEAR_DUPLICATES, NO_GROUPS = "near-duplicates", "none"

_seen: dict[tuple[Path, bytes, tuple[str, ...]], IntArray] = {}  # the classes of the set whose masks were decoded last


def image_groups(paths: Sequence[Path], group: str, where: str) -> tuple[IntArray, str]:
    """(I,) int64, equal for images that belong together, and what they are in words, for messages.

    ``group``: ``near-duplicates`` (all images are decoded, once in a process for one set; what cannot be read is
    alone), ``none``, or a regular expression, see `pattern_groups`, whose errors begin with ``where``.
    """
    if group == NO_GROUPS:
        return np.arange(len(paths), dtype=np.int64), ""
    if group != NEAR_DUPLICATES:
        groups, alone = pattern_groups([path.as_posix() for path in paths], group, where)
        text = f", {counted(len(np.unique(groups)), 'group')} by '{printable(group)}'"
        return groups, text + (f" ({counted(alone, 'image')} without a match, each alone)" if alone else "")
    groups = _near_duplicates(tuple(paths))
    together = int((np.bincount(groups)[groups] > 1).sum())
    return groups, f", {together} images with near duplicates kept together" if together else ""


@lru_cache(maxsize=1)
def _near_duplicates(paths: tuple[Path, ...]) -> IntArray:
    return duplicate_groups(read_signatures(paths))


def class_counts(dataset: ImageDataset) -> IntArray:
    """(I, C) int64: the objects to train on of each class in each image, of label maps 1 for each class that a map
    shows. Maps of mask files are decoded, once in a process for one set; one that cannot be read shows nothing."""
    packed = dataset.packed
    counts = np.zeros((len(dataset), len(dataset.classes)), dtype=np.int64)
    if isinstance(packed, PackedAnnotations):
        rows = np.flatnonzero(~packed.crowd & ~packed.difficult)
        np.add.at(counts, (packed.image_of[rows], packed.labels[rows]), 1)
        return counts
    assert isinstance(dataset, SegmentationDataset)
    key = dataset.root, dataset.packed.path_bytes, dataset.classes.names
    if key not in _seen:
        for index, labels in enumerate(in_threads(partial(_labels, dataset), range(len(dataset)), "reading masks")):
            counts[index, labels] = 1
        _seen.clear()
        _seen[key] = counts
    return _seen[key]


def _labels(dataset: SegmentationDataset, index: int) -> IntArray:
    try:
        return np.flatnonzero(np.bincount(dataset.semantic(index).ravel(), minlength=256)[: len(dataset.classes)])
    except DataError:
        return np.zeros(0, dtype=np.int64)


def same_files(one: ImageDataset, other: ImageDataset) -> list[str]:
    """The images of ``other``, relative to its root, whose files are those of ``one``, through links, too."""
    known = {file_identity(one.path(index)) for index in range(len(one))} - {None}
    return [other.packed.path(index) for index in range(len(other)) if file_identity(other.path(index)) in known]
