"""COCO's numbers of a whole validation set, beside pycocotools: from our records to the numbers, and from its loaded
COCO objects through evaluate, accumulate and summarize.  The twelve numbers and every cell of the tables are compared.

    python -m benchmarks.coco_evaluation
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.coco_entries import as_coco
from benchmarks.in_turn import Row, in_turn, timed
from benchmarks.row_program import run_rows
from benchmarks.synthetic_detections import synthetic_records, with_ellipses
from detseg.metrics.coco import coco_numbers, coco_tables
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.records import DetectionRecords, MaskRecords
from detseg.structures import ClassTable, FloatArray

NUM_CLASSES = 80
CLASSES = ClassTable(tuple(f"class {k}" for k in range(NUM_CLASSES)))
PEER = f"pycocotools {version('pycocotools')}"


def rows(blocks: int) -> Iterator[Row]:
    """Boxes of 5000 images, all that our evaluator computes of them, and masks of 250 images."""
    records = synthetic_records(5000, 36_000, 500_000, NUM_CLASSES)
    work = "5000 images, 36 k objects, 500 k detections, 80 classes"
    peer = Peer(records)
    everything = DetectionEvaluator(CLASSES)
    everything.merge(records.to_state())
    numbers = partial(coco_numbers, records, CLASSES, 100)
    compute = timed(everything.compute)
    numbers()
    compute()
    all_of_ours: list[float] = []

    def theirs() -> float:  # its minute is measured once for both rows
        all_of_ours.append(compute())
        return timed(peer.evaluate)()

    ours, its = in_turn(timed(numbers), theirs, blocks, warm_up=0)
    peer.check(numbers().summary, coco_tables(records, CLASSES, 100))
    loading = f"its createIndex before that, {peer.seconds_of_index:.2g} s, is not counted"
    equal = "tables and numbers equal to the last bit"
    yield Row("COCO evaluation, boxes", work, PEER, ours, its, "s", wanted=8, note=f"{equal}; {loading}")
    note = "ours with VOC AP, best F1 and diagnosis on top"
    yield Row("DetectionEvaluator.compute", work, PEER, tuple(all_of_ours), its, "s", note=note)

    masks = with_ellipses(synthetic_records(250, 1800, 25_000, NUM_CLASSES))
    peer = Peer(masks)
    mask_numbers = partial(coco_numbers, masks, CLASSES, 100, "segm")
    ours, its = in_turn(timed(mask_numbers), timed(peer.evaluate), blocks + 1)
    peer.check(mask_numbers().summary, coco_tables(masks, CLASSES, 100, "segm"))
    work = "250 images, 1800 objects, 25 k detections, 80 classes"
    yield Row("COCO evaluation, masks", work, PEER, ours, its, "s", note=equal)


class Peer:
    """pycocotools with the records loaded, as it has them after reading two files."""

    def __init__(self, records: DetectionRecords) -> None:
        self._iou_type = "segm" if isinstance(records, MaskRecords) else "bbox"
        self._indices = [COCO(), COCO()]
        for index, dataset in zip(self._indices, as_coco(records, CLASSES), strict=True):
            index.dataset = dataset
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            for index in self._indices:
                index.createIndex()
        self.seconds_of_index = time.perf_counter() - begin
        self._evaluation: Any = None

    def evaluate(self) -> None:
        """Everything up to its summary."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation = COCOeval(*self._indices, iouType=self._iou_type)
            self._evaluation.evaluate()
            self._evaluation.accumulate()
            self._evaluation.summarize()

    def check(self, summary: dict[str, float], tables: tuple[FloatArray, FloatArray]) -> None:
        """Compare with what it found last, to the last bit."""
        precision, recall = tables
        np.testing.assert_array_equal(list(summary.values()), self._evaluation.stats)
        np.testing.assert_array_equal(precision, self._evaluation.eval["precision"][..., 2])
        np.testing.assert_array_equal(recall, self._evaluation.eval["recall"])


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=2)
