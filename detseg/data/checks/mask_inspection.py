"""Decodes masks when a data set is opened, so that no epoch is spent on masks that mean something else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import track

from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.segmentation import PictureMasks, SegmentationDataset
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.mask_hints import histogram
from detseg.data.images.read import read_image_hw, read_orientation
from detseg.errors import DataError
from detseg.messages import listed, one_line, shown
from detseg.structures import IGNORE_LABEL, IntArray

MAX_INSPECTED = 200
"""Of larger data sets so many masks are inspected, evenly spread."""


def inspect_masks(
    dataset: SegmentationDataset, encoding: MaskEncoding | None = None, training: bool = True, skip_bad: bool = False
) -> None:
    """Decode all masks, or an even sample of many, in threads, and report what is unusual.

    Where nothing can be learned from the sample, the others are decoded too before an error says so.

    Args:
        dataset: just read.
        encoding: of its mask images; None: its maps are drawn.
        training: whether this set is trained on. One class and ignored pixels are all that a split of images without
            objects may hold, but nothing can be learned from them.
        skip_bad: whether masks, and headers of images, that are wrong are reported instead of raised, since the
            training skips them.

    Raises:
        DataError: one of the masks, or of their images' headers, is wrong (with ``skip_bad``: all of them); all pixels
            are ignored; or, in training, a single class occurs beside ignored pixels, as in masks of 0 and 255 that are
            read with 255 ignored.
    """
    last, steps = len(dataset) - 1, min(len(dataset), MAX_INSPECTED) - 1
    sample = [round(k * last / max(steps, 1)) for k in range(steps + 1)]
    others = sorted(set(range(len(dataset))) - set(sample))
    counts, num_masks, bad = np.zeros(256, dtype=np.int64), 0, list[DataError]()
    useless = ""
    for indices in (sample, others):
        for index, found in _inspect_all(dataset, indices):
            if not isinstance(found, DataError):
                counts += found[0]
                num_masks += 1
                for issue in found[1]:
                    dataset.report.add(issue, dataset.packed.path(index))
            elif skip_bad:
                bad.append(found)
            else:
                raise found
            useless = _describe_useless(counts, dataset.classes.names, encoding, training)
            if indices is others and not useless:
                break
        if not useless:
            break
    if bad and not num_masks:
        raise bad[0]
    if useless:
        more = f" and {num_masks - 1} more" if num_masks > 1 else ""
        raise DataError(f"{dataset.masks.where(0)}{more}: {useless}")
    _report(dataset, counts, num_masks, bad)


def _inspect_all(
    dataset: SegmentationDataset, indices: Sequence[int]
) -> Iterator[tuple[int, tuple[IntArray, list[DataIssue]] | DataError]]:
    """Each index with what ``_inspect`` finds, in order; threads read ahead, since decoders release the GIL."""
    pool, console = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), Console(stderr=True)
    try:
        found = pool.map(partial(_inspect, dataset), indices)
        if console.is_terminal:
            found = iter(track(found, "checking masks", total=len(indices), console=console, transient=True))
        yield from zip(indices, found, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect(dataset: SegmentationDataset, index: int) -> tuple[IntArray, list[DataIssue]] | DataError:
    """(256,) int64 pixels of each label of a mask, and what is unusual about it; or what is wrong with it."""
    try:
        labels, path = dataset.masks.read(index), dataset.path(index)
        hw = (labels.shape[0], labels.shape[1])
        dataset.check_size(index, read_image_hw(path), hw)
        counts = np.bincount(labels.ravel(), minlength=256)
        num_labels = np.count_nonzero(counts[:IGNORE_LABEL])
        issues = [] if num_labels else [DataIssue.ALL_IGNORED]
        if isinstance(dataset.masks, PictureMasks):
            if num_labels == 1 and counts[IGNORE_LABEL]:
                issues.append(DataIssue.ONE_CLASS)
            image, mask = read_orientation(path), read_orientation(dataset.masks.where(index))
            # 5 to 8 swap the sides; where one of the two does, unequal sides that fit show that the mask is upright.
            if image != mask and ((image >= 5) == (mask >= 5) or hw[0] == hw[1]):
                issues.append(DataIssue.TURNED)
        return counts, issues
    except DataError as error:
        return error


def _describe_useless(counts: IntArray, names: Sequence[str], encoding: MaskEncoding | None, training: bool) -> str:
    """Why nothing can be learned from masks with these pixels of each label, or scored on them; empty if it can be."""
    present = np.flatnonzero(counts[:IGNORE_LABEL]).tolist()
    ignored = None if encoding is None or encoding.colors is not None else encoding.ignore_index
    if not present:
        fix = "" if ignored is None else f"; set data.ignore_index=null if {ignored} is a class, or correct the masks"
        return f"all pixels are ignored, so there is nothing to learn or to score{fix}"
    if encoding is None or not training or len(present) > 1 or not counts[IGNORE_LABEL]:
        return ""
    label = present[0]
    absent = listed([name for k, name in enumerate(names) if k != label])
    question = f"is {ignored} a class? name each class in data.classes and its value in data.mask_values"
    if ignored is None:
        question = "is one of data.ignore_colors a class? name it in data.classes and data.mask_colors"
    elif len(names) == 2:
        values = [ignored, ignored]
        values[label] = encoding.class_values[label]
        question = (
            f"is {ignored} the {('foreground', 'background')[label]}? set data.mask_values={values} "
            f"data.ignore_index=null; or is it void? add images that show {absent}"
        )
    found = (names[label], "ignored") if ignored is None else (encoding.class_values[label], ignored)
    shares = histogram(zip(found, counts[[label, IGNORE_LABEL]].tolist(), strict=True))
    return (
        f"only {shown(names[label])} and ignored pixels occur, never {absent}, and one class alone cannot be learned: "
        f"{question} (found: {shares})"
    )


def _report(dataset: SegmentationDataset, counts: IntArray, num_masks: int, bad: Sequence[DataError]) -> None:
    report, names, inspected = dataset.report, dataset.classes.names, num_masks + len(bad)
    if inspected < len(dataset):
        report.note(f"masks looked at when opened: {inspected} of {len(dataset)}, evenly spread")
    if bad:
        report.note(
            f"masks or images that cannot be read, which the training will skip: {len(bad)} of {inspected}; "
            f"the first: {one_line(bad[0])}"
        )
    if counts[IGNORE_LABEL]:
        report.note(f"ignored pixels of the masks: {100 * counts[IGNORE_LABEL] / counts.sum():.1f} %")
    for absent in np.flatnonzero(counts[: len(names)] == 0):
        report.add(DataIssue.ABSENT, names[absent])
