"""The result of an evaluation of detections: numbers, a table for the screen, plain data for a file, and explanations.

NaN stands for "not defined" (no objects of that class or size); in files it is null.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from detseg.metrics.coco import CocoNumbers
from detseg.metrics.interface import format_number, mean_defined, new_table, weighted_mean, without_nan
from detseg.metrics.records import DetectionRecords
from detseg.metrics.voc import BestMatches, average_precisions, best_matches, rank_classes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_HEADLINE = ("AP", "AP50", "AP75")
_IOU = 0.5
_LOW_SCORE = 0.05
_LABELS_SUSPECT = 0.2  # AP50 without labels from which wrong labels are suspected
_MASKS_SUSPECT = 0.3  # AP50 of boxes from which wrong masks are suspected
_HARDLY_FOUND = 0.1  # AP50 or recall below which a class is not learned
_UNSURE = 0.15  # score of the best F1 below which the threshold of `detseg predict`, 0.3, hides most of a class


@dataclass(frozen=True)
class DiagnosisInputs:
    """What the detections look like, with and without their labels: numbers that tell apart why an AP is zero."""

    highest_score: float  # of any detection; NaN without detections
    highest_iou: float  # of any detection with any object of its image, whatever the labels; NaN without detections
    num_overlapping: int  # detections with IoU >= 0.5 with an object of their image, whatever the labels
    pooled_ap50: float  # VOC 2010 AP at IoU 0.5 of all classes ranked together; NaN without objects
    unlabelled_ap50: float  # the same with all labels ignored
    num_crowded: int = 0  # images with more objects of a class than detections of a class count
    most_objects: int = 0  # objects of one class in an image, of that with the most
    highest_recall: float = 1.0  # of all objects, that so few detections allow; NaN without objects


def diagnosis_inputs(records: DetectionRecords, matches: BestMatches, max_detections: int) -> DiagnosisInputs:
    """Compare the detections with their labels (``matches``) and without, and the number of objects of a class in an
    image with that of the detections which count."""
    no_labels = {name: np.zeros_like(getattr(records, name)) for name in ("detection_labels", "object_labels")}
    unlabelled = replace(records, **no_labels)
    unlabelled_matches = best_matches(unlabelled)
    ious = unlabelled_matches.ious
    pooled, without = (
        average_precisions(rank_classes(unlabelled, found, _IOU, num_classes=1)[0])[1]
        for found in (matches, unlabelled_matches)
    )
    return DiagnosisInputs(
        highest_score=float(records.detection_scores.max()) if len(ious) else math.nan,
        highest_iou=float(ious.max()) if len(ious) else math.nan,
        num_overlapping=int(np.count_nonzero(ious >= _IOU)),
        pooled_ap50=pooled,
        unlabelled_ap50=without,
        **_crowding(records, max_detections),
    )


def _crowding(records: DetectionRecords, max_detections: int) -> dict[str, Any]:
    to_find = ~records.object_ignore
    keys = np.stack([records.object_image_ids[to_find], records.object_labels[to_find]], axis=1)  # G' 2
    groups, counts = np.unique(keys, axis=0, return_counts=True)
    return {
        "num_crowded": len(np.unique(groups[counts > max_detections, 0])),
        "most_objects": int(counts.max(initial=0)),
        "highest_recall": float(np.minimum(counts, max_detections).sum() / counts.sum()) if len(counts) else math.nan,
    }


@dataclass(frozen=True)
class ClassResult:
    """The numbers of one class; all NaN where it has no objects."""

    name: str
    num_objects: int  # to find, without crowd and difficult ones
    num_detections: int
    ap: float  # COCO's, mean over IoU 0.50 to 0.95
    ap50: float  # COCO's at IoU 0.5
    voc07_ap50: float  # VOC 2007's (11 points) at IoU 0.5
    voc10_ap50: float  # VOC 2010's (area) at IoU 0.5
    precision: float  # at `threshold`
    recall: float  # at `threshold`
    f1: float  # the best over all thresholds, at the result's `f1_iou`
    threshold: float  # the score that reaches it; NaN where nothing is found


@dataclass(frozen=True)
class DetectionResult:
    """The result of an evaluation; the names of the fields are the keys of ``evaluation_<split>.json``."""

    coco: dict[str, float]  # COCO's twelve numbers by name, as `CocoNumbers.summary`
    voc07_ap50: float  # mean over the classes that have objects of VOC 2007's AP at IoU 0.5
    voc10_ap50: float  # the same of VOC 2010's
    classes: tuple[ClassResult, ...]  # in the order of the labels
    num_images: int
    num_objects: int  # to find
    num_ignored: int  # crowd and difficult objects
    num_detections: int
    max_detections: int  # of a class in an image that the COCO numbers count
    f1_iou: float  # IoU from which a detection is right in precision, recall and F1
    evidence: DiagnosisInputs  # what `explain` goes by
    masks: CocoNumbers | None = None  # COCO's numbers of masks, all others being of boxes; None: only boxes were scored
    class_weights: tuple[float, ...] | None = None  # in the order of the labels; None: there is no weighted AP

    @property
    def f1(self) -> float:
        """The mean over the classes that have objects of their best F1, each at its own threshold."""
        return mean_defined(row.f1 for row in self.classes)

    @property
    def headline(self) -> dict[str, float]:
        """AP, AP50 and AP75 of COCO, those of masks first, F1, and the mean AP by ``class_weights``."""
        numbers = {name: self.coco[name] for name in _HEADLINE}
        if self.masks is not None:
            numbers = {f"mask_{name}": self.masks.summary[name] for name in _HEADLINE} | numbers
        numbers["F1"] = self.f1
        if self.class_weights is not None:
            first = next(iter(numbers))
            numbers[f"weighted_{first}"] = weighted_mean(self.by_class[first], self.class_weights)
        return numbers

    @property
    def numbers(self) -> dict[str, float]:
        """The headline, COCO's twelve numbers (of masks with ``mask_`` before the name), and VOC's two."""
        masks = {} if self.masks is None else {f"mask_{name}": x for name, x in self.masks.summary.items()}
        return self.headline | self.coco | masks | {"VOC07_AP50": self.voc07_ap50, "VOC10_AP50": self.voc10_ap50}

    @property
    def by_class(self) -> dict[str, tuple[float, ...]]:
        """AP, AP50 (of masks with ``mask_`` before the name), precision, recall and F1 of each class."""
        columns = {"AP": "ap", "AP50": "ap50", "precision": "precision", "recall": "recall", "F1": "f1"}
        found = {name: tuple(getattr(row, key) for row in self.classes) for name, key in columns.items()}
        if self.masks is not None:
            found |= {"mask_AP": self.masks.class_ap, "mask_AP50": self.masks.class_ap50}
        return found

    def explain(self, of_a_run: bool = True) -> list[str]:
        """Say why the AP is zero or looks wrong, one sentence a cause; nothing where nothing is suspicious. Detections
        that are not ``of_a_run`` of detseg are not told its settings."""
        if not self.num_images:
            return ["No image was evaluated: the split is empty."]
        if not self.num_objects:
            ignored = f" ({self.num_ignored} crowd or difficult ones do not count)" if self.num_ignored else ""
            return [f"The {self.num_images} images have no objects to find{ignored}; check the annotations."]
        if not self.num_detections:
            advice = ": train longer (trainer.max_epochs), or lower the threshold"
            return [f"There are no detections at all{advice if of_a_run else ''}."]
        sentences = self._crowded(of_a_run)
        if not self.evidence.num_overlapping:
            sentences.append(
                f"None of the {self.num_detections} detections overlaps an object by IoU >= 0.5 (best: "
                f"{self.evidence.highest_iou:.2f}): the model has not learned yet, or boxes are in other coordinates "
                "than the objects (another image size, xywh read as xyxy)."
            )
        with_labels, without = self.evidence.pooled_ap50, self.evidence.unlabelled_ap50
        if without >= _LABELS_SUSPECT and with_labels < without / 2:
            sentences.append(
                f"Boxes are found but labels are wrong: AP50 of all objects together is {with_labels:.3f}, and "
                f"{without:.3f} with the labels ignored; check the order and numbering of the classes."
            )
        if self.evidence.highest_score < _LOW_SCORE:
            highest = self.evidence.highest_score
            sentences.append(f"The highest score of all detections is {highest:.3f}: the model has hardly learned yet.")
        boxes, masks = self.coco["AP50"], math.nan if self.masks is None else self.masks.summary["AP50"]
        if boxes > _MASKS_SUSPECT and masks < boxes / 10:
            sentences.append(
                f"Boxes are found but their masks are wrong: AP50 is {boxes:.3f} of the boxes and {masks:.3f} of the "
                "masks; the mask head has not learned yet, or the true masks do not lie in their boxes: draw some."
            )
        if of_a_run and len(sentences) == len(self._crowded(of_a_run)):
            sentences += self._weak_points()
        undetected = [row.name for row in self.classes if row.num_objects and not row.num_detections]
        if undetected:
            sentences.append(f"Classes with objects but without a single detection: {', '.join(undetected)}.")
        return sentences

    def _crowded(self, of_a_run: bool) -> list[str]:
        """What `evaluation.max_detections` allows where images hold more objects."""
        if not self.evidence.num_crowded:
            return []
        most = self.evidence.most_objects
        return [
            f"{self.evidence.num_crowded} of {self.num_images} images hold more objects of a class (up to {most}) than "
            f"evaluation.max_detections = {self.max_detections} counts, so that recall is "
            f"{self.evidence.highest_recall:.3f} at most, AP hardly more, and no better model can raise them: set "
            f"evaluation.max_detections={most} (COCO's rule is 100)"
            f"{', and model.max_detections as high' if of_a_run else ''}."
        ]

    def _weak_points(self) -> list[str]:
        """What a model that has begun to learn does not find, and what to try."""
        ap50 = (self.coco if self.masks is None else self.masks.summary)["AP50"]
        longer = "train longer (trainer.max_epochs), raise data.image_size if they are small"
        if ap50 < _HARDLY_FOUND:
            return [
                f"Hardly any objects are found (AP50 {ap50:.3f}): {longer}; a low score threshold (`detseg predict "
                "--score 0.05`) shows what the model is unsure of."
            ]
        sentences = []
        found = [row for row in self.classes if row.num_objects and row.num_detections]
        if weak := [row for row in found if min(row.ap50, row.recall) < _HARDLY_FOUND]:
            rows = [f"{row.name} (AP {row.ap:.3f}, recall {row.recall:.3f}, {row.num_objects} objects)" for row in weak]
            sentences.append(f"Classes that are hardly found: {', '.join(rows)}: {longer}, or add examples.")
        if unsure := [row for row in found if row not in weak and row.threshold < _UNSURE]:
            sentences.append(
                f"Classes that are found at low scores only: {', '.join(row.name for row in unsure)}: train longer "
                f"(trainer.max_epochs), or predict with --score {min(row.threshold for row in unsure):.2f} (in Python: "
                "score_threshold)."
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; what is not defined is None; ``masks`` and ``class_weights`` (with the
        ``weighted_AP`` that they give) are there only where they are scored."""
        plain: dict[str, Any] = without_nan(asdict(self) | {"f1": self.f1})
        for name in ("masks", "class_weights"):
            if getattr(self, name) is None:
                del plain[name]
        plain |= without_nan({name: x for name, x in self.headline.items() if name.startswith("weighted_")})
        return plain

    def table(self) -> RenderableType:
        """The numbers for the screen, 80 columns wide: ``rich.print(result.table())``."""
        from rich.console import Group

        summaries = [_summary("COCO" if self.masks is None else "COCO, boxes", self.coco)]
        if self.masks is not None:
            summaries.append(_summary("COCO, masks", self.masks.summary))
        return Group(*summaries, self.class_table(), self._footnote())

    def class_table(self) -> Table:
        """The numbers of each class, and their means."""
        from rich.text import Text

        names, means = ("VOC07", "VOC10"), [self.voc07_ap50, self.voc10_ap50]
        numbers = [(row.voc07_ap50, row.voc10_ap50) for row in self.classes]
        if self.masks is not None:  # 80 columns have no room for all four
            names, means = ("mask\nAP", "mask\nAP50"), [self.masks.summary["AP"], self.masks.summary["AP50"]]
            numbers = list(zip(self.masks.class_ap, self.masks.class_ap50, strict=True))
        columns = ("objects", "dets", "AP", "AP50", *names, "prec.", "recall", "F1", "score")
        rows = new_table("By class", columns, padding=0)
        for row, pair in zip(self.classes, numbers, strict=True):
            values = (row.ap, row.ap50, *pair, row.precision, row.recall, row.f1, row.threshold)
            rows.add_row(Text(row.name), str(row.num_objects), str(row.num_detections), *map(format_number, values))
        rows.add_section()
        means = [self.coco["AP"], self.coco["AP50"], *means]
        cells = (*map(format_number, means), "", "", format_number(self.f1))
        rows.add_row("all", str(self.num_objects), str(self.num_detections), *cells)
        return rows

    def _footnote(self) -> str:
        voc, of_boxes = "VOC07, VOC10: AP at IoU 0.5 by both rules. ", ""
        if self.masks is not None:
            voc07, voc10 = format_number(self.voc07_ap50), format_number(self.voc10_ap50)
            voc = f"VOC's AP of boxes at IoU 0.5: {voc07} (2007), {voc10} (2010). "
            of_boxes = "of boxes, "
        return (
            f"{self.num_images} images, {self.num_objects} objects to find, {self.num_ignored} ignored (crowd or "
            f"difficult). COCO: the best {self.max_detections} detections of a class in an image. {voc}Precision, "
            f"recall: {of_boxes}at the score of the best F1, IoU {self.f1_iou:g}."
        )


def _summary(title: str, numbers: dict[str, float]) -> Table:
    """COCO's twelve numbers: AP on the left, AR on the right."""
    summary = new_table(title)
    columns = ([name for name in numbers if name.startswith(kind)] for kind in ("AP", "AR"))
    for pair in zip_longest(*columns):
        summary.add_row(*(cell for name in pair if name for cell in (name, format_number(numbers[name]))))
    return summary
