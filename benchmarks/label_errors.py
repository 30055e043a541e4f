"""Wrong labels planted in BCCD, and how many of them a report's suspects are.

    python -m benchmarks.label_errors        three seeds, and the section of docs/benchmarks.md (ten minutes)

Of all boxes 5 % are moved (by half their sides), removed or renamed, a third each. A YOLO is trained on the train split
with these, and looked at on the others. BCCD lacks labels of its own: the second precision leaves out those suspects
that the published labels raise as well.
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
from detseg.evaluation.report.label_errors import Suspect, suspects
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
    listed = list[tuple[Suspect, str | None, bool]]()
    for split in ("val", "test"):
        published = read_voc(DATA / "bccd", split, classes=CELLS)
        (own, records), (others, other_records) = (
            _suspects(predictor, dataset) for dataset in (read_coco(DATA / "bccd", folder / f"{split}.json"), published)
        )
        known = {(s.image_id, s.kind): list[Any]() for s in others}
        for suspect in others:
            known[suspect.image_id, suspect.kind].append(_box(suspect, other_records))
        left = list(planted[split])
        numbers["planted"] += len(left)
        for suspect in own:
            box = _box(suspect, records)
            boxes = known.get((suspect.image_id, suspect.kind), [])
            raised = any(_iou(box, other) > 0.99 for other in boxes)
            listed.append((suspect, matched(suspect, records, left), raised))
    listed.sort(key=lambda row: -row[0].doubt)
    for number in FIRST:
        first = [(kind, raised) for _, kind, raised in listed[:number]]
        hits = sum(kind is not None for kind, _ in first)
        old = sum(kind is None and raised for kind, raised in first)
        numbers[f"precision_{number}"], numbers[f"recall_{number}"] = hits / number, hits / numbers["planted"]
        numbers[f"of_new_{number}"] = hits / max(number - old, 1)
        numbers[f"found_{number}"] = {kind: sum(k == kind for k, _ in first) for kind in KINDS}
    return numbers


def _suspects(predictor: Any, dataset: DetectionDataset) -> tuple[list[Suspect], DetectionRecords]:
    evaluator = DetectionEvaluator(dataset.classes)
    for index in range(len(dataset)):
        evaluator.update(dataset.image_id(index), predictor(dataset.path(index)), dataset.annotations(index))
    return suspects(evaluator.records, np.array(evaluator.compute().by_class["recall"])), evaluator.records


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
    what = {"precision": "precision", "of_new": "without old doubts", "recall": "recall"}
    head = ["seed", "AP", "planted", *(f"{text}, first {number}" for number in FIRST for text in what.values())]
    lines = [f"| {' | '.join(head)} | {', '.join(KINDS)} of the first {FIRST[-1]} |", "|---" * (len(head) + 1) + "|"]
    for row in rows:
        numbers = [f"{row[f'{key}_{number}']:.2f}" for number in FIRST for key in what]
        found = ", ".join(str(row[f"found_{FIRST[-1]}"][kind]) for kind in KINDS)
        lines.append(f"| {row['seed']} | {row['AP']:.3f} | {row['planted']} | {' | '.join(numbers)} | {found} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
