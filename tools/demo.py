"""Everything once, on images that are made for it: train, evaluate, predict; minutes on two CPU cores.

It types the commands that a user would type and prints each before it runs. At the end it says which pictures to open.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

CONFIG = "configs/yolo_shapes.yaml"
IMAGES = "data/shapes/coco/val"


def free_folder(path: Path) -> Path:
    """The path itself, or with a number behind it where that exists: an older demo stays as it is."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def run(*command: str) -> float:
    """Run a command of detseg with this Python; returns its seconds, and leaves with its exit code if it fails."""
    line = f"detseg {shlex.join(command)}"
    print(f"\n$ {line}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "detseg", *command], check=False).returncode
    if code:
        sys.exit(f"the demo stopped: `{line}` failed with exit code {code}")
    return time.monotonic() - start


def main() -> None:
    """Run the demo from the repository's root."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run-dir", type=Path, default="runs/demo", help="where to write (runs/demo, or a free number)"
    )
    run_dir = free_folder(parser.parse_args().run_dir)
    checkpoint, found = run_dir / "checkpoints" / "best.ckpt", run_dir / "found"
    training = run("train", CONFIG, f"run_dir={run_dir}")
    evaluation = run("evaluate", str(checkpoint))
    prediction = run("predict", str(checkpoint), IMAGES, "--out", str(found))
    print(
        f"\nThe demo is done, in {training + evaluation + prediction:.0f} seconds. Open first:\n"
        f"  {run_dir / 'pictures' / 'val_predictions.jpg'}\n"
        f"It also made:\n"
        f"  data/shapes   the images, with VOC and COCO annotations\n"
        f"  {checkpoint}   the trained model ({training:.0f} s; evaluated in {evaluation:.0f} s)\n"
        f"  {found}   what it found, drawn on {IMAGES}, and as COCO JSON ({prediction:.0f} s)"
    )


if __name__ == "__main__":
    main()
