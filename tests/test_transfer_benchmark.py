"""The measurements of transfer learning: the one evaluator, and the tables of their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scores import box_scores, map_scores
from benchmarks.transfer import PAGE, PEERS, WRITERS, table_bccd
from benchmarks.transfer_runs import RUNS, TABLES
from detseg.data.formats.voc import read_voc, read_voc_masks
from tests.tiny import CLASSES, write_colors


def test_boxes_are_scored_by_their_truth(tmp_path: Path) -> None:
    dataset = read_voc(write_colors(tmp_path, {"train": 4}), "train", classes=CLASSES)
    truth = {dataset[i].image.tobytes(): dataset.annotations(i) for i in range(len(dataset))}

    def all_found(image: Any) -> Any:
        objects = truth[image.tobytes()]
        return objects.boxes, objects.labels, np.ones(len(objects.labels))

    assert box_scores(all_found, dataset) == {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    empty: Any = (np.zeros((0, 4)), np.zeros(0, dtype=np.int64), np.zeros(0))
    assert box_scores(lambda image: empty, dataset) == {"AP": 0.0, "AP50": 0.0}


def test_maps_are_scored_over_all_pixels_together(tmp_path: Path) -> None:
    dataset = read_voc_masks(write_colors(tmp_path, {"train": 4}), "train", classes=("ground", *CLASSES))
    maps = [dataset.semantic(i) for i in range(len(dataset))]
    grounds, counted = sum(int((m == 0).sum()) for m in maps), sum(int((m != 255).sum()) for m in maps)
    others = sum(bool(any((m == label).any() for m in maps)) for label in (1, 2, 3))
    found = map_scores(lambda image: np.zeros(image.shape[:2], dtype=np.uint8), dataset)
    assert found == {"mIoU": pytest.approx(grounds / counted / (1 + others))}  # IoU 0 of the other classes
    truth = {dataset[i].image.tobytes(): maps[i] for i in range(len(dataset))}
    assert map_scores(lambda image: truth[image.tobytes()] % 255, dataset) == {"mIoU": 1.0}


def test_every_table_has_its_place_and_a_row_for_its_runs() -> None:
    page, score = PAGE.read_text(encoding="utf-8"), {"AP": 0.125, "AP50": 0.5, "mIoU": 0.25, "loss": 7.0}
    result: dict[str, Any] = {
        "epoch_seconds": [5.0, 7.0],
        "epoch": 15,
        "scores": {"val": score, "test": score},
        "weights": ["9 of 9"],
        "images": 21,
    }
    results = {run: result | ({"version": "1.0"} if RUNS[run].maker in PEERS else {}) for run in RUNS}
    assert {run for runs in TABLES.values() for run in runs} == set(RUNS)
    rows = {"transfer_bccd": 7, "transfer_camvid": 6, "transfer_situations": 4, "fine_tuning": 3}
    for name, write in WRITERS.items():
        assert page.count(f"<!-- {name}: written by a program -->") == page.count(f"<!-- end of {name} -->") == 1
        assert len(write(results).splitlines()) == 2 + rows[name]
    assert "| torchvision 1.0, `FasterRCNN` | all trained | **0.125** | 0.500 | 0.125, 15 | 2 |" in table_bccd(results)
