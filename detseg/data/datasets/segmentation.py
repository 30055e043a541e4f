"""Data sets of images with semantic label maps, the sources of the maps, and weights of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from detseg.data.annotations.classes import Classes, add_background
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.mask_names import mask_classes
from detseg.data.annotations.model import PackedAnnotations, PackedImages, no_objects, running_total
from detseg.data.annotations.report import DataReport, Example
from detseg.data.datasets.detection import DetectionDataset, ImageDataset, check_same_size
from detseg.data.images.masks import MaskEncoding, Rgb, colors_of_labels, is_colored, read_layer, read_mask
from detseg.data.images.read import read_image, read_image_hw
from detseg.data.images.threads import in_threads
from detseg.errors import DataError
from detseg.messages import listed, one_line, shown
from detseg.structures import IGNORE_LABEL, BoolArray, ClassTable, ImageAnnotations, IntArray, Sample, UInt8Array


class MaskSource(Protocol):
    """Label maps by position."""

    def read(self, index: int) -> UInt8Array:
        """(H, W) uint8 labels, ``IGNORE_LABEL`` where a pixel is ignored."""

    def where(self, index: int) -> str:
        """The mask's name in messages: its file, and the place in it."""

    def select(self, indices: Sequence[int]) -> MaskSource:
        """The maps at some positions, in this order."""


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """A ``MaskSource`` of mask images, one file for each image."""

    files: PackedImages  # the masks' paths, relative to the root, in the order of the images
    root: Path
    encoding: MaskEncoding
    labels: tuple[int, ...] | None = None  # of each class of the encoding, `IGNORE_LABEL` to ignore it; None: the same

    def read(self, index: int) -> UInt8Array:
        """See ``MaskSource``."""
        return self.chosen(self.as_stored(index))

    def as_stored(self, index: int) -> UInt8Array:
        """(H, W) uint8 labels of the encoding's classes."""
        return read_mask(self.where(index), self.encoding)

    def chosen(self, stored: UInt8Array) -> UInt8Array:
        """Labels of the encoding's classes → those of the data set."""
        if self.labels is None:
            return stored
        table = np.full(256, IGNORE_LABEL, dtype=np.uint8)
        table[: len(self.labels)] = self.labels
        return table[stored]

    def where(self, index: int) -> str:
        """See ``MaskSource``."""
        return str(self.root / self.files.path(index))

    def select(self, indices: Sequence[int]) -> MaskFiles:
        """See ``MaskSource``."""
        return replace(self, files=self.files.select(indices))


def mask_files(
    files: PackedImages,
    folder: Path,
    root: Path | None,
    classes: Classes,
    values: Sequence[int] | None = None,
    ignore_index: int | None = 255,
    colors: Sequence[Rgb] | None = None,
    ignore_colors: Sequence[Rgb] = (),
    threshold: int | None = None,
) -> tuple[MaskFiles, ClassTable]:
    """The maps of mask images below a folder, and the classes of the data set.

    ``classes`` as `mask_classes` takes them, the others as ``MaskEncoding``. Values or colours that are not given are
    those of the file in ``root`` that names the classes; its colours count where the first mask has colours.
    """
    mask_values, mask_colors = None if values is None else tuple(values), None if colors is None else tuple(colors)
    chosen = mask_classes(root, classes, mask_values)
    if (there := chosen.there) is not None and values is None and colors is None and threshold is None:
        if there.colors and is_colored(folder / files.path(0), there.of_palettes):
            mask_colors = there.colors
        else:
            mask_values = there.values
    encoding = MaskEncoding(chosen.source, mask_values, ignore_index, mask_colors, tuple(ignore_colors), threshold)
    return MaskFiles(files, folder, encoding, chosen.labels), chosen.table


@dataclass(frozen=True, eq=False)
class MaskLayers:
    """A ``MaskSource`` of mask images of one class each: L files for I images.

    The files of a class are united. Of the classes that cover a pixel that with the fewest pixels counts; others are
    background, label 0.
    """

    files: PackedImages  # the masks' paths, relative to the root, image by image
    offsets: IntArray  # (I + 1,) int64; the files of image i are offsets[i] to offsets[i + 1]
    labels: IntArray  # (L,) int64
    sizes_hw: IntArray  # (I, 2) int64, of images without a file; of the others 0
    root: Path
    threshold: int | None = None  # see `read_layer`

    def read(self, index: int) -> UInt8Array:
        """See ``MaskSource``."""
        layers = dict[int, BoolArray]()
        semantic = np.zeros(tuple(self.sizes_hw[index].tolist()), dtype=np.uint8)
        for row in range(int(self.offsets[index]), int(self.offsets[index + 1])):
            path, label = self.root / self.files.path(row), int(self.labels[row])
            layer = read_layer(path, self.threshold)
            semantic = semantic if layers else np.zeros(layer.shape, dtype=np.uint8)
            check_same_size(f"{path}: the mask", layer.shape, "another of its image is", semantic.shape, made="mask")
            layers[label] = layer | layers.get(label, False)
        for label in sorted(layers, key=lambda one: -int(layers[one].sum())):
            semantic[layers[label]] = label
        return semantic

    def where(self, index: int) -> str:
        """See ``MaskSource``."""
        first = int(self.offsets[index])
        return str(self.root / self.files.path(first)) if first < self.offsets[index + 1] else str(self.root)

    def select(self, indices: Sequence[int]) -> MaskLayers:
        """See ``MaskSource``."""
        chosen = np.asarray(indices, dtype=np.int64)
        counts = np.diff(self.offsets)[chosen]
        offsets = running_total(counts)
        rows = np.repeat(self.offsets[chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        files, labels = self.files.select(rows.tolist()), self.labels[rows]
        return replace(self, files=files, offsets=offsets, labels=labels, sizes_hw=self.sizes_hw[chosen])


@dataclass(frozen=True, eq=False)
class DrawnMasks:
    """A ``MaskSource`` of maps that are drawn from the masks of objects; labels of objects are those of the map.

    Crowd regions are drawn first, as ``IGNORE_LABEL``; then the objects from the one with the most pixels to the one
    with the fewest, in the order of the file where they are equal. Other pixels are background, label 0.
    """

    file: Path  # of the annotations, for messages
    packed: PackedAnnotations

    def read(self, index: int) -> UInt8Array:
        """See ``MaskSource``."""
        objects = self.packed.image(index)
        assert objects.masks is not None
        labels = np.where(objects.crowd, IGNORE_LABEL, objects.labels).astype(np.uint8)
        semantic = np.zeros(self.packed.hw(index), dtype=np.uint8)
        for number in np.lexsort((-objects.masks.areas, ~objects.crowd)):
            semantic[objects.masks.mask(number)] = labels[number]
        return semantic

    def where(self, index: int) -> str:
        """See ``MaskSource``."""
        return f"{self.file}: image {self.packed.image_ids[index]}"

    def select(self, indices: Sequence[int]) -> DrawnMasks:
        """See ``MaskSource``."""
        return DrawnMasks(self.file, self.packed.select(indices))


def draw_objects(objects: DetectionDataset, file: Path, background: str, classes: Classes) -> SegmentationDataset:
    """The label maps of a set of objects with masks; ``background`` and ``classes`` as `add_background` takes them,
    ``file`` for messages."""
    table = add_background(objects.classes, background, str(file), classes)
    packed, regions = objects.packed, objects.packed.regions
    if regions is None or (len(regions) and not regions.lengths.any()):
        raise DataError(f"{file}: no object has an outline, and a box is no mask; draw their polygons")
    if missing := np.flatnonzero(regions.lengths == 0).tolist():
        what = f"{len(missing)} of {len(regions)} objects have a box and no outline; draw their polygons"
        first = packed.path(int(packed.image_of[missing[0]]))
        objects.report.wrong(DataIssue.NO_OUTLINE, first, f"{file}: {what}", len(missing))
        packed = packed.keep_objects(regions.lengths > 0)
    packed = replace(packed, labels=packed.labels + 1)
    return SegmentationDataset(packed, DrawnMasks(file, packed), objects.root, table, objects.report, objects.name)


class SegmentationDataset(ImageDataset):
    """Images with label maps, ``masks``, in the order of the images; ``dataset[i]`` decodes image i and its mask."""

    pixels: IntArray | None = None  # (C,) int64, of each class in the masks that were looked at when it was opened

    def __init__(
        self, packed: PackedImages, masks: MaskSource, root: Path, classes: ClassTable, report: DataReport, name: str
    ) -> None:
        super().__init__(packed, root, classes, report, name)
        self.masks = masks

    def __getitem__(self, index: int) -> Sample:
        """Image ``index`` with its label map; a DataError if it or its mask is missing or damaged, or sizes differ."""
        index = self._position(index)
        path = self.path(index)
        image, semantic = read_image(path, self.value_range), self.masks.read(index)
        self.check_size(index, (image.shape[0], image.shape[1]), semantic.shape)
        return Sample(
            index=index,
            image_id=self.image_id(index),
            path=str(path),
            image=image,
            boxes=np.zeros((0, 4), dtype=np.float32),
            labels=np.zeros(0, dtype=np.int64),
            ignore=np.zeros(0, dtype=np.bool_),
            semantic=semantic,
        )

    def semantic(self, index: int) -> UInt8Array:
        """The label map of an image, see ``MaskSource.read``; the image is not decoded."""
        return self.masks.read(self._position(index))

    def annotations(self, index: int) -> ImageAnnotations:
        """No objects; evaluation asks every data set for them."""
        self._position(index)
        return no_objects()

    def subset(self, indices: Sequence[int]) -> SegmentationDataset:
        """The images at some positions, each at most once, in this order; ids and report stay those of the whole."""
        positions = [self._position(index) for index in indices]
        packed, masks = self.packed.select(positions), self.masks.select(positions)
        part = SegmentationDataset(packed, masks, self.root, self.classes, self.report, self.name)
        part.value_range = self.value_range
        return part

    def check_size(self, index: int, image_hw: tuple[int, int], mask_hw: tuple[int, ...]) -> None:
        """Raise a DataError if a mask does not have the size of its image."""
        where, image = self.masks.where(index), self.path(index)
        check_same_size(f"{where}: the mask", mask_hw, f"its image {image} is", image_hw, made="mask")


def median_frequency_weights(dataset: SegmentationDataset, skip_bad: bool = False) -> tuple[float, ...]:
    """Class weights for losses by median frequency balancing (Eigen, Fergus 2015, section 6.3.2).

    The frequency of a class is its fraction of the pixels, without ignored ones, of the images that show it; its weight
    is the median of all frequencies divided by its own, or 0 where it never occurs. Every mask is decoded once;
    ``skip_bad`` leaves out those that cannot be read. A DataError if all pixels are ignored.
    """
    num = len(dataset.classes)
    counts, present = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=np.int64)
    for index in range(len(dataset)):
        try:
            semantic = dataset.semantic(index)
        except DataError:
            if not skip_bad:
                raise
            continue
        pixels = np.bincount(semantic.ravel(), minlength=256)[:num]
        counts += pixels
        present[pixels > 0] += pixels.sum()
    occurs = counts > 0
    if not occurs.any():
        raise DataError("class_weights: all pixels of the training masks are ignored, so classes have no frequency")
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(num)
    weights[occurs] = np.median(frequency) / frequency
    return tuple(weights.tolist())


MAX_INSPECTED = 200  # of larger data sets so many masks are inspected, evenly spread
_Found = tuple[IntArray, IntArray, DataIssue | None, dict[Rgb, int]] | DataError


def inspect_masks(dataset: SegmentationDataset, training: bool = True, skip_bad: bool = False) -> None:
    """Decode all masks, or an even sample of many, in threads, and report what is unusual; the others, too, before an
    error says that nothing can be learned from them.

    With ``skip_bad``, since the training skips them, or a tolerant report wrong masks and images are reported instead
    of raised. DataError: a mask or its image's header is wrong (or all are); all pixels are ignored; or, in training, a
    single class occurs beside ignored pixels, as in masks of 0 and 255 read with 255 ignored.
    """
    sample = np.unique(np.linspace(0, len(dataset) - 1, MAX_INSPECTED).round().astype(int)).tolist()
    others = sorted(set(range(len(dataset))) - set(sample))
    counts, stored = np.zeros((2, 256), dtype=np.int64)
    num_masks, bad, useless, palettes = 0, list[DataError](), "", dict[Rgb, tuple[int, str]]()
    encoding = dataset.masks.encoding if isinstance(dataset.masks, MaskFiles) else None
    mapping = dataset.masks.labels or () if isinstance(dataset.masks, MaskFiles) else ()
    left_out = [k for k, label in enumerate(mapping) if label == IGNORE_LABEL]
    for indices in (sample, others):
        of_each = in_threads(partial(_inspect, dataset), indices, "checking masks")
        for index, found in zip(indices, of_each, strict=True):
            if isinstance(found, DataError):
                bad.append(found)
                if dataset.report.tolerant:
                    dataset.report.add(DataIssue.WRONG_MASK, _place(dataset, index, found))
                elif not skip_bad:
                    raise found
                continue
            counts += found[0]
            stored += found[1]
            num_masks += 1
            if found[2] is not None:
                dataset.report.add(found[2], dataset.packed.path(index))
            _compare_colors(dataset, index, found[3], palettes)
        if not (useless := _describe_useless(counts, dataset.classes.names, encoding, training, bool(left_out))):
            break
    report, names, inspected = dataset.report, dataset.classes.names, num_masks + len(bad)
    if bad and not num_masks:
        report.wrong(DataIssue.NOTHING_TO_LEARN, dataset.name, str(bad[0]))
    elif useless:
        more = f" and {num_masks - 1} more" if num_masks > 1 else ""
        report.wrong(DataIssue.NOTHING_TO_LEARN, dataset.name, f"{dataset.masks.where(0)}{more}: {useless}")
    if inspected < len(dataset):
        report.note(f"masks looked at when opened: {inspected} of {len(dataset)}, evenly spread")
    if bad and not report.tolerant:
        what = f"masks or images that cannot be read, which the training will skip: {len(bad)} of {inspected}"
        report.note(f"{what}; the first: {one_line(bad[0])}")
    if encoding is not None and stored[left_out].any():
        source = encoding.classes.names
        found_names = [f"{source[k]} {_percent(stored, k)}" for k in left_out if stored[k]]
        report.note(f"pixels of classes that data.classes leaves out (ignored): {listed(found_names)}")
    if counts[IGNORE_LABEL]:
        report.note(f"ignored pixels of the masks: {_percent(counts, IGNORE_LABEL)}")
    dataset.pixels = counts[: len(names)]
    for absent in np.flatnonzero(dataset.pixels == 0):
        report.add(DataIssue.ABSENT, names[absent])


def without_wrong_maps(dataset: SegmentationDataset) -> SegmentationDataset:
    """The images whose maps can be read and have their size; the others are in the report, of all, not of a sample."""
    dataset.report.forget(DataIssue.WRONG_MASK)
    kept = list[int]()
    for index, found in enumerate(in_threads(partial(_inspect, dataset), range(len(dataset)), "checking masks")):
        if isinstance(found, DataError):
            dataset.report.add(DataIssue.WRONG_MASK, _place(dataset, index, found))
        else:
            kept.append(index)
    return dataset.subset(kept)


def _place(dataset: SegmentationDataset, index: int, error: DataError) -> Example:
    return Example(dataset.packed.path(index), index, detail=str(error))


def _percent(counts: IntArray, label: int) -> str:
    return f"{100 * counts[label] / counts.sum():.1f} %"


def _inspect(dataset: SegmentationDataset, index: int) -> _Found:
    """(256,) int64 pixels of each label of a mask, and of each class as the file has it; what is unusual about it; and
    the colours of its palette. Or what is wrong with it."""
    masks = dataset.masks
    try:
        stored = masks.as_stored(index) if isinstance(masks, MaskFiles) else masks.read(index)
        labels = masks.chosen(stored) if isinstance(masks, MaskFiles) else stored
        dataset.check_size(index, read_image_hw(dataset.path(index)), labels.shape)
        counts = np.bincount(labels.ravel(), minlength=256)
        of_stored = counts if stored is labels else np.bincount(stored.ravel(), minlength=256)
        there, colors = np.flatnonzero(of_stored[:IGNORE_LABEL]).tolist(), dict[Rgb, int]()
        if isinstance(masks, MaskFiles):
            colors = colors_of_labels(masks.where(index), masks.encoding, there)
    except DataError as error:
        return error
    num_labels = np.count_nonzero(counts[:IGNORE_LABEL])
    one_class = num_labels == 1 and counts[IGNORE_LABEL] and isinstance(dataset.masks, MaskFiles)
    issue = DataIssue.ONE_CLASS if one_class else None if num_labels else DataIssue.ALL_IGNORED
    return counts, of_stored, issue, colors


def _compare_colors(
    dataset: SegmentationDataset, index: int, found: dict[Rgb, int], known: dict[Rgb, tuple[int, str]]
) -> None:
    """Report a mask of whose palette one colour stands for another class than in an earlier mask; ``known``: those of
    the earlier ones, with a file each, to which those of this one are added."""
    if not found or not isinstance(dataset.masks, MaskFiles):
        return
    names, file = dataset.masks.encoding.classes.names, dataset.masks.files.path(index)
    for color, label in found.items():
        before, other = known.setdefault(color, (label, file))
        if before != label:
            where = f"{file}: the colour {list(color)} is {names[label]}, in {other} it is {names[before]}"
            dataset.report.add(DataIssue.OTHER_PALETTE, where)
            return


def _describe_useless(
    counts: IntArray, names: Sequence[str], encoding: MaskEncoding | None, training: bool, left_out: bool
) -> str:
    present = np.flatnonzero(counts[:IGNORE_LABEL]).tolist()
    if not present:
        return "all pixels are ignored, so there is nothing to learn or to score; correct the masks or what is ignored"
    if encoding is None or not training or len(present) > 1 or not counts[IGNORE_LABEL]:
        return ""
    label, ignored = present[0], encoding.ignore_index
    absent = listed([name for k, name in enumerate(names) if k != label])
    question = f"is {ignored} a class? name each class in data.classes and its value in data.mask_values"
    if left_out:
        question = "data.classes leaves out the others; choose one of those, too"
    elif encoding.colors is not None:
        question = "is one of data.ignore_colors a class? name it in data.classes and data.mask_colors"
    elif len(names) == len(encoding.classes) == 2:
        values = [encoding.class_values[k] if k == label else ignored for k in (0, 1)]
        question = f"is {ignored} the {('foreground', 'background')[label]}? set data.mask_values={values} "
        question += f"data.ignore_index=null; or is it void? add images that show {absent}"
    found = f"only {shown(names[label])} and ignored pixels occur, never {absent}"
    return f"{found}, and one class alone cannot be learned: {question}"
