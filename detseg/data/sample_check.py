"""Whether a sample keeps the contract of training targets; asked of every sample of any source, in the loader.

A wrong box would show much later, as a loss that is not a number, without the name of the file that it came from.
"""

from __future__ import annotations

import numpy as np

from detseg.errors import DataError
from detseg.structures import ClassTable, Sample


def check_sample(sample: Sample, classes: ClassTable) -> None:
    """Refuse a sample whose boxes, labels or masks are not what a network can learn from.

    Args:
        sample: from any source.
        classes: the table that its labels refer to.

    Raises:
        DataError: a box is not finite or not inside the image, a label is not in the table, or the columns or masks do
            not fit together; it names the sample's path.
    """
    _check_columns(sample)
    height, width = sample.hw
    x1, y1, x2, y2 = sample.boxes.T
    inside = (x1 >= 0) & (x1 < x2) & (x2 <= width) & (y1 >= 0) & (y1 < y2) & (y2 <= height)  # NaN is not
    if not inside.all():
        row = int(np.argmin(inside))
        raise DataError(
            f"{sample.path}: object {row}: box: expected 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, got "
            f"{sample.boxes[row].tolist()}; correct the box, or have the source clip it or leave it out"
        )
    known = (sample.labels >= 0) & (sample.labels < len(classes))
    if not known.all():
        row = int(np.argmin(known))
        raise DataError(
            f"{sample.path}: object {row}: label: expected 0 to {len(classes) - 1}, the {len(classes)} classes of the "
            f"data set, got {int(sample.labels[row])}; correct the label or the class table"
        )


def _check_columns(sample: Sample) -> None:
    num = len(sample.labels)
    mend = "the source must give one of each for every object"
    for name, dtype, shape in (("boxes", "float32", (num, 4)), ("labels", "int64", (num,)), ("ignore", "bool", (num,))):
        column = getattr(sample, name)
        if column.dtype != dtype or column.shape != shape:
            raise DataError(
                f"{sample.path}: {name}: expected {dtype} of shape {shape}, got {column.dtype} of shape "
                f"{column.shape}; {mend}"
            )
    if sample.masks is None:
        return
    if len(sample.masks) != num:
        raise DataError(f"{sample.path}: masks: expected {num}, one for each object, got {len(sample.masks)}; {mend}")
    if sample.masks.hw != sample.hw:
        raise DataError(
            f"{sample.path}: masks: expected the image's size, height and width {sample.hw}, got {sample.masks.hw}; "
            "correct the annotation or bring back the image that it was made for"
        )
