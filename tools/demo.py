"""Everything once, on the synthetic set: train, evaluate, predict; then say what was made, where, and in what time.

It types the commands that a user would type, and prints each before it runs.
"""

from __future__ import annotations

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
    """Run one of the tools with this Python; returns the seconds it took, and leaves with its exit code if it fails."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *command], check=False).returncode
    if code:
        sys.exit(f"the demo stopped: `python {shlex.join(command)}` failed with exit code {code}")
    return time.monotonic() - start


def main() -> None:
    """Run the demo from the repository's root."""
    run_dir = free_folder(Path("runs/demo"))
    checkpoint, pictures = run_dir / "checkpoints" / "best.ckpt", run_dir / "predictions"
    training = run("tools/train.py", CONFIG, f"run_dir={run_dir}")
    evaluation = run("tools/evaluate.py", str(checkpoint))
    prediction = run("tools/predict.py", str(checkpoint), IMAGES, "--out", str(pictures))
    print(
        f"\nThe demo is done. It made, in {training + evaluation + prediction:.0f} seconds:\n"
        f"  data/shapes       the synthetic images with VOC and COCO annotations\n"
        f"  {run_dir}         the run: resolved config, logs, metrics, pictures ({training:.0f} s of training)\n"
        f"  {checkpoint}      the trained model, evaluated in {evaluation:.0f} s\n"
        f"  {pictures}        what it found, drawn on the images, and as COCO JSON ({prediction:.0f} s)"
    )


if __name__ == "__main__":
    main()
