"""The result of an evaluation of semantic segmentation: numbers, a table for the screen, plain data, explanations.

All numbers come from one confusion matrix n over the pixels of the whole data set (Long, Shelhamer, Darrell 2015,
section 5), as in VOC and Cityscapes, and are not means over images: n[i, j] pixels of true class i predicted as j, t[i]
pixels of true class i, p[i] predicted as i.  Ignored pixels count nowhere.  NaN: not defined (null in a file).

A class that is neither in the truth nor predicted has no IoU and enters no mean.  A class that is predicted but not in
the truth has IoU 0 and enters the mean: its pixels are wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from detseg.metrics.interface import format_number, mean_defined, new_table, ratio, weighted_mean, without_nan
from detseg.structures import IGNORE_LABEL, IntArray

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_COLUMNS = {"IoU": "iou", "Dice": "dice", "prec.": "precision", "recall": "recall", "b.IoU": "boundary_iou"}
_HARDLY_FOUND = 0.1  # IoU below which a class is not learned
_MOSTLY_IGNORED = 0.5  # fraction of ignored pixels that is reported


@dataclass(frozen=True)
class SegmentationClassResult:
    """The numbers of one class k."""

    name: str
    iou: float  # n[k, k] / (t[k] + p[k] - n[k, k]); NaN where the class is neither in the truth nor predicted
    dice: float  # 2 n[k, k] / (t[k] + p[k]), which is F1; NaN likewise
    precision: float  # n[k, k] / p[k]; NaN where the class is never predicted
    recall: float  # n[k, k] / t[k], the accuracy of the class; NaN where it is not in the truth
    boundary_iou: float  # of the bands along the outlines of truth and prediction (Cheng et al. 2021); NaN as IoU
    num_pixels: int  # t[k]
    num_predicted: int  # p[k]; ignored pixels are not among them


@dataclass(frozen=True)
class SegmentationResult:
    """The result of an evaluation; the names of the fields are the keys of ``evaluation_<split>.json``."""

    mean_iou: float  # over the classes that are in the truth or predicted
    pixel_accuracy: float  # fraction of the pixels that are right
    mean_accuracy: float  # mean recall of the classes that are in the truth
    frequency_weighted_iou: float  # mean IoU of those classes, weighted by their pixels in the truth
    mean_dice: float  # over the classes that are in the truth or predicted
    mean_boundary_iou: float  # over the same
    classes: tuple[SegmentationClassResult, ...]  # in the order of the labels
    confusion: tuple[tuple[int, ...], ...]  # n, rows truth, columns prediction
    num_images: int
    num_pixels: int  # that count
    num_ignored: int  # that do not, their truth being 255
    class_weights: tuple[float, ...] | None = None  # in the order of the labels; None: there is no weighted mIoU

    @property
    def headline(self) -> dict[str, float]:
        """mIoU, pixel accuracy, boundary IoU, mean Dice (which is F1), and the mean IoU by ``class_weights``."""
        numbers = {"mIoU": self.mean_iou, "pixel_accuracy": self.pixel_accuracy, "boundary_IoU": self.mean_boundary_iou}
        numbers["Dice"] = self.mean_dice
        if self.class_weights is not None:
            numbers["weighted_mIoU"] = weighted_mean(self.by_class["IoU"], self.class_weights)
        return numbers

    @property
    def numbers(self) -> dict[str, float]:
        """The headline, the mean accuracy, and the IoU weighted by the pixels of the classes."""
        more = {"mean_accuracy": self.mean_accuracy, "frequency_weighted_IoU": self.frequency_weighted_iou}
        return self.headline | more

    @property
    def by_class(self) -> dict[str, tuple[float, ...]]:
        """IoU, Dice, precision, recall and boundary IoU of each class."""
        names = ("IoU", "Dice", "precision", "recall", "boundary_IoU")
        return {name: tuple(getattr(row, name.lower()) for row in self.classes) for name in names}

    def explain(self) -> list[str]:
        """Say why mIoU is undefined or looks wrong, one sentence a cause; nothing where nothing is suspicious."""
        if not self.num_images:
            return ["No image was evaluated: the split is empty."]
        if not self.num_pixels:
            return [
                f"All {self.num_ignored} pixels of the {self.num_images} images are ignored (their label is "
                f"{IGNORE_LABEL}): mIoU is not defined; check the masks, data.mask_values and data.ignore_index."
            ]
        sentences = []
        ignored = self.num_ignored / (self.num_ignored + self.num_pixels)
        if ignored > _MOSTLY_IGNORED:
            sentences.append(f"{ignored:.0%} of the pixels are ignored (label {IGNORE_LABEL}) and count nowhere.")
        true = [row.name for row in self.classes if row.num_pixels]
        found = [row.name for row in self.classes if row.num_predicted]
        if len(true) == 1:
            only = f"Every pixel that counts is of the class {true[0]!r}"
            sentences.append(f"{only}: mIoU says little then; check the masks and data.mask_values.")
        if len(found) == 1 and len(self.classes) > 1 and true != found:
            sentences.append(
                f"Every pixel is predicted as {found[0]!r}: the model has not learned yet, or the other classes are "
                f"too rare for its loss (model.loss.class_weights)."
            )
        else:
            true_and_found = [row for row in self.classes if row.num_pixels and row.num_predicted]
            if weak := [row for row in true_and_found if row.iou < _HARDLY_FOUND]:
                rows = ", ".join(f"{row.name} (IoU {row.iou:.3f}, recall {row.recall:.3f})" for row in weak)
                sentences.append(
                    f"Classes that are hardly found: {rows}: train longer (trainer.max_epochs), or give rare classes "
                    f"more weight (model.loss.class_weights)."
                )
            if missed := [name for name in true if name not in found]:
                sentences.append(f"Classes that are in the truth but never predicted: {', '.join(missed)}.")
        if invented := [name for name in found if name not in true]:
            which = "Classes that are predicted but never in the truth, which enter mIoU with 0"
            sentences.append(f"{which}: {', '.join(invented)}.")
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; what is not defined is None; ``class_weights`` (with the ``weighted_mIoU`` that
        they give) are there only where they are scored."""
        plain: dict[str, Any] = without_nan(asdict(self))
        if self.class_weights is None:
            del plain["class_weights"]
            return plain
        plain |= without_nan({"weighted_mIoU": self.headline["weighted_mIoU"]})
        return plain

    def table(self) -> RenderableType:
        """The numbers for the screen, 80 columns wide: ``rich.print(result.table())``."""
        from rich.console import Group

        summary = new_table("Semantic segmentation")
        for one, value, other, beside in (
            ("mIoU", self.mean_iou, "pixel accuracy", self.pixel_accuracy),
            ("boundary IoU", self.mean_boundary_iou, "mean accuracy", self.mean_accuracy),
            ("frequency-weighted IoU", self.frequency_weighted_iou, "mean Dice", self.mean_dice),
        ):
            summary.add_row(one, format_number(value), other, format_number(beside))
        footnote = (
            f"{self.num_images} images, {self.num_pixels} pixels, {self.num_ignored} more ignored. All numbers are "
            f"over all pixels together, none is a mean over images. Truth, pred.: fractions of the pixels. b.IoU: "
            f"boundary IoU. A class neither in the truth nor predicted enters no mean; one only predicted enters mIoU "
            f"with 0."
        )
        return Group(summary, self.class_table(), footnote)

    def class_table(self) -> Table:
        """The numbers of each class."""
        from rich.text import Text

        rows = new_table("By class", ("truth", "pred.", *_COLUMNS))
        for row in self.classes:
            nums = (row.num_pixels, row.num_predicted)
            fractions = (f"{num / self.num_pixels:.1%}" if self.num_pixels else "-" for num in nums)
            numbers = (format_number(getattr(row, attribute)) for attribute in _COLUMNS.values())
            rows.add_row(Text(row.name), *fractions, *numbers)
        return rows


def segmentation_result(
    names: tuple[str, ...],
    confusion: IntArray,
    band_overlaps: IntArray,
    num_images: int,
    num_ignored: int,
    class_weights: tuple[float, ...] | None = None,
) -> SegmentationResult:
    """Every number from (C, C) ``confusion``, rows truth, columns prediction, and (2, C) ``band_overlaps``, the
    intersections and unions of the bands; ``num_ignored`` pixels are not in ``confusion``."""
    counts = confusion.tolist()
    rows = []
    for k, name in enumerate(names):
        right, true, predicted = counts[k][k], sum(counts[k]), sum(row[k] for row in counts)
        rows.append(
            SegmentationClassResult(
                name=name,
                iou=ratio(right, true + predicted - right),
                dice=ratio(2 * right, true + predicted),
                precision=ratio(right, predicted),
                recall=ratio(right, true),
                boundary_iou=ratio(*band_overlaps[:, k].tolist()),
                num_pixels=true,
                num_predicted=predicted,
            )
        )
    num_pixels = sum(row.num_pixels for row in rows)
    weighted = sum(row.num_pixels * row.iou for row in rows if row.num_pixels)
    return SegmentationResult(
        mean_iou=mean_defined(row.iou for row in rows),
        pixel_accuracy=ratio(sum(counts[k][k] for k in range(len(rows))), num_pixels),
        mean_accuracy=mean_defined(row.recall for row in rows),
        frequency_weighted_iou=ratio(weighted, num_pixels),
        mean_dice=mean_defined(row.dice for row in rows),
        mean_boundary_iou=mean_defined(row.boundary_iou for row in rows),
        classes=tuple(rows),
        confusion=tuple(tuple(row) for row in counts),
        num_images=num_images,
        num_pixels=num_pixels,
        num_ignored=num_ignored,
        class_weights=class_weights,
    )
