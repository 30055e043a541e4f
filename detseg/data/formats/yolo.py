"""Reads and writes YOLO text."""

from __future__ import annotations

from pathlib import Path

from detseg.data.annotations.classes import Classes
from detseg.data.annotations.issues import DataReport
from detseg.data.datasets.detection import DetectionDataset


def read_yolo(
    root: Path | str,
    split: str = "train",
    classes: Classes = None,
    masks: bool = False,
    report: DataReport | None = None,
) -> DetectionDataset:
    """Read one split; image ids are 1 to I in the order of the paths.

    Args:
        root: the folder of the data.
        split: a key of ``data.yaml`` (``val`` is also found as ``valid`` or ``validation``), a folder, or a list of
            images in a text file.
        classes: see `detseg.read_voc`.
        masks: whether to read outlines, too.
        report: gets what is found; None: a new one, for which everything wrong is an error.

    Raises:
        DataError: a file is missing or wrong.
    """
    raise NotImplementedError
