"""What an evaluation of detections says: numbers, a table for the screen, plain data for a file, and words.

NaN stands for "not defined" (no objects of that class or size); in files it is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from detseg.metrics.detection.diagnosis import Evidence, diagnose, diagnose_masks
from detseg.metrics.nan_values import shown, without_nan

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_HEADLINE = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class ClassResult:
    """The numbers of one class; all NaN where it has no objects.

    Attributes:
        name: of the class.
        num_objects: objects to find; crowd and difficult ones are not.
        num_detections: detections of the class.
        ap: COCO AP, mean over IoU 0.50 to 0.95.
        ap50: COCO AP at IoU 0.5.
        voc07_ap50: VOC 2007's AP (11 points) at IoU 0.5.
        voc10_ap50: VOC 2010's AP (area) at IoU 0.5.
        precision: at ``threshold``.
        recall: at ``threshold``.
        f1: the best F1 over all thresholds, at the result's ``operating_iou``.
        threshold: the score that reaches it; NaN where nothing is found.
    """

    name: str
    num_objects: int
    num_detections: int
    ap: float
    ap50: float
    voc07_ap50: float
    voc10_ap50: float
    precision: float
    recall: float
    f1: float
    threshold: float


@dataclass(frozen=True)
class MaskNumbers:
    """COCO's numbers of masks; NaN where not defined.

    Attributes:
        summary: COCO's twelve numbers by name, as in ``DetectionResult.coco``.
        class_ap: AP of each class, in the order of the labels.
        class_ap50: AP at IoU 0.5 of each class.
    """

    summary: dict[str, float]
    class_ap: tuple[float, ...]
    class_ap50: tuple[float, ...]


@dataclass(frozen=True)
class DetectionResult:
    """The outcome of an evaluation.

    Attributes:
        coco: COCO's twelve numbers by name: AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10,
            AR_<max_detections>, AR_small, AR_medium, AR_large.
        voc07_ap50: mean over the classes that have objects of VOC 2007's AP at IoU 0.5.
        voc10_ap50: the same of VOC 2010's.
        classes: one row a class, in the order of the labels.
        num_images: evaluated images.
        num_objects: objects to find.
        num_ignored: crowd and difficult objects.
        num_detections: all detections.
        max_detections: how many of a class in an image the COCO numbers count.
        operating_iou: IoU from which a detection is right in precision, recall and F1.
        evidence: what ``explain`` goes by.
        masks: the numbers of masks, all others being of boxes; None where only boxes were scored.
    """

    coco: dict[str, float]
    voc07_ap50: float
    voc10_ap50: float
    classes: tuple[ClassResult, ...]
    num_images: int
    num_objects: int
    num_ignored: int
    num_detections: int
    max_detections: int
    operating_iou: float
    evidence: Evidence
    masks: MaskNumbers | None = None

    @property
    def headline(self) -> dict[str, float]:
        """AP, AP50 and AP75 of COCO, those of masks first; by the first the best checkpoint is picked."""
        boxes = {name: self.coco[name] for name in _HEADLINE}
        if self.masks is None:
            return boxes
        return {f"mask_{name}": self.masks.summary[name] for name in _HEADLINE} | boxes

    def explain(self) -> list[str]:
        """Say in words why the AP is zero or looks wrong; nothing where nothing is suspicious."""
        undetected = [row.name for row in self.classes if row.num_objects and not row.num_detections]
        words = diagnose(
            self.num_images, self.num_objects, self.num_ignored, self.num_detections, undetected, self.evidence
        )
        if self.masks is not None:
            words += diagnose_masks(self.coco["AP50"], self.masks.summary["AP50"])
        return words

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; what is not defined is None, and without masks there is no ``masks``."""
        plain: dict[str, Any] = without_nan(asdict(self))
        if self.masks is None:
            del plain["masks"]
        return plain

    def table(self) -> RenderableType:
        """The numbers for the screen, 80 columns wide: ``rich.print(result.table())``."""
        from rich.console import Group
        from rich.text import Text

        rows = _table("By class", padding=0)
        rows.add_column("class", overflow="fold")
        columns = self._class_columns()
        for name in ("objects", "dets", *columns):
            rows.add_column(name, justify="right", no_wrap=True)
        for k, row in enumerate(self.classes):
            numbers = (shown(values[k]) for values, _ in columns.values())
            rows.add_row(Text(row.name), str(row.num_objects), str(row.num_detections), *numbers)
        rows.add_section()
        means = ("" if mean is None else shown(mean) for _, mean in columns.values())
        rows.add_row("all", str(self.num_objects), str(self.num_detections), *means)
        if self.masks is None:
            return Group(_summary("COCO", self.coco), rows, self._footnote())
        summaries = (_summary("COCO, boxes", self.coco), _summary("COCO, masks", self.masks.summary))
        return Group(*summaries, rows, self._footnote())

    def _class_columns(self) -> dict[str, tuple[Sequence[float], float | None]]:
        """Header of each column of numbers → the numbers of the classes, and their mean where it says something."""
        columns: dict[str, tuple[Sequence[float], float | None]] = {
            "AP": ([row.ap for row in self.classes], self.coco["AP"]),
            "AP50": ([row.ap50 for row in self.classes], self.coco["AP50"]),
        }
        if self.masks is None:
            columns["VOC07"] = [row.voc07_ap50 for row in self.classes], self.voc07_ap50
            columns["VOC10"] = [row.voc10_ap50 for row in self.classes], self.voc10_ap50
        else:  # 80 columns have no room for both
            columns["mask\nAP"] = self.masks.class_ap, self.masks.summary["AP"]
            columns["mask\nAP50"] = self.masks.class_ap50, self.masks.summary["AP50"]
        columns["prec."] = [row.precision for row in self.classes], None
        columns["recall"] = [row.recall for row in self.classes], None
        columns["F1"] = [row.f1 for row in self.classes], None
        columns["score"] = [row.threshold for row in self.classes], None
        return columns

    def _footnote(self) -> str:
        voc, judged = "VOC07, VOC10: AP at IoU 0.5 by both rules. ", ""
        if self.masks is not None:
            voc = f"VOC's AP of boxes at IoU 0.5: {shown(self.voc07_ap50)} (2007), {shown(self.voc10_ap50)} (2010). "
            judged = "of boxes, "
        return (
            f"{self.num_images} images, {self.num_objects} objects to find, {self.num_ignored} ignored (crowd or "
            f"difficult). COCO: the best {self.max_detections} detections of a class in an image. {voc}Precision, "
            f"recall: {judged}at the score of the best F1, IoU {self.operating_iou:g}."
        )


def _summary(title: str, numbers: dict[str, float]) -> Table:
    """COCO's twelve numbers: AP on the left, AR on the right."""
    summary = _table(title, padding=(0, 1), show_header=False)
    precisions = [name for name in numbers if name.startswith("AP")]
    recalls = [name for name in numbers if name.startswith("AR")]
    for left, right in zip_longest(precisions, recalls):
        pairs = [(name, shown(numbers[name])) for name in (left, right) if name]
        summary.add_row(*(cell for pair in pairs for cell in pair))
    return summary


def _table(title: str, padding: int | tuple[int, int], show_header: bool = True) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=padding, show_header=show_header)
