"""What the loaders require of a data set, the check that its samples keep it, and a cache of samples."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from detseg.errors import ConfigError, DataError, check_type
from detseg.messages import listed
from detseg.structures import IGNORE_LABEL, ClassTable, ImageAnnotations, Sample


class SampleSource(Protocol):
    """A sequence of ``Sample`` with a class table; all data sets of detseg are sources.

    A source of large images may also have a method ``reduced(index, input_hw) -> Sample``, which training prefers: the
    image at least as large as a letterbox to that height and width needs it, with boxes in pixels of it.
    """

    @property
    def classes(self) -> ClassTable:
        """The classes of the data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class EvalSource(SampleSource, Protocol):
    """A source with the ground truth that predictions are evaluated against."""

    def image_id(self, index: int, /) -> int:
        """The id of an image in evaluation files."""

    def annotations(self, index: int, /) -> ImageAnnotations:
        """The ground truth of an image in original pixels, as its file states it."""


def check_source(what: str, source: Any) -> None:
    """Raise a ConfigError unless ``source``, ``what``, has what an ``EvalSource`` has; DataError: no image."""
    members = ("classes", "__len__", "__getitem__", "image_id", "annotations")
    if missing := [name for name in members if not hasattr(source, name)]:
        lacks = f"a {type(source).__name__} has no {', '.join(missing)}"
        raise ConfigError(f"{what}: {lacks}; docs/python_api.md says what a data set must have")
    check_type(f"{what}.classes", source.classes, ClassTable, "a detseg.ClassTable")
    if not len(source):
        raise DataError(f"{what}: holds no images")
    ids = [source.image_id(index) for index in range(len(source))]
    if len(set(ids)) < len(ids) or not all(isinstance(number, int | np.integer) for number in ids):
        raise DataError(f"{what}: image_id: expected another number for each image, got {listed([*map(str, ids)])}")


def check_truth(what: str, source: EvalSource, objects: bool, masks: bool) -> None:
    """Raise a DataError unless ``source`` has what a model learns from: ``objects``, maybe with ``masks``, or label
    maps. Reads the first objects and, where there are none, the first sample; training says what cannot be read."""
    try:
        truths = map(source.annotations, range(len(source))) if objects else ()
        found = next(filter(len, truths), None)
        has_map = found is None and checked_sample(source, 0).semantic is not None
    except DataError:
        return
    if has_map == objects or (masks and found is not None and found.masks is None):
        needs, reader = ("masks of objects", "read_coco(..., masks=True)") if masks else ("objects", "read_voc, ...")
        needs, reader = (needs, reader) if objects else ("label maps", "read_mask_folder, ...")
        raise DataError(f"{what}: has no {needs}, which the model learns from; read it with {reader}")


def file_of(source: SampleSource, index: int) -> str:
    """The image file of a sample, or ``sample 3`` where the source has no method ``path``."""
    path: Callable[[int], Path] | None = getattr(source, "path", None)
    return f"sample {index}" if path is None else str(path(index))


def checked_sample(source: SampleSource, index: int, input_hw: tuple[int, int] | None = None) -> Sample:
    """Read a sample, whose image may be reduced for a network input of ``input_hw`` (height, width), and check it.

    A DataError if it cannot be read or breaks the contract; all other exceptions get a note that names the file.
    """
    try:
        # Not a runtime_checkable protocol: isinstance with one takes as long as flipping an image.
        reduced = None if input_hw is None else getattr(source, "reduced", None)
        sample: Sample = source[index] if reduced is None else reduced(index, input_hw)
        check_type(f"sample {index}", sample, Sample, "a detseg.Sample")
        check_sample(sample, source.classes)
        return sample
    except Exception as error:
        if not isinstance(error, DataError):
            error.add_note(f"This happened while {file_of(source, index)} was read.")
        raise


def check_sample(sample: Sample, classes: ClassTable) -> None:
    """Raise a DataError, which names the sample's path, if an array is not of its type and shape, a box is not finite
    or not inside the image, a label is not in ``classes``, or boxes, labels, flags and masks do not fit together."""
    for message in _faults(sample, len(classes)):
        raise DataError(f"{sample.path}: {message}")


def _faults(sample: Sample, num_classes: int) -> Iterator[str]:
    num, masks, hw = len(sample.labels), sample.masks, tuple(getattr(sample.image, "shape", ()))[:2]
    fix = "detseg.Sample says what a data set must give"
    columns = [("image", "uint8", (*hw, 3)), ("boxes", "float32", (num, 4)), ("labels", "int64", (num,))]
    columns += [("ignore", "bool", (num,)), *([] if sample.semantic is None else [("semantic", "uint8", hw)])]
    for name, dtype, shape in columns:
        column = getattr(sample, name)
        if not isinstance(column, np.ndarray) or column.dtype != dtype or column.shape != shape:
            got = f"{getattr(column, 'dtype', type(column).__name__)} of shape {getattr(column, 'shape', 'unknown')}"
            yield f"{name}: expected a NumPy array of {dtype} of shape {shape}, got {got}; {fix}"
    if masks is not None and (len(masks), masks.hw) != (num, hw):
        yield f"masks: expected {num}, one for each object, of height and width {hw}, got {len(masks)} of {masks.hw}"
    if sample.semantic is not None:
        wrong = sample.semantic[(sample.semantic >= num_classes) & (sample.semantic != IGNORE_LABEL)]
        if len(wrong):
            yield f"semantic: expected labels below {num_classes} or {IGNORE_LABEL}, got {wrong[0]}; {fix}"
    height, width = sample.hw
    low, high = sample.boxes[:, :2], sample.boxes[:, 2:]
    inside = ((low >= 0) & (low < high) & (high <= (width, height))).all(axis=1)  # false for NaN
    if not inside.all():
        row = int(np.argmin(inside))
        yield (
            f"object {row}: box: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, got "
            f"{sample.boxes[row].tolist()}; correct the box, or have the source clip it or leave it out"
        )
    known = (sample.labels >= 0) & (sample.labels < num_classes)
    if not known.all():
        row = int(np.argmin(known))
        yield (
            f"object {row}: label: expected 0 to {num_classes - 1}, the {num_classes} classes of the data set, got "
            f"{int(sample.labels[row])}; correct the label or the class table"
        )


class SampleCache:
    """Reads samples and keeps those that were used last, for mosaics, which use each image several times: ``max_bytes``
    of images and semantic maps, by default a mix group of 32 images of a megapixel."""

    def __init__(self, source: SampleSource, max_bytes: int = 96 * 2**20) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._kept: dict[tuple[int, tuple[int, int]], Sample] = {}
        self._num_bytes, self._lock = 0, threading.Lock()

    def __call__(self, index: int, input_hw: tuple[int, int]) -> Sample:
        """The result of ``checked_sample``; errors are not cached."""
        key = (index, input_hw)
        sample = self._kept.get(key) or checked_sample(self._source, index, input_hw)
        with self._lock:
            self._num_bytes += 0 if self._kept.pop(key, None) else _num_bytes(sample)
            self._kept[key] = sample  # the last one
            while self._num_bytes > self._max_bytes:
                self._num_bytes -= _num_bytes(self._kept.pop(next(iter(self._kept))))
        return sample

    def __reduce__(self) -> tuple[type[SampleCache], tuple[SampleSource, int]]:
        """Pickles an empty cache: where loader processes are spawned, each of them receives the data set."""
        return SampleCache, (self._source, self._max_bytes)


def _num_bytes(sample: Sample) -> int:
    return sample.image.nbytes + (0 if sample.semantic is None else sample.semantic.nbytes)
