"""Transfer learning in figures: one ImageNet backbone in our hands and in the peers', detectors taken to other data.

    python -m benchmarks.transfer                    every run that has no result yet, then the tables
    python -m benchmarks.transfer --time             how long an epoch of each takes, in turn; nothing else should run
    python -m benchmarks.transfer --only NAME ...    some tables with their runs, or some runs
    python -m benchmarks.transfer --small            an epoch on few images of each; nothing is written: do they run?

A result is appended to ``benchmarks/transfer.jsonl`` as soon as it is there, and a run that has one is not run again:
some may run on one day and the rest on another. docs/benchmarks.md says what is compared.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import detseg
from benchmarks.comparison import DATA, ROOT, measured_on, write_results
from benchmarks.scores import box_scores, map_scores
from benchmarks.transfer_runs import BACKBONE, BATCH, FOLDER, RUNS, TABLES, WAYS, Run
from detseg.checkpoint.provenance import read_run_file
from detseg.config.load import load_config
from detseg.config.schema.model import FasterRcnnConfig
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.coco_writer import coco_ground_truth
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.training.callbacks.run_files import best_epoch

PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "transfer.jsonl"
PEERS = {"torchvision": "torchvision", "smp": "segmentation-models-pytorch"}
CELLS = ("Platelets", "RBC", "WBC")
AnySet = DetectionDataset | SegmentationDataset
Result = dict[str, Any]
"""Of a run: ``minutes`` with whatever ran beside it, and ``epoch_seconds`` without; ``epoch``, the best one; its
``scores`` (split → metric → value, the one it was chosen by first); ``weights``, what the log says of them;
``measured_on``; of ours also the number of training ``images``."""


def main() -> None:
    """Run what has no result, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*TABLES, *RUNS], default=[*TABLES], metavar="NAME")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "transfer", help="where the runs go")
    parser.add_argument("--time", action="store_true", help="time an epoch of each, twice")
    parser.add_argument("--small", action="store_true", help="an epoch on few images, in a temporary folder")
    arguments = parser.parse_args()
    tables = [name for name in arguments.only if name in TABLES]
    wanted = {*arguments.only, *(run for name in tables for run in TABLES[name])}
    if arguments.small:
        with tempfile.TemporaryDirectory() as folder:
            run_all(wanted, Path(folder), Path(folder) / RESULTS.name, small=True)
        return
    if arguments.time:
        time_all([run for name in ("transfer_bccd", "transfer_camvid") for run in TABLES[name]])
        return
    results = run_all(wanted, arguments.folder.resolve(), RESULTS, small=False)
    for name in tables:
        places = dict.fromkeys(results[run]["measured_on"] for run in TABLES[name])
        write_results(PAGE, name, f"`{name}`: {' And: '.join(places)}\n\n{WRITERS[name](results)}")


def run_all(wanted: set[str], folder: Path, file: Path, small: bool) -> dict[str, Result]:
    """Do the wanted runs that ``file`` has no result of, in the order of ``RUNS``; all results by run."""
    folder.mkdir(parents=True, exist_ok=True)
    results = read_results(file)
    write_four_classes(folder)
    for name in RUNS:
        if name not in wanted or "scores" in results.get(name, {}):
            continue
        print(f"== {name}", flush=True)
        run = RUNS[name]
        result = train_peer(run, small) if run.maker in PEERS else train_ours(run, folder / name, small)
        append_result(file, {"run": name, **result, "measured_on": measured_on()})
    return read_results(file)


def read_results(file: Path) -> dict[str, Result]:
    """All results by run, of one or more rows each."""
    results: dict[str, Result] = {}
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines() if file.exists() else ()):
        results.setdefault(row["run"], {}).update(row)
    return results


def append_result(file: Path, row: Result) -> None:
    """Keep a row."""
    print(row, flush=True)
    with file.open("a", encoding="utf-8") as rows:
        rows.write(json.dumps(row) + "\n")


def time_all(names: list[str]) -> None:
    """Time the second epoch of each on a quarter of the images, without validation, twice in turn; where the backbone
    is unfrozen on the way there is no second epoch that stands for all."""
    seconds: dict[str, list[float]] = {name: [] for name in names if not name.endswith("_gradual")}
    for _ in range(2):
        for name in seconds:
            run = RUNS[name]
            one, two = (_seconds(replace(run, max_epochs=epochs)) for epochs in (1, 2))
            seconds[name].append((two - one) * _OF_EACH)
            append_result(RESULTS, {"run": name, "epoch_seconds": seconds[name], "timed_on": measured_on()})


_OF_EACH = 4  # images, one is trained on where epochs are timed


def _seconds(run: Run) -> float:
    """Of a whole training with one validation, if it is ours; of a peer its epochs alone."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        if run.maker not in PEERS:
            settings = {**run.settings, "data.fraction": 1 / _OF_EACH}
            train_ours(replace(run, data=None, settings=settings), Path(folder) / "run", small=False)
            return time.perf_counter() - begin
    assert run.data is not None
    dataset = _open(run.data, "train", small=False)
    for _ in _peer(run.maker, dataset.subset(range(0, len(dataset), _OF_EACH)), run.max_epochs).epochs():
        pass
    return time.perf_counter() - begin


def train_ours(run: Run, run_dir: Path, small: bool) -> Result:
    """A training by ``detseg.train``, whose best checkpoint is scored by the evaluator that scores the peers."""
    shutil.rmtree(run_dir, ignore_errors=True)  # of a run that was stopped
    settings: dict[str, Any] = {"trainer.validate_every": run.validate_every, "trainer.num_previews": 0}
    for key, value in run.settings.items():
        settings[key] = value.replace(FOLDER, str(run_dir.parent)) if isinstance(value, str) else value
    if small:
        settings |= {"data.fraction": 0.1, "trainer.validate_every": 1}
    weights: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        weights.extend([text.split(": ", 2)[2]] if text.startswith("weights") else [])  # without the path
        return True

    logger, config = logging.getLogger("detseg"), ROOT / "configs" / f"{run.maker}.yaml"
    logger.addFilter(keep)
    begin = time.perf_counter()
    trained = detseg.train(config, max_epochs=1 if small else run.max_epochs, run_dir=run_dir, settings=settings)
    logger.removeFilter(keep)
    minutes = (time.perf_counter() - begin) / 60
    scores = {"val": {trained.criterion: trained.metrics[trained.criterion], **trained.metrics}}
    if run.data is not None:
        scores = scores_of(trained.best_checkpoint, run.data, small)
    row = best_epoch(run_dir / "metrics.csv", f"val/{trained.criterion}")
    images = read_run_file(run_dir)["starts"][-1]["data"]["train"]["images"]
    return {"minutes": minutes, "epoch": int(row["epoch"]), "scores": scores, "weights": weights, "images": images}


def scores_of(checkpoint: Path, data: str, small: bool) -> dict[str, dict[str, float]]:
    """Of all that a model of ours finds: a detector's threshold is for pictures, and would cost AP."""
    threshold = None if data == "camvid" else 0.0
    predictor: Any = detseg.load_predictor(checkpoint, score_threshold=threshold)

    def find(image: Any) -> Any:
        found = predictor(image)
        return found.labels if data == "camvid" else (found.boxes, found.labels, found.scores)

    return {split: _score(find, _open(data, split, small)) for split in _splits(data)}


def train_peer(run: Run, small: bool) -> Result:
    """A training of a peer, validated as often as ours. Splits other than ``val`` are scored outside the clock."""
    assert run.data is not None
    torch.manual_seed(0)
    train_set = _open(run.data, "train", small)
    epochs = 1 if small else run.max_epochs
    peer, seconds, begin, best = _peer(run.maker, train_set, epochs), 0.0, time.perf_counter(), -1.0
    result: Result = {"version": version(PEERS[run.maker]), "weights": []}
    for epoch in peer.epochs():
        if epoch % run.validate_every and epoch < epochs:
            continue
        scores = {"val": _score(peer, _open(run.data, "val", small))}
        seconds += time.perf_counter() - begin
        print(f"epoch {epoch}: {scores}", flush=True)
        if (value := next(iter(scores["val"].values()))) > best:
            best = value
            scores |= {split: _score(peer, _open(run.data, split, small)) for split in _splits(run.data)[1:]}
            result |= {"epoch": epoch, "scores": scores}
        begin = time.perf_counter()
    return {"minutes": seconds / 60, **result}


def _peer(name: str, train_set: Any, max_epochs: int) -> Any:
    """The peer, on the same images, backbone and batches; torchvision's with the sizes of our Faster R-CNN."""
    if name == "smp":
        from benchmarks.peers.smp_unet import SmpUnet  # whose packages runs of ours need not have

        return SmpUnet(train_set, BACKBONE, BATCH, max_epochs)
    from benchmarks.peers.torchvision_rcnn import TorchvisionRCNN

    model = load_config(ROOT / "configs" / "faster_rcnn_bccd.yaml").model
    assert isinstance(model, FasterRcnnConfig) and model.neck.channels is not None  # noqa: PT018  # for mypy
    sizes = {"min_size": 240, "max_size": 320, "box_batch_size_per_image": model.roi_heads.batch_size_per_image}
    sizes["rpn_batch_size_per_image"] = model.rpn.batch_size_per_image
    for when, suffix in (("train", "_train"), ("test", "")):
        sizes |= {
            f"rpn_{key}_top_n_{when}": getattr(model.rpn, f"{key}_top_n{suffix}") for key in ("pre_nms", "post_nms")
        }
    return TorchvisionRCNN(train_set, BACKBONE, BATCH, max_epochs, model.neck.channels, model.roi_heads.hidden, sizes)


def _splits(data: str) -> tuple[str, ...]:
    return ("val", "test") if data == "bccd" else ("val",)


def _open(data: str, split: str, small: bool) -> AnySet:
    """A split; its first images where ``small``."""
    dataset: AnySet = (
        read_voc(DATA / "bccd", split, classes=CELLS)
        if data == "bccd"
        else read_voc_masks(DATA / "camvid_small", split)
    )
    return dataset.subset(range(2 * BATCH)) if small else dataset


def _score(find: Any, dataset: AnySet) -> dict[str, float]:
    return box_scores(find, dataset) if isinstance(dataset, DetectionDataset) else map_scores(find, dataset)


def write_four_classes(folder: Path) -> None:
    """BCCD with four classes as COCO files: WBC renamed to leukocyte, RBC at the edge of the image a class apart."""
    for split in ("train", "val"):
        content = coco_ground_truth(read_voc(DATA / "bccd", split, classes=CELLS))
        ids = {category["name"]: category["id"] for category in content["categories"]}
        next(row for row in content["categories"] if row["name"] == "WBC")["name"] = "leukocyte"
        content["categories"].append({"id": max(ids.values()) + 1, "name": "RBC at the edge"})
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            right, bottom = sizes[entry["image_id"]]
            if entry["category_id"] == ids["RBC"] and (
                min(x, y) < 2 or x + width > right - 2 or y + height > bottom - 2
            ):
                entry["category_id"] = max(ids.values()) + 1
        (folder / f"four_classes_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def table_bccd(results: dict[str, Result]) -> str:
    """Detectors with an ImageNet backbone."""
    rows = [["model", "backbone", "AP", "AP50", "AP on `val`, best epoch", "minutes"]]
    for name in TABLES["transfer_bccd"]:
        result, way = results[name], WAYS.get(name.partition("_")[2], WAYS["trained"])
        model = "detseg, YOLO" if name.startswith("yolo") else "detseg, Faster R-CNN"
        if "version" in result:
            model = f"torchvision {result['version']}, `FasterRCNN`"
        test, best = result["scores"]["test"], f"{result['scores']['val']['AP']:.3f}, {result['epoch']}"
        rows.append([model, way, f"**{test['AP']:.3f}**", f"{test['AP50']:.3f}", best, minutes(name, result)])
    return markdown(rows)


def table_camvid(results: dict[str, Result]) -> str:
    """Segmenters with an ImageNet backbone."""
    rows = [["model", "backbone", "mIoU", "best epoch", "minutes"]]
    for name in TABLES["transfer_camvid"]:
        result, way = results[name], WAYS.get(name.partition("_")[2], WAYS["trained"])
        peer = f"segmentation-models-pytorch {result['version']}, `Unet`" if "version" in result else None
        numbers = [f"**{result['scores']['val']['mIoU']:.3f}**", str(result["epoch"]), minutes(name, result)]
        rows.append([peer or "detseg, U-Net", way, *numbers])
    return markdown(rows)


def table_situations(results: dict[str, Result]) -> str:
    """Little or much data, like the photographs of ImageNet or not, by the use of the backbone's weights."""
    rows = [["data", "images", "epochs", *WAYS.values()]]
    for run, split, what in (
        ("few_unet", "val", "CamVid, mIoU"),
        ("unet", "val", "CamVid, mIoU"),
        ("few_yolo", "test", "BCCD, AP"),
        ("yolo", "test", "BCCD, AP"),
    ):
        images = results[f"{run}_trained"]["images"]
        numbers = [next(iter(results[f"{run}_{way}"]["scores"][split].values())) for way in WAYS]
        cells = [f"**{value:.3f}**" if value == max(numbers) else f"{value:.3f}" for value in numbers]
        rows.append([what, str(images), str(RUNS[f"{run}_trained"].max_epochs), *cells])
    return markdown(rows)


def table_fine_tuning(results: dict[str, Result]) -> str:
    """Detectors of ours taken to other classes."""
    rows = [["from", "to", "tensors", "AP, loss on `val`, best of 5 epochs", "from random weights"]]
    for before, after, taken, scratch in (
        ("BCCD, 3 classes", "BCCD, 4 classes", "cells_four_classes", "scratch_four_classes"),
        ("BCCD, 3 classes", "coco_mini, 80 classes", "cells_photographs", "scratch_photographs"),
        ("coco_mini, 80 classes", "BCCD, 3 classes", "photographs_cells", "scratch_cells"),
    ):
        numbers = [results[name]["scores"]["val"] for name in (taken, scratch)]
        cells = [f"{score['AP']:.3f}, {score['loss']:.2f}" for score in numbers]
        rows.append([before, after, "; ".join(results[taken]["weights"]), *cells])
    return markdown(rows)


def minutes(name: str, result: Result) -> str:
    """Of the training alone, on an idle machine; whole ones, since two timings differ by up to a third."""
    seconds = result.get("epoch_seconds")
    return "-" if seconds is None else f"{statistics.median(seconds) * RUNS[name].max_epochs / 60:.0f}"


def markdown(rows: list[list[str]]) -> str:
    """A table, of its head and its rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


WRITERS: dict[str, Callable[[dict[str, Result]], str]] = {
    "transfer_bccd": table_bccd,
    "transfer_camvid": table_camvid,
    "transfer_situations": table_situations,
    "fine_tuning": table_fine_tuning,
}

if __name__ == "__main__":
    main()
