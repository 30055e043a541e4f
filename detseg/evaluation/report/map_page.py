"""The report of a segmenter of label maps: its numbers, its errors and their pictures."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from detseg.draw import class_colors, draw_semantic, draw_semantic_errors
from detseg.draw.charts import bars_chart
from detseg.draw.page import html_text
from detseg.evaluation.details import intervals_of
from detseg.evaluation.report.gallery import Exhibit, Gallery, side_by_side
from detseg.evaluation.report.maps import REGION_SIZES, DoubtedRegion, MapStudy, fixed_confusions, image_ious
from detseg.evaluation.report.sections import (
    ERRORS,
    SUSPECTS,
    Section,
    calibration_chart,
    class_intervals,
    confusion_table,
    interval_text,
    number_shown,
    operating_point,
    sortable_table,
    with_interval,
)
from detseg.messages import counted
from detseg.metrics.bootstrap import Samples, segmentation_samples
from detseg.metrics.interface import format_number
from detseg.metrics.segmentation import SegmentationEvaluator
from detseg.metrics.segmentation_result import SegmentationResult
from detseg.structures import ClassTable, FloatArray, IntArray, UInt8Array

_SHOWN, _SUSPECTS_SHOWN, _CONFUSIONS = 6, 12, 8
_OF_A_VIDEO, _NEAR = 2, 50  # images of a stretch, and numbers of frames
_LOST, _FOUND_ALONE = 0.05, 0.3  # IoU of a class that is hardly ever taken, and F1 that its own probability reaches
_BETTER = 0.15  # than the F1 of all pixels together
_LEARNED = 0.1  # IoU of a class from which the model's doubts of its labels count

Triple = tuple[UInt8Array, UInt8Array, UInt8Array]
"""Of an image: its (H, W, 3) pixels, and (H, W) labels of the truth and of the prediction."""


@dataclass(frozen=True, eq=False)
class MapReport:
    """All that a page says of label maps.

    Attributes:
        classes: of the labels.
        result: as of ``detseg evaluate``.
        confusions: (I, C, C) pixels of each image by true and predicted class.
        bands: (I, 2, C) overlaps of the bands along the outlines.
        study: of the same images.
        names: of the images.
        read: position → what is to be seen.
    """

    classes: ClassTable
    result: SegmentationResult
    confusions: IntArray
    bands: IntArray
    study: MapStudy
    names: Sequence[str]
    read: Callable[[int], Triple]

    @classmethod
    def of(
        cls, evaluator: SegmentationEvaluator, study: MapStudy, names: Sequence[str], read: Callable[[int], Triple]
    ) -> MapReport:
        """Of all that was collected, with ``keep_images``."""
        return cls(evaluator.classes, evaluator.compute(), *evaluator.image_counts, study, names, read)

    @property
    def headline(self) -> dict[str, float]:
        """The numbers at the top."""
        return self.result.headline

    shown = "the most probable class of each pixel"
    """In the large pictures."""
    notes: ClassVar[Mapping[str, str]] = {}
    """To the numbers at the top."""

    @cached_property
    def samples(self) -> Samples:
        """Of the bootstrap."""
        return segmentation_samples(self.confusions, self.bands)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Metric → ends of its 95 % interval."""
        return intervals_of(self.result.numbers, self.samples.numbers)

    @cached_property
    def image_ious(self) -> FloatArray:
        """(I,) mean IoU of the classes in each image."""
        return image_ious(self.confusions)

    @cached_property
    def suspects(self) -> list[DoubtedRegion]:
        """Labels that are probably wrong, of classes that the model has learned, the largest doubt first."""
        learned = [row.iou >= _LEARNED for row in self.result.classes]
        return sorted((one for one in self.study.doubted if learned[one.label]), key=lambda one: -one.doubt)

    @cached_property
    def hidden(self) -> dict[str, tuple[float, float]]:
        """Classes that are hardly ever the most probable one, though their own probability tells their pixels from
        others: name → best F1 and the probability from which it is reached."""
        found = {}
        for row, curve in zip(self.result.classes, self.study.curves(), strict=True):
            best = len(curve.f1) - 1 - int(curve.f1[::-1].argmax())  # of equals the highest threshold, as the slider
            least = max(_FOUND_ALONE, float(curve.f1[0]) + _BETTER)  # what chance reaches of a frequent class is high
            if row.num_pixels and row.iou < _LOST and curve.f1[best] >= least:
                found[row.name] = float(curve.f1[best]), float(curve.thresholds[best])
        return found

    def about(self, data: str, split: str) -> str:
        """What was scored, for a line."""
        return f"{data}, {split}: {counted(len(self.names), 'image')}, {len(self.classes)} classes"

    def in_short(self) -> Iterator[str]:
        """What one should know first, a sentence each."""
        name, value = next(iter(self.result.headline.items()))
        if math.isnan(value):
            yield f"{name} is not defined: no pixel counts."
            return
        sure = interval_text(self.intervals.get(name))
        sure = sure and f" (95 % interval {sure})"
        yield f"{name} is {value:.3f}{sure}. {self.result.pixel_accuracy:.1%} of the pixels are right."
        there = [row for row in self.result.classes if row.num_pixels]
        weakest, strongest = min(there, key=lambda row: row.iou), max(there, key=lambda row: row.iou)
        if f"{weakest.iou:.3f}" != f"{strongest.iou:.3f}":
            yield (
                f"The weakest class is {weakest.name} (IoU {weakest.iou:.3f}, {self._percent(weakest.num_pixels)} of "
                f"the pixels), the strongest {strongest.name} (IoU {strongest.iou:.3f})."
            )
        rows = {row.name: row for row in self.result.classes}
        for name, (f1, threshold) in self.hidden.items():
            ever = "hardly ever" if rows[name].num_predicted else "never"
            yield (
                f"{name} is {ever} the most probable class, but from a probability of {threshold:.2f} on found with F1 "
                f"{f1:.2f}."
            )
        if costs := fixed_confusions(self.confusions.sum(axis=0))[:1]:
            true, found, gain = costs[0]
            names = self.classes.names
            yield f"The error that costs most: {names[true]} taken for {names[found]} ({gain:+.3f} mIoU without it)."
        inside, along = (self.study.wrong / np.maximum(self.study.pixels, 1)).tolist()
        part = self._percent(int(self.study.pixels[1]))
        yield f"Along the true outlines ({part} of the pixels) {along:.1%} are wrong, elsewhere {inside:.1%}."

    def _percent(self, pixels: int) -> str:
        return f"{pixels / max(self.result.num_pixels, 1):.1%}"

    @property
    def protocol(self) -> dict[str, str]:
        """How the numbers came about."""
        band = f"within {self.study.boundary_width:.1%} of the image's diagonal of an outline"
        return {"mIoU": f"pixels are counted over the whole set, then classes averaged; boundary IoU: {band}"}

    def sections(self, gallery: Gallery) -> Iterator[Section]:
        """All of them, in order; pictures go through the gallery."""
        yield "classes", "Classes", self._class_table()
        yield "costs", "Errors, by cost", self._costs()
        names = list(self.classes.names)
        text = "<p>Percent of the pixels of each true class.</p>"
        yield "confusion", "Confusion", text + confusion_table(self.confusions.sum(axis=0), names, names, "%")
        yield "errors", "Errors, by picture", self._pictures(gallery)
        yield "labels", "Labels to check", self._labels(gallery)
        yield "slices", "Where it fails", self._slices()
        curves = {
            name: one for name, one in zip(self.classes.names, self.study.curves(), strict=True) if one.num_objects
        }
        if curves:
            text = (
                "<p>If a class alone were kept from a probability on, instead of the most probable class of each "
                "pixel: for a rare class another threshold than half may be better.</p>"
            )
            yield "threshold", "Threshold", text + operating_point(curves, "pixels")
        found = self.study.calibration()
        text = (
            f"<p>Expected calibration error {format_number(found.error)}: by so much the probability of the class that "
            "a pixel is taken for and the fraction of such pixels that are right differ on average.</p>"
        )
        yield "calibration", "Are probabilities right?", text + calibration_chart(found, "pixels")

    def _class_table(self) -> str:
        sure = class_intervals(self.result.by_class["IoU"], self.samples.by_class["IoU"])
        rows = [
            [
                row.name,
                self._percent(row.num_pixels),
                with_interval(row.iou, ends),
                *map(format_number, (row.dice, row.precision, row.recall, row.boundary_iou)),
            ]
            for row, ends in zip(self.result.classes, sure, strict=True)
        ]
        head = ["class", "pixels", "IoU (95 %)", "Dice", "precision", "recall", "boundary IoU"]
        return sortable_table(head, rows)

    def _costs(self) -> str:
        names = self.classes.names
        costs = [(f"{names[true]} as {names[found]}", gain) for true, found, gain in self._confusions()]
        chart = bars_chart("mIoU gained if fixed", costs, "{:+.3f}".format)
        rows = [
            (where, str(pixels), str(wrong), _ratio(wrong, pixels))
            for where, pixels, wrong in zip(
                ("inside", "along the outlines"), self.study.pixels.tolist(), self.study.wrong.tolist(), strict=True
            )
        ]
        table = sortable_table(("where", "pixels", "wrong", "fraction"), rows)
        note = (
            f'<p class="soft">Along the outlines: within {self.study.boundary_width:.1%} of the image\'s diagonal of a '
            "pixel of another class, or of the border.</p>"
        )
        return f'<div class="row">{chart}<div>{table}{note}</div></div>'

    def _confusions(self) -> list[tuple[int, int, float]]:
        return fixed_confusions(self.confusions.sum(axis=0))[:_CONFUSIONS]

    def _slices(self) -> str:
        totals, found = self.study.regions.sum(axis=0), self.study.regions_found.sum(axis=0)
        rows = [
            (name, str(int(num)), _ratio(right, num))
            for name, num, right in zip(REGION_SIZES, totals, found, strict=True)
            if num
        ]
        regions = sortable_table(("region of a class", "regions", "found"), rows)
        defined = self.image_ious[~np.isnan(self.image_ious)]
        counts, edges = np.histogram(defined, bins=10, range=(0, 1))
        bars = [
            (f"{low:.1f} to {high:.1f}", float(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        chart = bars_chart("Images by their mean IoU", bars, "{:.0f}".format)
        text = "<p>Connected regions of one class in the truth; found: half of the pixels or more.</p>"
        return f'{text}<div class="row"><div>{regions}</div>{chart}</div>'

    def _pictures(self, gallery: Gallery) -> str:
        order = np.argsort(np.where(np.isnan(self.image_ious), 2, self.image_ious), kind="stable").tolist()
        figures = []
        for place in (order[k] for k in varied([self.names[place] for place in order], _SHOWN)):
            self._keep_whole(place, gallery)
            image, truth, found = self.read(place)
            errors = draw_semantic_errors(image, truth, found, 1)
            exhibit = Exhibit(place, f"mean IoU {self.image_ious[place]:.3f}")
            figures.append((exhibit, self.names[place], errors))
        text = (
            "<p>The worst images, at most two of 50 frames of a video where there are others; orange: wrong pixels. A "
            "click shows truth and prediction.</p>"
        )
        return text + number_shown(len(figures), len(self.names), ERRORS) + gallery.figures(figures)

    def _labels(self, gallery: Gallery) -> str:
        text = (
            f"<p>{counted(len(self.suspects), 'region')} away from outlines where the model is sure (80 % or more) of "
            "another class than the label. The doubt by which they are ordered is the sum over the pixels of the "
            "probability of what is found, less that of the label; of each label the three largest of an image are "
            "kept, and those of classes that the model has not learned are left out. Orange: the region.</p>"
        )
        figures, names = [], self.classes.names
        places = varied([self.names[region.image] for region in self.suspects], _SUSPECTS_SHOWN)
        for region in (self.suspects[place] for place in places):
            self._keep_whole(region.image, gallery)
            caption = f"{names[region.found]}, label {names[region.label]}, {region.area} px"
            box = tuple(float(value) for value in region.box)
            figures.append(
                (Exhibit(region.image, caption, None, box), self.names[region.image], self.read(region.image)[0])
            )
        text += number_shown(len(figures), len(self.suspects), SUSPECTS)
        return text + (gallery.figures(figures) if figures else "")

    def _keep_whole(self, place: int, gallery: Gallery) -> None:
        if place not in gallery.wholes:
            image, truth, found = self.read(place)
            names = self.classes.names
            pictures = [draw_semantic(image, labels, names, 1) for labels in (truth, found)]
            gallery.wholes[place] = side_by_side(pictures)

    def error_rows(self) -> Iterator[list[str]]:
        """A row for each image, the worst first, for a table: the head first."""
        yield ["image", "mean IoU", "wrong pixels"]
        right, all_ = np.trace(self.confusions, axis1=1, axis2=2), self.confusions.sum(axis=(1, 2))
        for place in np.argsort(np.where(np.isnan(self.image_ious), 2, self.image_ious), kind="stable").tolist():
            yield [self.names[place], f"{self.image_ious[place]:.4f}", str(int(all_[place] - right[place]))]

    def suspect_rows(self) -> Iterator[list[str]]:
        """A row for each doubted region, the largest doubt first, for a table: the head first."""
        yield ["image", "doubt", "label", "found", "pixels", "x1", "y1", "x2", "y2"]
        names = self.classes.names
        for region in self.suspects:
            texts = [f"{region.doubt:.2f}", names[region.label], names[region.found], str(region.area)]
            yield [self.names[region.image], *texts, *map(str, region.box)]


def varied(names: Sequence[str], number: int) -> list[int]:
    """The first so many places of a list of images by name, where the third and further ones of a stretch of video come
    after all others: names that differ in their last number alone, by fewer than 50."""
    first, rest = list[int](), list[int]()
    series = list[tuple[str, int]]()  # of the first
    for place, name in enumerate(names):
        if len(first) == number:
            break
        parts = re.fullmatch(r"(.*?)(\d*)(\D*)", os.path.splitext(name)[0], flags=re.DOTALL)
        assert parts is not None  # it matches everything
        own, frame = parts[1] + parts[3], int(parts[2] or 0)
        near = sum(other == own and abs(frame - another) < _NEAR for other, another in series)
        if near < _OF_A_VIDEO:
            first.append(place)
            series.append((own, frame))
        else:
            rest.append(place)
    return (first + rest)[:number]


def legend(classes: ClassTable) -> str:
    """The colours of the classes."""
    return "".join(
        f'<span style="border-left: 14px solid rgb{color}; padding-left: 6px">{html_text(name)}</span>'
        for name, color in zip(classes.names, class_colors(classes.names), strict=True)
    )


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.3f}" if whole else "-"
