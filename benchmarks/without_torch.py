"""Exported models in an environment without torch: its size, its start, and whether its results are the checkpoint's.

    python -m benchmarks.without_torch runs/boxes runs/maps --images photos/

Each run is exported as ONNX here, and predicts for an image, a folder, and in tiles. The exported file
does the same in a fresh environment that ``pip install "detseg[onnx]"`` makes. The exit code is 1 where results differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.comparison import ROOT
from detseg.data.images.find import find_images
from detseg.export.run import export_checkpoint
from detseg.predict import Detections, load_predictor

SOURCES = ("detseg", "configs", "pyproject.toml", "README.md", "LICENSE")
TORCH = ("torch", "torchvision", "lightning", "timm")
ONE_IMAGE = """
import json, sys
import detseg
found = detseg.load_predictor(sys.argv[1])(sys.argv[2])
print(json.dumps({"boxes": found.boxes.tolist()} if hasattr(found, "boxes") else {"labels": found.labels.tolist()}))
"""
REPEATS = 5
MOST_PIXELS, MOST_DISTANCE, MOST_DRIFT = 2e-3, 0.05, 1e-3
"""How far results may be apart: pixels of another class, corners of boxes in pixels, scores."""


class Environment:
    """A virtual environment with ``detseg[onnx]`` alone."""

    def __init__(self, folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        for name in SOURCES:
            path = ROOT / name
            (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
        self.python = folder / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        own = {path.name for path in self._packages.iterdir()}  # pip, which comes with every environment
        begin = time.perf_counter()
        self.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{source}[onnx]")
        self.seconds = time.perf_counter() - begin
        files = [path for new in self._packages.iterdir() if new.name not in own for path in (new, *new.rglob("*"))]
        self.megabytes = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
        self.names = sorted(path.stem.split("-")[0] for path in self._packages.glob("*.dist-info"))

    @property
    def _packages(self) -> Path:
        return next(self.python.parents[1].rglob("site-packages"))

    def run(self, *arguments: str) -> str:
        """The output of its interpreter."""
        command = [str(self.python), "-I", *arguments]  # whatever PYTHONPATH and the current folder hold
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def seconds_of(self, *arguments: str) -> str:
        """Of a process of its interpreter, from its start to its end: the median, with lowest and highest."""
        times = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            self.run(*arguments)
            times.append(time.perf_counter() - begin)
        return f"{statistics.median(times):.2f} s ({min(times):.2f}–{max(times):.2f})"


def main() -> int:
    """Make the environment, state its figures, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--num", type=int, default=8, help="images of it (8)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Environment(folder)
        assert not set(TORCH) & set(environment.names), environment.names
        size = f"{environment.megabytes:.0f} MB, {len(environment.names)} packages"
        print(f"installed in {environment.seconds:.0f} s: {size}")
        print(f"python -c pass: {environment.seconds_of('-c', 'pass')}")
        print(f"import detseg: {environment.seconds_of('-c', 'import detseg')}")
        photos = folder / "photos"
        photos.mkdir()
        for path in find_images(arguments.images)[: arguments.num]:
            shutil.copy(arguments.images / path, photos / path.name)
        return max(
            _compare(run.resolve(), photos, folder / str(number), environment)
            for number, run in enumerate(arguments.runs)
        )


def _compare(run: Path, photos: Path, folder: Path, environment: Environment) -> int:
    folder.mkdir()
    original = load_predictor(run, "cpu")
    image = str(min(photos.iterdir()))
    expected: Any = original(image)
    finds_objects = isinstance(expected, Detections)
    file = str(export_checkpoint(run, "onnx", folder / "best.onnx", any_size=not finds_objects))
    first = environment.seconds_of("-c", ONE_IMAGE, file, image)
    found = json.loads(environment.run("-c", ONE_IMAGE, file, image))
    if finds_objects:
        differs = np.shape(found["boxes"]) != expected.boxes.shape
        differs = differs or bool(abs(np.array(found["boxes"]) - expected.boxes).max(initial=0) > MOST_DISTANCE)
    else:
        differs = bool((np.array(found["labels"]) != expected.labels).mean() > MOST_PIXELS)
    print(f"{run.name}: from the start of Python to the first result {first}; {'DIFFERENT' if differs else 'the same'}")
    height, width = original.input_hw
    tile = ["--tile", str(height // 2 // 32 * 32), str(width // 2 // 32 * 32)]
    ways: dict[str, list[str]] = {"folder": [], "tiles": tile}
    for way, options in ways.items():
        outs = [folder / f"{way}_{side}" for side in ("here", "there")]
        sides = ([sys.executable], str(run), outs[0]), ([str(environment.python), "-I"], file, outs[1])
        for python, model, out in sides:
            command = [*python, "-m", "detseg", "predict", model, str(photos), "--out", str(out), "--device", "cpu"]
            subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        line, is_same = _boxes_differ(*outs) if finds_objects else _maps_differ(*outs)
        print(f"{run.name}: {way}: {line}")
        differs = differs or not is_same
    return int(differs)


def _boxes_differ(one: Path, other: Path) -> tuple[str, bool]:
    first, second = (json.loads((folder / "detections.json").read_text()) for folder in (one, other))
    keys = [[(found["image_id"], found["category_id"]) for found in results] for results in (first, second)]
    if keys[0] != keys[1]:
        return f"{len(first)} and {len(second)} detections, of which some differ", False
    if not first:
        return "no detections", False
    distance = np.abs(_column(first, "bbox") - _column(second, "bbox")).max()
    drift = np.abs(_column(first, "score") - _column(second, "score")).max()
    line = f"{len(first)} detections; boxes differ by {distance:.3g} px at most, scores by {drift:.2g}"
    return line, bool(distance <= MOST_DISTANCE and drift <= MOST_DRIFT)


def _column(results: Sequence[dict[str, Any]], name: str) -> Any:
    return np.array([found[name] for found in results], dtype=np.float64)


def _maps_differ(one: Path, other: Path) -> tuple[str, bool]:
    paths = sorted((one / "masks").iterdir())
    pairs = [[np.asarray(Image.open(folder / "masks" / path.name)) for folder in (one, other)] for path in paths]
    worst = max(float((first != second).mean()) for first, second in pairs)
    return f"{len(paths)} maps; {worst:.4%} of the pixels of one have another class at most", worst <= MOST_PIXELS


if __name__ == "__main__":
    sys.exit(main())
