"""The report of a detector, or of a file of detections: its numbers, its errors and their pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from detseg.draw import draw_boxes
from detseg.draw.charts import bars_chart
from detseg.draw.page import file_link, html_table, html_text
from detseg.evaluation.details import ERROR_MEANINGS, intervals_of
from detseg.evaluation.report.calibration import calibration, calibration_file
from detseg.evaluation.report.gallery import Exhibit, Gallery, side_by_side
from detseg.evaluation.report.label_errors import Doubt, Suspect, suspects
from detseg.evaluation.report.outcomes import (
    NOT_KEPT,
    RIGHT,
    Curve,
    Outcomes,
    Ranked,
    curve,
    curve_thresholds,
    outcomes,
    rank,
    slices,
)
from detseg.evaluation.report.sections import (
    CALIBRATION,
    ERRORS,
    SUSPECTS,
    THRESHOLDS,
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
from detseg.metrics.bootstrap import Samples, detection_samples
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.detection_result import DetectionResult
from detseg.metrics.error_kinds import ErrorKind, ErrorKinds, error_kinds
from detseg.metrics.interface import format_number, mean_defined
from detseg.metrics.records import DetectionRecords, IouType, MaskRecords
from detseg.metrics.voc import BestF1, best_f1, best_matches, rank_classes
from detseg.structures import SCORE_THRESHOLD, BoolArray, ClassTable, FloatArray, InstanceMasks, IntArray, UInt8Array

_KINDS = list(ErrorKind)
_LOWEST_SCORE = (
    0.1  # of the calibration: below, nearly all detections are wrong, and they are so many that they hide the rest
)
_SHOWN, _SUSPECTS_SHOWN, _MOST_MISSED = 6, 12, 2
_FEW = 10  # objects of a group
_SUSPECT = 0.7
LEARNED = 0.1
"""AP50 from which a model's doubts of its labels count."""
ALL = "all classes"

_SIZES = (8, 16, 32, 64, 128)
_ASPECTS = (1 / 3, 2 / 3, 1.5, 3)
_CROWDS = (2, 6, 16, 51)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a report.

    Attributes:
        ids: of each, in their order.
        names: of each.
        scales: (I,) pixels of the network's input for a pixel of each image; None: no network is known.
        read: position → (H, W, 3) pixels; None: there are no images, only what was found in them.
    """

    ids: Sequence[int]
    names: Sequence[str]
    scales: FloatArray | None
    read: Callable[[int], UInt8Array] | None

    @property
    def what_sizes(self) -> str:
        """In which pixels sizes are."""
        return "Size in the image" if self.scales is None else "Size in the network's input"


@dataclass(frozen=True, eq=False)
class DetectionReport:
    """All that a page says of detections.

    Attributes:
        records: detections and objects.
        classes: of the labels.
        result: as of ``detseg evaluate``.
        max_detections: of the evaluation.
        images: those of the records.
    """

    records: DetectionRecords
    classes: ClassTable
    result: DetectionResult
    max_detections: int
    images: Images

    @classmethod
    def of(cls, evaluator: DetectionEvaluator, images: Images) -> DetectionReport:
        """Of all that was collected."""
        return cls(evaluator.records, evaluator.classes, evaluator.compute(), evaluator.max_detections, images)

    @cached_property
    def samples(self) -> Samples:
        """Of the bootstrap."""
        of = self.iou_type
        return detection_samples(self.records, self.classes, self.max_detections, self.result.f1_iou, f1_of=of)

    @property
    def iou_type(self) -> IouType:
        """What the page is about: masks where these are scored, else boxes."""
        return "bbox" if self.result.masks is None else "segm"

    @property
    def headline(self) -> dict[str, float]:
        """The numbers at the top: those of the result, F1 of masks where these are scored."""
        if self.result.masks is None:
            return self.result.headline
        f1 = {"mask_F1": mean_defined(one.f1 for one in self.best)}
        numbers = {name: value for name, value in self.result.headline.items() if name != "F1"}
        masks = {name: value for name, value in numbers.items() if name.startswith("mask_")}
        return masks | f1 | numbers

    @property
    def notes(self) -> dict[str, str]:
        """To the numbers at the top."""
        return dict.fromkeys(("F1", "mask_F1"), "mean of classes, each at its best threshold")

    hidden: ClassVar[tuple[str, ...]] = ()
    """Of label maps alone."""
    shown = "the detections from the best threshold of their class on"
    """In the large pictures."""

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Metric → ends of its 95 % interval."""
        return intervals_of(self.result.numbers | self.headline, self.samples.numbers)

    @cached_property
    def best(self) -> list[BestF1]:
        """Of each class, at the score of its best F1: of boxes as in the result."""
        matches = best_matches(self.records, self.iou_type)
        return [*map(best_f1, rank_classes(self.records, matches, self.result.f1_iou, len(self.classes)))]

    @cached_property
    def thresholds(self) -> FloatArray:
        """(C,) of the best F1 of each class; where nothing is right the predictor's, so that what is wrong is seen."""
        best = np.array([one.threshold for one in self.best])
        return np.where(np.isnan(best), SCORE_THRESHOLD, best)

    @cached_property
    def outcomes(self) -> Outcomes:
        """At these thresholds."""
        return outcomes(self.records, self.classes, self.thresholds, self.result.f1_iou, self.iou_type)

    @cached_property
    def errors(self) -> ErrorKinds:
        """What each kind of error costs."""
        return error_kinds(self.records, self.classes, iou_type=self.iou_type)

    @cached_property
    def are_probabilities(self) -> bool:
        """Whether all scores may be."""
        scores = self.records.detection_scores
        return bool(((scores >= 0) & (scores <= 1)).all())

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Labels that are probably wrong; none where the model has no say in it."""
        if not self.are_probabilities or self._ap50 < LEARNED:
            return []
        learned = np.array(self.result.by_class[f"{self._metric}50"]) >= LEARNED
        return suspects(self.records, np.array([one.recall for one in self.best]), learned, self.iou_type)

    @cached_property
    def _ranked(self) -> list[Ranked]:
        return rank(self.records, len(self.classes), self.result.f1_iou, self.iou_type)

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """By class, and of all classes at one threshold."""
        ranked = self._ranked
        if not any(one.num_objects for one in ranked):
            return {}
        at = curve_thresholds(ranked, self.thresholds)
        by_class = zip(self.classes.names, ranked, strict=True)
        of_classes = {name: curve([one], at) for name, one in by_class if one.num_objects}
        return of_classes if len(of_classes) == 1 else {ALL: curve(ranked, at)} | of_classes

    def about(self, data: str, split: str) -> str:
        """What was scored, for a line."""
        images, objects = counted(len(self.images.ids), "image"), counted(int(self.outcomes.to_find.sum()), "object")
        return f"{data}, {split}: {images}, {objects}"

    def in_short(self) -> Iterator[str]:
        """What one should know first, a sentence each."""
        name, value = next(iter(self.result.headline.items()))
        if math.isnan(value):
            yield f"{name} is not defined: there is nothing to find."
            return
        sure = interval_text(self.intervals.get(name))
        sure = sure and f" (95 % interval {sure})"
        yield f"{name} is {value:.3f}{sure}."
        if not self.are_probabilities:
            scores = self.records.detection_scores
            yield (
                f"Scores are from {scores.min():g} to {scores.max():g}, not from 0 to 1: as they are no probabilities, "
                "labels to check and calibration are left out."
            )
        kinds, to_find = self.outcomes.kinds, self.outcomes.to_find
        kept, right = int((kinds > NOT_KEPT).sum()), int((kinds == RIGHT).sum())
        found = int((self.outcomes.found & to_find).sum())
        wrong = f", and {kept - right} of {kept} detections are wrong ({(kept - right) / kept:.0%})" if kept else ""
        yield (
            f"{self._masks}At the best threshold of each class {found} of {int(to_find.sum())} objects are found "
            f"({found / max(int(to_find.sum()), 1):.0%}){wrong}."
        )
        gains = {kind: gain for kind, gain in self.errors.gains.items() if gain > 0.0005}
        if gains:
            costs = sorted(gains.items(), key=lambda item: -item[1])[:2]
            parts = [f"{kind} ({ERROR_MEANINGS[kind]}; {gain:+.3f})" for kind, gain in costs]
            yield f"The errors that cost most AP50{self._of_masks}: {', then '.join(parts)}."
        rows = [(ap, row) for ap, row in zip(self.result.by_class[name], self.result.classes, strict=True)]
        with_objects = sorted((pair for pair in rows if pair[1].num_objects), key=lambda pair: pair[0])
        (low, weakest), (high, strongest) = with_objects[0], with_objects[-1]
        if f"{low:.3f}" != f"{high:.3f}":
            yield (
                f"The weakest class is {weakest.name} ({name} {low:.3f}, {counted(weakest.num_objects, 'object')}), "
                f"the strongest {strongest.name} ({name} {high:.3f}, {strongest.num_objects})."
            )
        if num := sum(suspect.doubt >= _SUSPECT for suspect in self.suspects):
            what = "may be wrong or missing (the model is sure of something else); look at them before you train longer"
            yield f"{counted(num, 'label')} {what}."

    @property
    def _metric(self) -> str:
        return "AP" if self.result.masks is None else "mask_AP"

    @property
    def _ap50(self) -> float:
        return (self.result.coco if self.result.masks is None else self.result.masks.summary)["AP50"]

    @property
    def _masks(self) -> str:
        return "" if self.result.masks is None else "Masks: "

    @property
    def _of_masks(self) -> str:
        return "" if self.result.masks is None else " of masks"

    @property
    def _boxes(self) -> str:
        return "boxes" if self.result.masks is None else "masks"

    @property
    def _rule(self) -> str:
        """By which threshold and matching most of the page counts."""
        return (
            f"Each class from its best threshold on, {self._boxes} matched by VOC's rule at IoU {self.result.f1_iou:g}."
        )

    @property
    def protocol(self) -> dict[str, str]:
        """How the numbers came about."""
        limit = f"the best {self.max_detections} detections of a class in an image"
        found = {"AP": f"COCO's: the mean over IoU 0.50 to 0.95, 101 levels of recall and the classes; {limit}"}
        rule = f"of {self._boxes}, by VOC's matching rule at IoU {self.result.f1_iou:g}; F1: the mean over the classes"
        return found | {"precision, recall, F1": f"{rule}, each at its best threshold"}

    def sections(self, gallery: Gallery) -> Iterator[Section]:
        """All of them, in order; pictures go through the gallery."""
        if self.curves:
            rule = (
                f"Counts of the detections with at least the score of the slider, {self._boxes} matched by VOC's rule "
                f"at IoU {self.result.f1_iou:g}"
            )
            several = (
                ": of one class, or of all classes together at one threshold. So the F1 of all classes is not that at "
                "the top, the mean over the classes, each at its best threshold"
            )
            rule += several if ALL in self.curves else ""
            text = f"<p>{rule}. The best thresholds are in the table below and in {file_link(THRESHOLDS)}.</p>"
            yield "threshold", "Threshold", text + operating_point(self.curves, "detections and objects")
        yield "classes", "Classes", self._class_table()
        yield "costs", "Errors, by cost", self._costs()
        yield "confusion", "Confusion", self._confusion()
        if self.images.read is not None:
            yield "errors", "Errors, by picture", self._pictures(gallery)
        yield "labels", "Labels to check", self._labels(gallery)
        yield "slices", "Where it fails", self._slices()
        if not self.are_probabilities or not len(self.records.detection_scores):
            return
        found = calibration(*self._scores(), lowest=_LOWEST_SCORE)
        text = (
            f"<p>Expected calibration error {format_number(found.error)}: by so much a score and the fraction of the "
            f"detections that are right at it differ on average. Detections from {_LOWEST_SCORE} on.</p>"
        )
        yield "calibration", "Are scores probabilities?", text + calibration_chart(found, "detections")

    def tables(self) -> dict[str, dict[str, Any]]:
        """What ``detseg predict`` may take, by the name of its file: thresholds, and the calibration of scores."""
        pairs = zip(self.classes.names, self.best, strict=True)
        found = {THRESHOLDS: {name: one.threshold for name, one in pairs if not np.isnan(one.threshold)}}
        if not self.are_probabilities or not len(self.records.detection_scores):
            return found
        return found | {CALIBRATION: calibration_file(self._ranked, self.classes.names, self.result.f1_iou)}

    def _scores(self) -> tuple[FloatArray, BoolArray]:
        ranked = self._ranked
        return np.concatenate([one.scores for one in ranked]), np.concatenate([one.right for one in ranked])

    def _class_table(self) -> str:
        by_class = self.result.by_class
        metric = self._metric
        sure = class_intervals(by_class[metric], self.samples.by_class[metric])
        head = ["class", "objects", "detections", f"{metric} (95 %)", f"{metric}50"]
        head += ["precision", "recall", "F1", "threshold"]
        rows = [
            [
                row.name,
                str(row.num_objects),
                str(row.num_detections),
                with_interval(value, ends),
                *map(format_number, (ap50, best.precision, best.recall, best.f1, best.threshold)),
            ]
            for row, best, value, ap50, ends in zip(
                self.result.classes, self.best, by_class[metric], by_class[f"{metric}50"], sure, strict=True
            )
        ]
        note = f"Precision, recall and F1 of {self._boxes} at the threshold of the best F1, IoU {self.result.f1_iou:g}."
        return sortable_table(head, rows) + f'<p class="soft">{note}</p>'

    def _costs(self) -> str:
        errors, shown = self.errors, [(kind, gain) for kind, gain in self.errors.gains.items() if not math.isnan(gain)]
        chart = bars_chart("AP50 gained if fixed", [(str(kind), gain) for kind, gain in shown], "{:+.3f}".format)
        head = ("kind", "what it is", "of all scores", "AP50 gained")
        rows = [
            (str(kind), ERROR_MEANINGS[kind], str(errors.counts[kind]), f"{gain:+.3f}")
            for kind, gain in sorted(shown, key=lambda item: -item[1])
        ]
        differs = f"{errors.ap50:.3f}" != f"{self._ap50:.3f}"
        why = ", as TIDE counts the best 100 detections of an image, of all classes together" if differs else ""
        text = (
            f"<p>Detections of any score, matched by TIDE's rules: missed is an object that no detection of any "
            f"score is about. AP50{self._of_masks} by these rules is {errors.ap50:.3f}{why}. Without any "
            f"wrong detection it would be {format_number(errors.ap50 + errors.false_positive_gain)}, without missed "
            f"objects {format_number(errors.ap50 + errors.false_negative_gain)}. Each kind alone (TIDE, Bolya et al. "
            "2020):</p>"
        )
        return f'{text}<div class="row">{chart}<div>{sortable_table(head, rows)}</div></div>'

    def _confusion(self) -> str:
        names = list(self.classes.names)
        table = confusion_table(self.outcomes.confusion, [*names, "no object"], [*names, "missed"], "objects")
        text = (
            f"<p>{self._rule} A class of which nothing is right has no best threshold: its detections count from "
            f"{SCORE_THRESHOLD} on. No object: detections on nothing, beside an object, or on one that "
            "another detection has.</p>"
        )
        return text + table

    def _slices(self) -> str:
        records, at = self.records, {number: k for k, number in enumerate(self.images.ids)}
        of_object, of_detection = (
            np.array([at[number] for number in ids.tolist()], dtype=np.int64)
            for ids in (records.object_image_ids, records.detection_image_ids)
        )
        parts = []
        for title, names, of_boxes in (
            (self.images.what_sizes, _ranges(_SIZES, " px"), self._sizes),
            ("Width by height", _ranges(tuple(round(value, 2) for value in _ASPECTS), ""), self._aspects),
        ):
            objects = of_boxes(records.object_boxes, of_object)
            detections = of_boxes(records.detection_boxes, of_detection)
            parts.append((title, names, objects, detections))
        crowd = np.bincount(of_object[self.outcomes.to_find], minlength=len(at))
        places = np.searchsorted(_CROWDS, crowd, side="right")
        parts.append(("Objects in the image", _whole_ranges(_CROWDS), places[of_object], places[of_detection]))
        folders = [name.rpartition("/")[0] or "." for name in self.images.names]
        if len(set(folders)) > 1:
            known = sorted(set(folders))
            number = np.array([known.index(folder) for folder in folders])
            parts.append(("Folder", known, number[of_object], number[of_detection]))
        html = []
        for title, names, objects, detections in parts:
            found = slices(self.outcomes, names, objects, detections)
            rows = [
                (
                    part.name,
                    str(part.num_objects),
                    _ratio(part.num_found, part.num_objects),
                    str(part.num_kept),
                    _ratio(part.num_right, part.num_kept),
                )
                for part in found
            ]
            few = [row for row, part in enumerate(found) if part.num_objects < _FEW]
            head = (title, "objects", "found", "detections", "right")
            html.append(f"<div>{html_table(head, rows, soft=few)}</div>")
        text = (
            f"<p>{self._rule} An object is in the group of its own size and shape, a detection in that of its own, so "
            "the detections of a group may be on objects of another one. Grey: fewer than 10 objects.</p>"
        )
        return f'{text}<div class="row">{"".join(html)}</div>'

    def _sizes(self, boxes: FloatArray, images: IntArray) -> IntArray:
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))
        if self.images.scales is not None:
            sides = sides * self.images.scales[images]
        places: IntArray = np.searchsorted(_SIZES, sides, side="right")
        return places

    def _aspects(self, boxes: FloatArray, images: IntArray) -> IntArray:
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
        return np.searchsorted(_ASPECTS, sides[:, 0] / sides[:, 1], side="right")

    def exhibits(self) -> Iterator[tuple[str, list[Exhibit]]]:
        """The worst errors of each kind, with its title."""
        records, found = self.records, self.outcomes
        areas = np.where(found.to_find & ~found.found & (found.taken_for < 0), records.object_areas, -1.0)
        order = np.argsort(-areas, kind="stable")[:_SHOWN]
        missed = found.to_find & ~found.found
        most = Counter(records.object_image_ids[missed].tolist()).most_common(_MOST_MISSED)
        places, exhibits = {number: place for place, number in enumerate(self.images.ids)}, []
        for number, num in most:
            boxes = records.object_boxes[missed & (records.object_image_ids == number)]
            exhibits.append(Exhibit(places[number], f"{counted(num, 'object')} missed", missed=tuple(boxes.tolist())))
        yield "Images with the most missed objects", exhibits
        yield "Missed: the largest", [self._exhibit(k, -1) for k in order.tolist() if areas[k] >= 0]
        for kind, title in (
            (ErrorKind.BACKGROUND, "On nothing: the highest scores"),
            (ErrorKind.CLASS, "Wrong class: the highest scores"),
            (ErrorKind.LOCATION, f"Bad {self._boxes}: the highest scores"),
            (ErrorKind.BOTH, f"Bad {self._boxes} of another class: the highest scores"),
            (ErrorKind.DUPLICATE, "Found twice: the highest scores"),
        ):
            rows = np.flatnonzero(found.kinds == _KINDS.index(kind))
            rows = rows[np.argsort(-records.detection_scores[rows], kind="stable")][:_SHOWN]
            yield title, [self._exhibit(int(found.objects[row]), row) for row in rows.tolist()]

    def _exhibit(self, number: int, row: int, before: str = "") -> Exhibit:
        """Of an object and a detection, -1 for none."""
        records, names, texts = self.records, self.classes.names, []
        if row >= 0:
            texts.append(f"{names[records.detection_labels[row]]} {records.detection_scores[row]:.2f}")
        if number >= 0:
            texts.append(f"label {names[records.object_labels[number]]}")
        image_id = int(records.object_image_ids[number] if number >= 0 else records.detection_image_ids[row])
        return Exhibit(
            list(self.images.ids).index(image_id),
            before + ", ".join(texts),
            None if number < 0 else tuple(records.object_boxes[number].tolist()),
            None if row < 0 else tuple(records.detection_boxes[row].tolist()),
            *self._masks_of(number, row),
        )

    def _masks_of(self, number: int, row: int) -> tuple[InstanceMasks | None, InstanceMasks | None]:
        records = self.records
        if not isinstance(records, MaskRecords):
            return None, None
        image_id = records.object_image_ids[number] if number >= 0 else records.detection_image_ids[row]
        height, width = records.image_hw[records.image_ids == image_id][0].tolist()
        true, found = (
            None if place < 0 else InstanceMasks((height, width), (column[place],))
            for column, place in ((records.object_masks, number), (records.detection_masks, row))
        )
        return true, found

    def _pictures(self, gallery: Gallery) -> str:
        parts = [
            f"<p>{self._rule} Blue: the label; orange: the detection. A click shows the whole image with these two "
            "outlined; its other colours tell classes apart, and neighbours of one class.</p>"
        ]
        kinds = list(self.exhibits())
        num = int((self.outcomes.kinds >= 0).sum() + (self.outcomes.to_find & ~self.outcomes.found).sum())
        parts.append(number_shown(sum(len(exhibits) for _, exhibits in kinds[1:]), num, ERRORS))
        for title, exhibits in kinds:
            if exhibits:
                parts += [f"<h3>{html_text(title)}</h3>", self._shown(exhibits, gallery)]
        return "".join(parts)

    def _labels(self, gallery: Gallery) -> str:
        if not self.are_probabilities:
            return "<p>None, as scores are not from 0 to 1, and so say nothing on how sure the model is.</p>"
        if self._ap50 < LEARNED:
            return f"<p>None: where AP50{self._of_masks} is below {LEARNED}, it is not the labels that are wrong.</p>"
        chosen = [suspect for suspect in self.suspects if suspect.doubt >= _SUSPECT]
        # A label that the model does not see may be the model's fault: its doubt is never so large.
        counts = {kind: sum(suspect.kind == kind for suspect in chosen) for kind in Doubt if kind is not Doubt.NOTHING}
        listed = ", ".join(f"{self._kind(kind)}: {num}" for kind, num in counts.items())
        text = (
            f"<p>Where the model is sure and the label says something else, the largest doubt first: {len(chosen)} "
            f"with a doubt of {_SUSPECT} or more ({listed}). Doubt, from 0 to 1: the score of the detection that "
            "says something else, less the best score of the label's own class at that place. A model that was trained "
            "on these very labels has learned their errors, too: of the training set it finds fewer.</p>"
        )
        if self.images.read is None or not self.suspects:
            return text + f"<p>All are in {file_link(SUSPECTS)}.</p>"
        exhibits = [
            self._exhibit(suspect.object, suspect.detection, f"{self._kind(suspect.kind)}, {suspect.doubt:.2f}: ")
            for suspect in self.suspects[:_SUSPECTS_SHOWN]
        ]
        return text + number_shown(len(exhibits), len(self.suspects), SUSPECTS) + self._shown(exhibits, gallery)

    def _kind(self, doubt: Doubt) -> str:
        return str(doubt) if self.result.masks is None else str(doubt).replace("box", "mask")

    def _shown(self, exhibits: Sequence[Exhibit], gallery: Gallery) -> str:
        assert self.images.read is not None
        rows = []
        for exhibit in exhibits:
            image = self.images.read(exhibit.image)
            if exhibit.image not in gallery.wholes:
                gallery.wholes[exhibit.image] = self._whole(exhibit.image, image)
            rows.append((exhibit, self.images.names[exhibit.image], image))
        return gallery.figures(rows)

    def _whole(self, place: int, image: UInt8Array) -> UInt8Array:
        records, image_id, names = self.records, self.images.ids[place], self.classes.names
        true = np.flatnonzero(records.object_image_ids == image_id)
        found = np.flatnonzero((records.detection_image_ids == image_id) & (self.outcomes.kinds > NOT_KEPT))
        masks: list[InstanceMasks | None] = [None, None]
        if isinstance(records, MaskRecords):
            columns = ((records.object_masks, true), (records.detection_masks, found))
            hw = (image.shape[0], image.shape[1])
            masks = [InstanceMasks(hw, tuple(column[rows])) for column, rows in columns]
        left = draw_boxes(image, records.object_boxes[true], records.object_labels[true], names, masks=masks[0])
        scores = records.detection_scores[found]
        boxes, labels = records.detection_boxes[found], records.detection_labels[found]
        return side_by_side([left, draw_boxes(image, boxes, labels, names, scores, masks[1])])

    def error_rows(self) -> Iterator[list[str]]:
        """A row for each error at the best thresholds, for a table: the head first."""
        yield ["image", "kind", "class", "label", "score", "x1", "y1", "x2", "y2"]
        records, names, found = self.records, self.classes.names, self.outcomes
        image_names = dict(zip(self.images.ids, self.images.names, strict=True))
        for row in np.flatnonzero(found.kinds >= 0).tolist():
            number = int(found.objects[row])
            label = names[records.object_labels[number]] if number >= 0 else ""
            box = [f"{value:.1f}" for value in records.detection_boxes[row].tolist()]
            found_class, score = names[records.detection_labels[row]], f"{records.detection_scores[row]:.4f}"
            name = image_names[int(records.detection_image_ids[row])]
            yield [name, str(_KINDS[found.kinds[row]]), found_class, label, score, *box]
        for number in np.flatnonzero(found.to_find & ~found.found).tolist():
            box = [f"{value:.1f}" for value in records.object_boxes[number].tolist()]
            name = image_names[int(records.object_image_ids[number])]
            yield [name, str(ErrorKind.MISSED), "", names[records.object_labels[number]], "", *box]

    def suspect_rows(self) -> Iterator[list[str]]:
        """A row for each doubted label, the largest doubt first, for a table: the head first."""
        yield ["image", "doubt", "kind", "label", "found", "x1", "y1", "x2", "y2"]
        records, names = self.records, self.classes.names
        image_names = dict(zip(self.images.ids, self.images.names, strict=True))
        for suspect in self.suspects:
            label = names[records.object_labels[suspect.object]] if suspect.object >= 0 else ""
            found = names[records.detection_labels[suspect.detection]] if suspect.detection >= 0 else ""
            of_object = suspect.object >= 0
            boxes, row = (
                (records.object_boxes, suspect.object) if of_object else (records.detection_boxes, suspect.detection)
            )
            box = [f"{value:.1f}" for value in boxes[row].tolist()]
            yield [image_names[suspect.image_id], f"{suspect.doubt:.4f}", self._kind(suspect.kind), label, found, *box]


def _ranges(ends: Sequence[float], unit: str) -> list[str]:
    middle = [f"{low:g} to {high:g}{unit}" for low, high in pairwise(ends)]
    return [f"below {ends[0]:g}{unit}", *middle, f"from {ends[-1]:g}{unit}"]


def _whole_ranges(starts: Sequence[int]) -> list[str]:
    starts = [0, *starts]
    ends = [str(low) if low + 1 == high else f"{low} to {high - 1}" for low, high in pairwise(starts)]
    return [*ends, f"{starts[-1]} and more"]


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"
