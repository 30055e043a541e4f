"""Wrong labels planted in BCCD, and how many of them a report's suspects are.

    python -m benchmarks.label_errors        three seeds, and the section of docs/benchmarks.md (ten minutes)

Of all boxes 5 % are moved (by half their sides), removed or renamed, a third each. A YOLO is trained on the train split
with these, and looked at on the others. BCCD lacks labels of its own, so that a suspect of no planted error
may well be right.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import detseg
from benchmarks.comparison import DATA, ROOT, measured_on, write_results
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.formats.voc import read_voc
from detseg.evaluation.report.detection_page import LEARNED
from detseg.evaluation.report.label_errors import Doubt, Suspect, suspects
from detseg.metrics.detection import DetectionEvaluator
from detseg.metrics.error_kinds import pairwise_ious
from detseg.metrics.records import DetectionRecords

CELLS = ("Platelets", "RBC", "WBC")
FRACTION = 0.05
FIRST = (50, 200)
KINDS = ("moved", "removed", "renamed")
Planted = tuple[str, int, tuple[float, ...]]


def main() -> None:
    """Plant, train, look, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run(Path(folder), seed, arguments.epochs))
        print(rows[-1], flush=True)
    text = f"{arguments.seeds} seeds, {arguments.epochs} epochs: {measured_on()}\n\n{table(rows)}"
    write_results(ROOT / "docs" / "benchmarks.md", "label_errors", text)


def run(folder: Path, seed: int, max_epochs: int) -> dict[str, Any]:
    """Numbers of a seed."""
    rng = np.random.default_rng(seed)
    planted = {split: plant(split, folder / f"{split}.json", rng) for split in ("train", "val", "test")}
    settings: dict[str, Any] = {"data.name": "coco", "data.root": str(DATA / "bccd"), "data.image_size": [256, 320]}
    settings |= {f"data.{split}_images": "." for split in ("train", "val")}
    settings |= {f"data.{split}_annotations": str(folder / f"{split}.json") for split in ("train", "val")}
    settings |= {"trainer.num_previews": 0, "seed": seed}
    logging.getLogger("detseg").setLevel(logging.WARNING)
    trained = detseg.train(
        ROOT / "configs" / "yolo_bccd.yaml", max_epochs=max_epochs, run_dir=folder / "run", settings=settings
    )
    predictor: Any = detseg.load_predictor(trained.best_checkpoint, score_threshold=0.01)
    numbers: dict[str, Any] = {"seed": seed, "AP": trained.metrics["AP"], "planted": 0}
    listed = list[tuple[Suspect, str | None]]()
    for split in ("val", "test"):
        own, records = _suspects(predictor, read_coco(DATA / "bccd", folder / f"{split}.json"))
        left = list(planted[split])
        numbers["planted"] += len(left)
        listed += [(suspect, matched(suspect, records, left)) for suspect in own]
    listed.sort(key=lambda row: -row[0].doubt)
    for number in FIRST:
        first = listed[:number]
        hits = sum(kind is not None for _, kind in first)
        numbers[f"precision_{number}"], numbers[f"recall_{number}"] = hits / number, hits / numbers["planted"]
    for doubt in Doubt:
        of_kind = [kind is not None for suspect, kind in listed[: FIRST[-1]] if suspect.kind == doubt]
        numbers[doubt.value] = f"{sum(of_kind)} of {len(of_kind)}"
    return numbers


def _suspects(predictor: Any, dataset: DetectionDataset) -> tuple[list[Suspect], DetectionRecords]:
    evaluator = DetectionEvaluator(dataset.classes)
    for index in range(len(dataset)):
        evaluator.update(dataset.image_id(index), predictor(dataset.path(index)), dataset.annotations(index))
    by_class = evaluator.compute().by_class
    recalls, ap50 = (np.array(by_class[name]) for name in ("recall", "AP50"))
    return suspects(evaluator.records, recalls, ap50 >= LEARNED), evaluator.records


def _box(suspect: Suspect, records: DetectionRecords) -> Any:
    found = suspect.object < 0
    return records.detection_boxes[suspect.detection] if found else records.object_boxes[suspect.object]


def _iou(one: Any, other: Any) -> float:
    return float(pairwise_ious(np.array([one]), np.array([other]))[0, 0])


def plant(split: str, file: Path, rng: np.random.Generator) -> list[Planted]:
    """Write a COCO file of a split with wrong labels; kind, image and box of each (of a moved one the new box)."""
    content = coco_ground_truth(read_voc(DATA / "bccd", split, classes=CELLS))
    entries = content["annotations"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    chosen = rng.choice(len(entries), round(FRACTION * len(entries)), replace=False).tolist()
    found, removed = list[Planted](), set[int]()
    for turn, number in enumerate(chosen):
        entry, kind = entries[number], KINDS[turn % len(KINDS)]
        x, y, w, h = entry["bbox"]
        if kind == "removed":
            removed.add(number)
        elif kind == "renamed":
            others = [row["id"] for row in content["categories"] if row["id"] != entry["category_id"]]
            entry["category_id"] = int(rng.choice(others))
        else:
            width, height = sizes[entry["image_id"]]
            x = x + w / 2 if x + 1.5 * w <= width else max(x - w / 2, 0)
            y = y + h / 2 if rng.random() < 0.5 and y + 1.5 * h <= height else y
            entry["bbox"] = [x, y, w, h]
        found.append((kind, entry["image_id"], (x, y, x + w, y + h)))
    content["annotations"] = [entry for number, entry in enumerate(entries) if number not in removed]
    file.write_text(json.dumps(content), encoding="utf-8")
    return found


def matched(suspect: Suspect, records: DetectionRecords, left: list[Planted]) -> str | None:
    """The kind of the planted error that a suspect is, which then is no longer ``left``."""
    box = _box(suspect, records)
    for place, (kind, image_id, planted) in enumerate(left):
        if image_id != suspect.image_id or (kind == "removed") != (suspect.object < 0):
            continue
        if _iou(box, planted) >= (0.5 if kind == "removed" else 0.99):
            del left[place]
            return kind
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    what = ("precision", "recall")
    head = ["seed", "AP", "planted", *(f"{text}, first {number}" for number in FIRST for text in what), *Doubt]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        numbers = [f"{row[f'{text}_{number}']:.2f}" for number in FIRST for text in what]
        of_kinds = [row[doubt.value] for doubt in Doubt]
        cells = [str(row["seed"]), f"{row['AP']:.3f}", str(row["planted"]), *numbers, *of_kinds]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
