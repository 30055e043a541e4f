"""Wrong labels planted in BCCD, and how many of them a report's suspects are.

    python -m benchmarks.label_errors        three seeds, and the section of docs/benchmarks.md (ten minutes)

Of all boxes 5 % are moved (by half their sides), removed or renamed, a third each. A YOLO is trained on the train split
with these, and looked at on the others.
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
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.formats.voc import read_voc
from detseg.evaluation.report.label_errors import Doubt, Suspect, suspects
from detseg.metrics.detection import DetectionEvaluator

CELLS = ("Platelets", "RBC", "WBC")
FRACTION = 0.05
FIRST = (50, 200)
KINDS = ("moved", "removed", "renamed")
Planted = tuple[str, int, tuple[float, ...]]


def main() -> None:
    """Plant, train, look, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
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
    marks = list[bool]()
    numbers: dict[str, Any] = {"seed": seed, "AP": trained.metrics["AP"], "planted": 0, "found": {}}
    listed = list[tuple[Suspect, str | None]]()
    for split in ("val", "test"):
        dataset = read_coco(DATA / "bccd", folder / f"{split}.json")
        evaluator = DetectionEvaluator(dataset.classes)
        for index in range(len(dataset)):
            evaluator.update(dataset.image_id(index), predictor(dataset.path(index)), dataset.annotations(index))
        result, records = evaluator.compute(), evaluator.records
        own = suspects(records, np.array(result.by_class["recall"]))
        numbers["planted"] += len(planted[split])
        left = list(planted[split])
        for suspect in own:
            listed.append((suspect, matched(suspect, records, left)))
    listed.sort(key=lambda pair: -pair[0].doubt)
    marks = [kind is not None for _, kind in listed]
    for number in FIRST:
        hits = sum(marks[:number])
        numbers[f"precision_{number}"], numbers[f"recall_{number}"] = hits / number, hits / numbers["planted"]
        numbers["found"][number] = {kind: sum(k == kind for _, k in listed[:number]) for kind in KINDS}
    numbers["doubts"] = {kind.value: sum(s.kind == kind for s, _ in listed[: FIRST[0]]) for kind in Doubt}
    return numbers


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


def matched(suspect: Suspect, records: Any, left: list[Planted]) -> str | None:
    """The kind of the planted error that a suspect is, which then is no longer ``left``."""
    box = records.detection_boxes[suspect.detection] if suspect.object < 0 else records.object_boxes[suspect.object]
    for place, (kind, image_id, planted) in enumerate(left):
        if image_id != suspect.image_id or (kind == "removed") != (suspect.object < 0):
            continue
        if suspect.object >= 0:
            same = np.allclose(box, planted, atol=0.01)
        else:
            sides = np.minimum(box[2:], planted[2:]) - np.maximum(box[:2], planted[:2])
            inside = sides.clip(min=0).prod()
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, planted)]
            same = inside / (sum(areas) - inside) >= 0.5
        if same:
            del left[place]
            return kind
    return None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["seed", "AP", "planted", *(f"{what} of the first {n}" for n in FIRST for what in ("precision", "recall"))]
    lines = [
        f"| {' | '.join(head)} | moved, removed, renamed of the first {FIRST[-1]} |",
        "|---" * (len(head) + 1) + "|",
    ]
    for row in rows:
        numbers = [f"{row[f'{what}_{n}']:.2f}" for n in FIRST for what in ("precision", "recall")]
        found = ", ".join(str(row["found"][FIRST[-1]][kind]) for kind in KINDS)
        lines.append(f"| {row['seed']} | {row['AP']:.3f} | {row['planted']} | {' | '.join(numbers)} | {found} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
