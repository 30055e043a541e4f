"""Predictions and training steps with memory that is kept, and without: see ``detseg.memory.keep_freed_memory``.

    python -m benchmarks.kept_memory runs/boxes=photos/ runs/maps=streets/ --configs yolo_bccd unet_nuclei

Each number is of a process of its own, those with and without in turn: images a second of a predictor, from files, in
batches; and milliseconds of a training step as ``detseg benchmark --synthetic`` measures it. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.comparison import ROOT, in_turn, measured_on, spread
from benchmarks.service import bare_rate
from detseg.data.images.find import find_images
from detseg.memory import keep_freed_memory
from detseg.predict import load_predictor

BATCHES = (1, 8)
NUM_IMAGES = 64
AS_BY_DEFAULT = {**os.environ, "MALLOC_PERTURB_": "0"}
"""Any such variable has the C library do what it does by default; this one changes nothing."""


def main() -> None:
    """Print a table; ``--rate`` is for its own processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="RUN=IMAGES", help="run directories and folders of images")
    parser.add_argument("--configs", nargs="*", default=[], help="files of configs/")
    parser.add_argument("--blocks", type=int, default=5, metavar="N", help="of each number (5)")
    parser.add_argument("--rate", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rate:
        keep_freed_memory()
        model, _, images = arguments.models[0].partition("=")
        files = [Path(images) / name for name in find_images(Path(images))[:NUM_IMAGES]]
        predictor = load_predictor(model, device="cpu")
        bare_rate(predictor, files, arguments.rate, 1)
        print(bare_rate(predictor, files, arguments.rate, 3))
        return
    print(measured_on(), "| what | kept | as by default | ratio |", "|---" * 4 + "|", sep="\n")
    for model in arguments.models:
        for batch in BATCHES:
            row(
                f"{Path(model.partition('=')[0]).name}, batches of {batch}, ms an image", arguments.blocks, model, batch
            )
    for config in arguments.configs:
        row(f"{config}, training step, ms", arguments.blocks, config)


def row(what: str, blocks: int, work: str, batch: int | None = None) -> None:
    """Measure and print a row; the ratio is that of neighbouring blocks."""

    def took(environment: dict[str, str] | None) -> float:
        if batch is None:
            return step(work, environment)
        command = [sys.executable, "-m", "benchmarks.kept_memory", work, "--rate", str(batch)]
        return 1000 / float(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)

    kept, default = in_turn(lambda: took(None), lambda: took(AS_BY_DEFAULT), blocks, warm_up=0)
    ratios = [theirs / ours for ours, theirs in zip(kept, default, strict=True)]
    print(f"| {what} | {spread(kept)} | {spread(default)} | {spread(ratios, '.2f')} |", flush=True)


def step(config: str, environment: dict[str, str] | None) -> float:
    """Milliseconds of a training step."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "numbers.json"
        command = [sys.executable, "-m", "detseg", "benchmark", str(ROOT / "configs" / f"{config}.yaml"), "--synthetic"]
        command += ["--stages", "step", "--steps", "10", "--json", str(file)]
        subprocess.run(command, env=environment, capture_output=True, check=True)
        measured = json.loads(file.read_text())["measurements"]
    return next(float(one["median"]) for one in measured if one["name"] == "whole step")


if __name__ == "__main__":
    main()
