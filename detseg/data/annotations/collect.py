"""Collects what a reader meets, image by image and object by object, and packs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from detseg.data.annotations.classes import Classes, check_class_name, choose_labels
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.model import (
    FLAGS,
    PackedAnnotations,
    Segmentations,
    pack_images,
    running_total,
)
from detseg.data.annotations.outlines import RotatedError, Shape, join_groups, own_area
from detseg.data.annotations.report import DataReport, report_contents
from detseg.errors import DataError
from detseg.messages import did_you_mean, listed, shown
from detseg.structures import ClassTable

_Entry = TypeVar("_Entry")


class AnnotationCollector:
    """The annotations of a set whose format names classes; ``pack`` returns them all.

    ``file`` names the annotations in messages. ``classes``: the names that the format lists, in label order; None: the
    sorted names of the objects. ``centred``: whether it states centres and sides of boxes. ``image_ids`` count from 1.
    """

    def __init__(self, file: Path, classes: Sequence[str] | None = None, centred: bool = False) -> None:
        self._file, self._centred = file, centred
        self._declared = None if classes is None else tuple(classes)
        self._paths, self._sizes, self._counts = list[str](), list[tuple[int, int]](), list[int]()
        self._names, self._boxes, self._flags = list[str](), list[Sequence[float]](), list[tuple[bool, bool, bool]]()
        self._areas, self._segmentations = list[float](), list[bytes]()
        self._places, self._place = dict[str, str](), str(file)

    def add_image(self, path: str, hw: tuple[int, int], file: Path | None = None) -> None:
        """Add an image by its path relative to the root, with height and width in pixels; its objects follow. ``file``:
        the annotation file that is its own, for messages."""
        self._place = str(file or self._file)
        self._paths.append(path)
        self._sizes.append(hw)
        self._counts.append(0)

    def add_object(
        self,
        name: str,
        box: Sequence[float],
        *,
        crowd: bool = False,
        difficult: bool = False,
        truncated: bool = False,
        segmentation: Any = None,
    ) -> None:
        """Add an object of the image that was added last.

        ``box`` is xyxy in pixels, as stated. ``segmentation``: polygons ``[[x, y, x, y, ...], ...]`` in pixels, or run
        lengths as COCO has them; None: there is only the box. The caller has checked both (see `region_counts`).
        """
        self._counts[-1] += 1
        self._names.append(name)
        self._places.setdefault(name, self._place)
        self._boxes.append(box)
        self._flags.append((crowd, difficult, truncated))
        self._areas.append(own_area(box, segmentation, self._sizes[-1]))
        self._segmentations.append(b"" if segmentation is None else json.dumps(segmentation).encode())

    def add_shapes(
        self,
        entries: Iterable[_Entry],
        shape_of: Callable[[_Entry], Shape | None],
        where: str,
        listed_in: str,
        report: DataReport,
    ) -> None:
        """Add the objects of the image that was added last, from the entries of an annotation tool.

        ``shape_of``: what an entry shows, None for a line and the like; raises a ValueError that says what is wrong
        with it. ``where`` begins messages; ``listed_in`` is where the classes are listed, if they are.
        """
        path, shapes = self._paths[-1], list[Shape]()
        for number, entry in enumerate(entries):
            start = f"{where}: shape {number}"
            try:
                shape = shape_of(entry)
            except ValueError as error:
                issue = DataIssue.ROTATED if isinstance(error, RotatedError) else DataIssue.WRONG_OBJECT
                report.wrong(issue, path, f"{start}: {error}; correct or remove the shape")
                continue
            if shape is None:
                report.add(DataIssue.OTHER_SHAPE, path)
            elif self._declared is not None and shape.name not in self._declared:
                what = f"unknown class {shown(shape.name)}{did_you_mean(shape.name, self._declared)}"
                fix = f"{listed_in} has {listed(self._declared)}: correct the label, or add it there"
                report.wrong(DataIssue.UNKNOWN_CLASS, shape.name or "(no name)", f"{start}: {what}; {fix}")
            else:
                shapes.append(shape)
        for shape in join_groups(shapes, self._sizes[-1]):
            flags = {flag: flag in shape.flags for flag in FLAGS}
            self.add_object(shape.name, shape.box, segmentation=shape.outline, **flags)

    def _nothing(self, report: DataReport) -> str:
        if num := report.count(DataIssue.OTHER_SHAPE):
            return f"no image has an object; {DataIssue.OTHER_SHAPE.text}: {num}; {DataIssue.OTHER_SHAPE.fix}"
        return "no image has an object; name the classes in data.classes"

    def pack(
        self, classes: Classes, report: DataReport, masks: bool, strict: bool
    ) -> tuple[PackedAnnotations, ClassTable]:
        """Everything that was added, labelled by ``classes`` as `choose_labels` says, with the issues of its contents
        in ``report``.

        With ``masks``, objects that have none are a DataError; a tolerant report keeps the masks that there are.
        ``strict``: see `choose_labels`.
        """
        present = sorted(set(self._names))
        names = present if self._declared is None else self._declared
        for name in names:
            check_class_name(str(self._file), name)
        if not names and classes is None:
            raise DataError(report.first_wrong or f"{self._file}: {self._nothing(report)}")
        position = {name: number for number, name in enumerate(names)}
        found = np.array([position[name] for name in self._names], dtype=np.int64)
        counts = np.bincount(found, minlength=len(names))
        declared = self._declared is not None
        where = str(self._file)
        table, label_of = choose_labels(names, counts, classes, where, report, declared, strict, self._places)
        labels = label_of[found]
        flags = np.array(self._flags, dtype=np.bool_).reshape(-1, 3)
        regions = None
        if masks or (report.tolerant and any(self._segmentations)):
            regions = Segmentations.of_texts(self._file, np.arange(1, len(found) + 1), self._segmentations)
        packed = PackedAnnotations(
            **vars(pack_images(self._paths)),
            sizes_hw=np.array(self._sizes, dtype=np.int64).reshape(-1, 2),
            offsets=running_total(self._counts),
            boxes=np.array(self._boxes, dtype=np.float64).reshape(-1, 4),
            labels=labels,
            crowd=flags[:, 0],
            difficult=flags[:, 1],
            truncated=flags[:, 2],
            area=np.array(self._areas, dtype=np.float64),
            regions=regions,
            centred=self._centred,
        ).keep_objects(labels >= 0)
        if masks and not report.tolerant and packed.regions is not None:
            if missing := int((packed.regions.lengths == 0).sum()):
                what = f"{missing} of {len(packed.labels)} objects have a box and no outline"
                raise DataError(f"{self._file}: {what}; draw their polygons; model.name=faster_rcnn needs no masks")
            packed.area.fill(np.nan)  # that of the mask
        report_contents(packed, table, report)
        return packed, table
