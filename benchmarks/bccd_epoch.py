"""A whole epoch of training on real pictures beside ultralytics', loader included: BCCD, 320 px, batch 16.

Both read the 205 training images of the official split from disk with one worker, with mosaic in every sample, flips,
scaling, shifts and colours; ours trains in ``auto`` precision, theirs in float32, as either does by default on a CPU.
Neither validates, draws or saves.  Start-up is left out.

    python -m benchmarks.bccd_epoch
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.in_turn import Row, in_turn
from benchmarks.peer_process import ROOT, PeerProcess
from benchmarks.row_program import run_rows
from benchmarks.training import LIGHTNING_NAMES, PacedTraining
from detseg.config.load import config_from_dict
from detseg.training.setup.build import build_data, build_task, open_data
from detseg.training.setup.trainer import resolve_precision

DATA = ROOT.parent / "shared" / "data" / "bccd"
SIDE, BATCH, WORKERS = 320, 16, 1
OURS: dict[str, Any] = {
    "model": {"name": "yolo"},
    "data": {
        "name": "voc",
        "root": str(DATA),
        "image_size": SIDE,
        "batch_size": BATCH,
        "num_workers": WORKERS,
        "augmentation": {"mosaic": 1.0, "color": {"probability": 1.0}},
    },
    "optimizer": {"name": "adamw", "lr": 0.001},
}
THEIRS: dict[str, Any] = {
    "imgsz": SIDE, "batch": BATCH, "epochs": 100_000, "workers": WORKERS, "device": "cpu", "val": False,
    "plots": False, "save": False, "pretrained": False, "verbose": False, "optimizer": "AdamW", "exist_ok": True,
    "patience": 100_000,
}  # fmt: skip


def rows(blocks: int) -> Iterator[Row]:
    """Seconds of an epoch."""
    torch.set_num_threads(2)
    config = config_from_dict(OURS)
    train_set, val_set = open_data(config)
    task = build_task(config, train_set.classes, load_pretrained=False)
    precision = resolve_precision("auto", "cpu")
    with tempfile.TemporaryDirectory() as folder, PeerProcess("ultralytics_train.py") as peer:
        write_yolo_layout(train_set, Path(folder))
        settings = {**THEIRS, "data": f"{folder}/data.yaml", "project": f"{folder}/runs"}
        model = peer.ask("start", model="yolov8n.yaml", unit="epoch", settings=settings)
        data = build_data(config, train_set, val_set)
        training = PacedTraining(task, data, "epoch", precision=LIGHTNING_NAMES[precision])
        ours, theirs = in_turn(training.block(1), lambda: float(peer.ask("go_on", units=1)), blocks)
    yield Row(
        "training epoch, loader included",
        f"BCCD, {len(train_set)} images at {SIDE} px, batch {BATCH}, {WORKERS} worker, mosaic; ours {precision}",
        f"ultralytics {model['version']} yolov8n.yaml, float32",
        ours,
        theirs,
        "s",
        1.5,
        "each side's own augmentation",
    )


def write_yolo_layout(train_set: Any, folder: Path) -> None:
    """Links to the pictures, and the boxes that our reader found in ultralytics' documented text format."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i in range(len(train_set)):
        picture = Path(train_set.path(i))
        (folder / "images" / picture.name).symlink_to(picture.resolve())
        truth = train_set.annotations(i)
        height, width = train_set.hw(i)
        lines = [
            f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} "
            f"{(y2 - y1) / height:.6f}"
            for label, (x1, y1, x2, y2) in zip(truth.labels.tolist(), truth.boxes.tolist(), strict=True)
        ]
        (folder / "labels" / f"{picture.stem}.txt").write_text("\n".join(lines), encoding="utf-8")
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(train_set.classes.names))
    text = f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_rows(rows, __doc__, blocks=3)
