"""Decodes masks when a data set is opened, so that no epoch is spent on masks that mean something else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from rich.progress import track

from detseg.console import console
from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.read import read_image_hw, read_orientation
from detseg.errors import DataError
from detseg.messages import listed, one_line, shown
from detseg.structures import IGNORE_LABEL, IntArray

MAX_INSPECTED = 200
"""Of larger data sets so many masks are inspected, evenly spread."""
_Found = tuple[IntArray, list[DataIssue]] | DataError


def inspect_masks(
    dataset: SegmentationDataset, encoding: MaskEncoding | None = None, training: bool = True, skip_bad: bool = False
) -> None:
    """Decode all masks, or an even sample of many, in threads, and report what is unusual.

    Where nothing can be learned from the sample, the others are decoded too before an error says so.

    Args:
        dataset: just read.
        encoding: of its mask images; None: its maps are drawn.
        training: whether this set is trained on. One class and ignored pixels may be all that another split holds.
        skip_bad: whether wrong masks and images are reported instead of raised, since the training skips them.

    Raises:
        DataError: a mask or its image's header is wrong (with ``skip_bad``: all are); all pixels are ignored; or, in
            training, a single class occurs beside ignored pixels, as in masks of 0 and 255 read with 255 ignored.
    """
    sample = np.unique(np.linspace(0, len(dataset) - 1, MAX_INSPECTED).round().astype(int)).tolist()
    others = sorted(set(range(len(dataset))) - set(sample))
    counts, num_masks, bad, useless = np.zeros(256, dtype=np.int64), 0, list[DataError](), ""
    for indices in (sample, others):
        for index, found in _inspect_all(dataset, indices):
            if isinstance(found, DataError):
                bad.append(found)
                if not skip_bad:
                    raise found
                continue
            counts += found[0]
            num_masks += 1
            for issue in found[1]:
                dataset.report.add(issue, dataset.packed.path(index))
        if not (useless := _describe_useless(counts, dataset.classes.names, encoding, training)):
            break
    if bad and not num_masks:
        raise bad[0]
    if useless:
        more = f" and {num_masks - 1} more" if num_masks > 1 else ""
        raise DataError(f"{dataset.masks.where(0)}{more}: {useless}")
    _report(dataset, counts, num_masks, bad)


def _inspect_all(dataset: SegmentationDataset, indices: Sequence[int]) -> Iterator[tuple[int, _Found]]:
    """Each index with what ``_inspect`` finds, in order; threads read ahead, since decoders release the GIL."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    bar: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    try:
        found = track(pool.map(partial(_inspect, dataset), indices), "checking masks", len(indices), **bar)
        yield from zip(indices, found, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect(dataset: SegmentationDataset, index: int) -> _Found:
    """(256,) int64 pixels of each label of a mask, and what is unusual about it; or what is wrong with it."""
    try:
        labels, path = dataset.masks.read(index), dataset.path(index)
        dataset.check_size(index, read_image_hw(path), labels.shape)
        counts = np.bincount(labels.ravel(), minlength=256)
        num_labels = np.count_nonzero(counts[:IGNORE_LABEL])
        issues = [] if num_labels else [DataIssue.ALL_IGNORED]
        if isinstance(dataset.masks, PictureMasks):
            if num_labels == 1 and counts[IGNORE_LABEL]:
                issues.append(DataIssue.ONE_CLASS)
            image, mask = read_orientation(path), read_orientation(dataset.masks.where(index))
            # 5 to 8 swap the sides; where one of the two does, unequal sides that fit show that the mask is upright.
            if image != mask and ((image >= 5) == (mask >= 5) or labels.shape[0] == labels.shape[1]):
                issues.append(DataIssue.TURNED)
        return counts, issues
    except DataError as error:
        return error


def _describe_useless(counts: IntArray, names: Sequence[str], encoding: MaskEncoding | None, training: bool) -> str:
    """Why nothing can be learned from masks with these pixels of each label, or scored on them; empty if it can be."""
    present = np.flatnonzero(counts[:IGNORE_LABEL]).tolist()
    if not present:
        return "all pixels are ignored, so there is nothing to learn or to score; correct the masks or what is ignored"
    if encoding is None or not training or len(present) > 1 or not counts[IGNORE_LABEL]:
        return ""
    label, ignored = present[0], encoding.ignore_index
    absent = listed([name for k, name in enumerate(names) if k != label])
    question = f"is {ignored} a class? name each class in data.classes and its value in data.mask_values"
    if encoding.colors is not None:
        question = "is one of data.ignore_colors a class? name it in data.classes and data.mask_colors"
    elif len(names) == 2:
        values = [encoding.class_values[k] if k == label else ignored for k in (0, 1)]
        question = f"is {ignored} the {('foreground', 'background')[label]}? set data.mask_values={values} "
        question += f"data.ignore_index=null; or is it void? add images that show {absent}"
    found = f"only {shown(names[label])} and ignored pixels occur, never {absent}"
    return f"{found}, and one class alone cannot be learned: {question}"


def _report(dataset: SegmentationDataset, counts: IntArray, num_masks: int, bad: Sequence[DataError]) -> None:
    report, names, inspected = dataset.report, dataset.classes.names, num_masks + len(bad)
    if inspected < len(dataset):
        report.note(f"masks looked at when opened: {inspected} of {len(dataset)}, evenly spread")
    if bad:
        what = f"masks or images that cannot be read, which the training will skip: {len(bad)} of {inspected}"
        report.note(f"{what}; the first: {one_line(bad[0])}")
    if counts[IGNORE_LABEL]:
        report.note(f"ignored pixels of the masks: {100 * counts[IGNORE_LABEL] / counts.sum():.1f} %")
    for absent in np.flatnonzero(counts[: len(names)] == 0):
        report.add(DataIssue.ABSENT, names[absent])
