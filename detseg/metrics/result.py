"""What an evaluation of detections says: numbers, a table for the screen, plain data for a file, and words.

NaN stands for "not defined" (no objects of that class or size); in files it is null.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from detseg.metrics.diagnosis import Evidence, diagnose
from detseg.metrics.undefined import shown, without_nan

if TYPE_CHECKING:
    from rich.console import RenderableType

_CLASS_COLUMNS = {
    "AP": "ap",
    "AP50": "ap50",
    "VOC07": "voc07_ap50",
    "VOC10": "voc10_ap50",
    "prec.": "precision",
    "recall": "recall",
    "F1": "f1",
    "score": "threshold",
}


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

    @property
    def headline(self) -> dict[str, float]:
        """AP, AP50 and AP75 of COCO; AP is what the best checkpoint is picked by."""
        return {name: self.coco[name] for name in ("AP", "AP50", "AP75")}

    def explain(self) -> list[str]:
        """Say in words why the AP is zero or looks wrong; nothing where nothing is suspicious."""
        undetected = [row.name for row in self.classes if row.num_objects and not row.num_detections]
        return diagnose(
            self.num_images, self.num_objects, self.num_ignored, self.num_detections, undetected, self.evidence
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; what is not defined is None."""
        plain: dict[str, Any] = without_nan(asdict(self))
        return plain

    def table(self) -> RenderableType:
        """The numbers for the screen, 80 columns wide: ``rich.print(result.table())``."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        names = list(self.coco)
        summary = Table(box=SIMPLE_HEAD, show_header=False, title="COCO", title_justify="left")
        precisions = [name for name in names if name.startswith("AP")]
        recalls = [name for name in names if name.startswith("AR")]
        for left, right in zip_longest(precisions, recalls):
            pairs = [(name, shown(self.coco[name])) for name in (left, right) if name]
            summary.add_row(*(cell for pair in pairs for cell in pair))

        rows = Table(box=SIMPLE_HEAD, padding=0, title="By class", title_justify="left")
        rows.add_column("class", overflow="fold")
        for column in ("objects", "dets", *_CLASS_COLUMNS):
            rows.add_column(column, justify="right", no_wrap=True)
        for row in self.classes:
            numbers = (shown(getattr(row, attribute)) for attribute in _CLASS_COLUMNS.values())
            rows.add_row(Text(row.name), str(row.num_objects), str(row.num_detections), *numbers)
        rows.add_section()
        means = (self.coco["AP"], self.coco["AP50"], self.voc07_ap50, self.voc10_ap50)
        rows.add_row("all", str(self.num_objects), str(self.num_detections), *(shown(mean) for mean in means))
        return Group(summary, rows, self._footnote())

    def _footnote(self) -> str:
        return (
            f"{self.num_images} images, {self.num_objects} objects to find, {self.num_ignored} ignored (crowd or "
            f"difficult). COCO: the best {self.max_detections} detections of a class in an image. VOC07, VOC10: AP at "
            f"IoU 0.5 by both rules. Precision, recall: at the score of the best F1, IoU {self.operating_iou:g}."
        )
