"""Every export of trained models beside its checkpoint: does it work, what does it lose, how large and how fast is it.

    python -m benchmarks.exports runs/boxes runs/masks runs/maps --threads 2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python -m benchmarks.exports ...   as on a CPU without AVX-512

A row is appended to ``benchmarks/exports.jsonl`` as soon as it is there, and what has one is not measured again. The
change of the metric is the certificate's, on all images of the split. Latencies are those of predictors, from decoded
images to results in their pixels, with so many threads for torch, ONNX Runtime, OpenVINO and OpenCV alike; blocks of
export and checkpoint follow each other in turn. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.comparison import ROOT, in_turn, measured_on, spread, timed
from detseg.checkpoint import read_model_checkpoint
from detseg.config.load import config_from_dict
from detseg.data.build import Split, resolve_data
from detseg.evaluation.run import evaluation_config, open_split_for
from detseg.export.files import ProgramEngine
from detseg.export.options import PRECISIONS, SUFFIX, Format, Precision
from detseg.export.run import certificate_of, export_checkpoint
from detseg.memory import keep_freed_memory
from detseg.messages import one_line
from detseg.predict import ImagePredictor, load_predictor
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.predictor import ExportedPredictor, ExportedSegmentationPredictor, load_exported
from detseg.structures import UInt8Array

RESULTS = ROOT / "benchmarks" / "exports.jsonl"
FORMATS: tuple[Format, ...] = ("onnx", "openvino", "torch")
BATCHES = (1, 8)
NUM_IMAGES = 16  # of the latencies
CPU = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
"""The instructions that oneDNN, which torch and OpenVINO compute with, may use; ONNX Runtime cannot be told."""
TOLERANCE, BEYOND = 0.01, "²"
"""What `detseg export` lets an export lose by default, and the sign of rows that lose more."""

Result = dict[str, Any]
"""Of a run, format and precision on a kind of CPU: ``error``, or ``certificate``, and by batch size the milliseconds an
image of each block, of the export (``ours``) and of the checkpoint (``eager``)."""


def main() -> None:
    """Measure what has no row yet, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each side (2)")
    parser.add_argument("--blocks", type=int, default=7, metavar="N", help="of each latency (7)")
    parser.add_argument("--file", type=Path, default=RESULTS, help="the rows (benchmarks/exports.jsonl)")
    arguments = parser.parse_args()
    if CPU != "all":
        _forbid_bfloat16()
    keep_freed_memory()  # as the commands do it
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    rows = read_rows(arguments.file)
    for run in arguments.runs:
        for form in arguments.formats:
            for precision in PRECISIONS[form]:
                key = (run.name, form, precision, CPU, arguments.threads)
                if not any(key_of(row) == key for row in rows):
                    row = dict(zip(KEY, key, strict=True)) | measured(
                        run, form, precision, arguments.split, arguments.threads, arguments.blocks
                    )
                    with arguments.file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                    rows.append(row)
    print(table(rows))


def _forbid_bfloat16() -> None:
    """OpenVINO asks the CPU for it, and not oneDNN, which then has no kernels."""
    import openvino

    compile_model, full = openvino.Core.compile_model, {"INFERENCE_PRECISION_HINT": "f32"}

    def compiled(core: Any, model: Any, device_name: str = "CPU", config: dict[str, Any] | None = None) -> Any:
        return compile_model(core, model, device_name, {**(config or {}), **full})

    openvino.Core.compile_model = compiled


KEY = ("run", "format", "precision", "cpu", "threads")


def read_rows(file: Path) -> list[Result]:
    """What was measured before."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def key_of(row: Result) -> tuple[Any, ...]:
    """What tells rows apart."""
    return tuple(row[name] for name in KEY)


def measured(run: Path, form: Format, precision: Precision, split: Split, threads: int, blocks: int) -> Result:
    """One row; an export that fails is a row, too."""
    checkpoint = read_model_checkpoint(run)
    model = config_from_dict(checkpoint.config, str(run)).model.name
    row: Result = {"model": model, "split": split, "measured_on": measured_on()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"export{SUFFIX[form]}"
        try:
            export_checkpoint(run, form, path, precision=precision, split=split, tolerance=1.0)
            row |= _latencies(run, path, split, threads, blocks)
        except Exception as error:  # whatever exporters and engines raise is what the table says
            return row | {"error": one_line(error)}
        certificate = json.loads(certificate_of(path).read_text(encoding="utf-8"))
        return row | {"certificate": certificate | {"checkpoint": Path(certificate["checkpoint"]).name}}


def _latencies(run: Path, path: Path, split: Split, threads: int, blocks: int) -> Result:
    eager, exported = load_predictor(run, "cpu"), _exported(path, threads)
    images = _images(run, split, eager)
    found: Result = {}
    for batch in BATCHES:
        mine, other = (
            timed(partial(_predict, predictor, images, batch), len(images), 1000) for predictor in (exported, eager)
        )
        ours, theirs = in_turn(mine, other, blocks)
        found[f"batch {batch}"] = {"ours": ours, "eager": theirs}
    return found


def _exported(path: Path, threads: int) -> ImagePredictor[Any]:
    if path.suffix != ".pt2":
        return load_exported(path, "cpu", threads=threads)
    engine = ProgramEngine(path)
    description = Description.from_metadata(engine.metadata, str(path))
    if description.task == "semantic":
        return ExportedSegmentationPredictor(engine, description)
    return ExportedPredictor(engine, description)


def _images(run: Path, split: Split, predictor: ImagePredictor[Any]) -> list[UInt8Array]:
    contents = read_model_checkpoint(run)
    config = resolve_data(evaluation_config(contents.config, str(run), ()))
    dataset = open_split_for(config, split, contents.classes, run)
    return [predictor.read(dataset.path(index)) for index in range(min(NUM_IMAGES, len(dataset)))]


def _predict(predictor: ImagePredictor[Any], images: Sequence[UInt8Array], batch: int) -> None:
    predictor(list(images), batch_size=batch)


def table(rows: Sequence[Result]) -> str:
    """All rows in Markdown, and below it what failed."""
    heads = ["model (run)", "format", "precision", "CPU", "checkpoint", "change (95 %)", "boxes, px", "MB"]
    heads += (f"ms at batch {batch}: export, checkpoint, ratio" for batch in BATCHES)
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    beyond = f"{BEYOND} beyond the default tolerance of {TOLERANCE:g}: `detseg export` refuses it without `--tolerance`"
    notes: list[str] = []
    for row in rows:
        cells = [f"{row['model']} ({row['run']})", row["format"], row["precision"], row["cpu"]]
        if "error" in row:
            notes.append(f"{cells[0]}, {row['format']}, {row['precision']}: {row['error']}")
            cells += [f"fails [{len(notes)}]", *[""] * (len(heads) - len(cells) - 1)]
        else:
            cells += _cells(row)
            if row["format"] == "onnx" and row["cpu"] != "all":
                cells[3] = "all (ONNX Runtime has no such switch); " + cells[3]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", beyond, *(f"{number}. {note}" for number, note in enumerate(notes, start=1))]).strip()


def _cells(row: Result) -> list[str]:
    said = row["certificate"]
    changes = []
    for one in said["changes"]:
        ends = "" if one["low"] is None else f" ({one['low']:+.4f} to {one['high']:+.4f})"
        changes.append(f"{one['change']:+.4f}{ends}" + f" {BEYOND}" * (one["change"] < -TOLERANCE))
    box = said["box_error"]
    cells = ["; ".join(f"{one['metric']} {one['original']:.3f}" for one in said["changes"]), "; ".join(changes)]
    cells.append(f"{box:.2g}" if box is not None else "none compared" if said.get("matched") == 0 else "")
    cells.append(f"{said['bytes'] / 1e6:.1f}")
    for batch in BATCHES:
        times = row[f"batch {batch}"]
        ratios = [eager / ours for ours, eager in zip(times["ours"], times["eager"], strict=True)]
        cells.append(
            f"{spread(times['ours'])}, {spread(times['eager'])}, **{spread(ratios, '.2f').replace(' (', '** (')}"
        )
    return cells


if __name__ == "__main__":
    main()
