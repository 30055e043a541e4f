"""Settings against the noise of seeds: every recipe with each seed, mean and standard deviation on ``val``.

    python -m benchmarks.recipes                              what has no result yet, then the tables
    python -m benchmarks.recipes --only bccd_yolo             the recipes whose names begin so
    python -m benchmarks.recipes --only bccd_yolo/ema --seeds 0 1 2 3 4

Each run is ``detseg train`` in a process of its own; one that was killed goes on where it was. A result is appended to
``benchmarks/recipes.jsonl`` as soon as it is there, and what has one is not run again. A change counts where it differs
from the recipe as shipped by more than two standard errors of the difference.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.comparison import DATA, ROOT, measured_on, write_results
from detseg.training.callbacks.run_files import best_epoch

RESULTS = ROOT / "benchmarks" / "recipes.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Task:
    """A configuration on its data.

    Attributes:
        config: a file of ``configs/``.
        data: a folder of the data sets.
        metric: what is compared, of the best epoch on ``val``.
        settings: for all recipes of it, by their dotted names.
        changes: name of a recipe → what it sets besides.
    """

    config: str
    data: str
    metric: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_AUGMENT = "data.augmentation."
_BCCD_YOLO: dict[str, dict[str, Any]] = {
    "own_proportions": {"data.image_size": [256, 320]},
    "mosaic_always": {_AUGMENT + "mosaic": 1.0},
    "mosaic_never": {_AUGMENT + "mosaic": 0.0},
    "multi_scale": {_AUGMENT + "multi_scale": [0.75, 1.25]},
    "wide_zoom": {_AUGMENT + "affine.scale": [0.5, 1.5]},
    "rotation": {_AUGMENT + "affine.rotate_degrees": 15},
    "no_hue": {_AUGMENT + "color.hue": 0.0},
    "mixup": {_AUGMENT + "mixup": 0.15},
    "half_rate": {"optimizer.lr": 0.0005},
    "double_rate": {"optimizer.lr": 0.002},
    "batch_4": {"data.batch_size": 4},
    "batch_16": {"data.batch_size": 16},
    "warmup_1": {"schedule.warmup_epochs": 1.0},
    "weight_decay_0.01": {"optimizer.weight_decay": 0.01},
    "no_ema": {"trainer.ema_decay": 0.0},
    "ema_0.998": {"trainer.ema_decay": 0.998},
    "class_weights": {"model.class_weights": "inverse_sqrt_frequency"},
    "loss_of_tood": {
        "model.head.box_weight": 7.5,
        "model.head.class_weight": 0.5,
        "model.head.dfl_weight": 1.5,
        "model.head.topk": 10,
        "model.head.alpha": 0.5,
    },
}

TASKS = {
    "bccd_yolo": Task("yolo_bccd", "bccd", "AP", changes=_BCCD_YOLO),
    "nuclei_unet": Task("unet_nuclei", "dsb2018_nuclei", "mIoU"),
    "bccd_rcnn": Task("faster_rcnn_bccd", "bccd", "AP"),
    "camvid_unet": Task("unet_camvid", "camvid_small", "mIoU"),
    "nuclei_rcnn": Task("mask_rcnn_nuclei", "dsb2018_nuclei", "mask_AP"),
}
"""The first recipe of each is the configuration as it is shipped, ``TASK/shipped``."""

SHIPPED = "shipped"
CHOSEN = "chosen"
"""The recipe that `detseg config new` writes for the folder, untouched."""


def main() -> None:
    """Run what has no result, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="beginnings of TASK/RECIPE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "recipes", help="where the runs go")
    parser.add_argument("--table", action="store_true", help="write the tables of what is there; run nothing")
    arguments = parser.parse_args()
    results = read_results()
    names = [f"{task}/{recipe}" for task in TASKS for recipe in (SHIPPED, CHOSEN, *TASKS[task].changes)]
    names = [name for name in names if name.startswith(tuple(arguments.only))]
    for name in () if arguments.table else names:
        for seed in arguments.seeds:
            if seed not in results.get(name, {}):
                result = run(name, seed, arguments.folder)
                with RESULTS.open("a", encoding="utf-8") as rows:
                    rows.write(json.dumps(result) + "\n")
                results.setdefault(name, {})[seed] = result
    write_results(PAGE, "recipes", table(results))


def read_results() -> dict[str, dict[int, dict[str, Any]]]:
    """Recipe → seed → its result."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for row in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else ()):
        results.setdefault(row["recipe"], {})[row["seed"]] = row
    return results


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train a recipe with a seed, or go on with it; ``minutes`` are of this time alone, with what ran beside."""
    task_name, _, recipe = name.partition("/")
    task, run_dir = TASKS[task_name], folder.resolve() / f"{task_name}_{recipe}_{seed}"
    settings = {"data.root": str(DATA / task.data), "seed": seed, "trainer.num_previews": 0}
    settings |= {**task.settings, **task.changes.get(recipe, {})}
    config = ROOT / "configs" / f"{task.config}.yaml"
    if recipe == CHOSEN:
        config = run_dir.with_suffix(".yaml")
        config.write_text(_new_config(config_name=task.config, data=DATA / task.data), encoding="utf-8")
    command = [sys.executable, "-m", "detseg", "train", str(config)]
    command += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    print(f"== {name}, seed {seed}", flush=True)
    begin = time.perf_counter()
    subprocess.run([*command, f"run_dir={run_dir}", "--resume", "auto"], check=True, cwd=ROOT)
    minutes = (time.perf_counter() - begin) / 60
    row = best_epoch(run_dir / "metrics.csv", f"val/{task.metric}")
    scores = {key.removeprefix("val/"): float(value) for key, value in row.items() if key.startswith("val/") and value}
    result = {"recipe": name, "seed": seed, "epoch": int(row["epoch"]), "minutes": round(minutes, 1)}
    print(result | {task.metric: scores[task.metric]}, flush=True)
    return result | {"scores": scores, "measured_on": measured_on()}


def _new_config(config_name: str, data: Path) -> str:
    model = config_name.rpartition("_")[0]
    command = [sys.executable, "-m", "detseg", "config", "new", str(data), "--model", model]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout


def table(results: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """A row of each recipe: its settings, each seed, mean ± standard deviation, and the difference to the shipped one
    with its standard error."""
    lines = ["| recipe | sets | metric of each seed | mean ± sd | against shipped |", "|---" * 5 + "|"]
    for name, of_seeds in results.items():
        task_name, _, recipe = name.partition("/")
        task = TASKS[task_name]
        shipped = _scores(results.get(f"{task_name}/{SHIPPED}", {}), task.metric)
        scores = _scores(of_seeds, task.metric)
        settings = " ".join(f"`{key}={json.dumps(value)}`" for key, value in task.changes.get(recipe, {}).items())
        each = ", ".join(f"{score:.3f}" for score in scores)
        cells = [f"{task_name}, {recipe}", settings, f"{task.metric} {each}", _spread(scores)]
        cells += [_difference(scores, shipped) if recipe != SHIPPED else ""]
        lines.append(f"| {' | '.join(cells)} |")
    places = dict.fromkeys(row["measured_on"] for of_seeds in results.values() for row in of_seeds.values())
    return "\n".join([*lines, "", *places])


def _scores(of_seeds: Mapping[int, Mapping[str, Any]], metric: str) -> list[float]:
    return [of_seeds[seed]["scores"][metric] for seed in sorted(of_seeds)]


def _spread(scores: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.4f}{deviation}"


def _difference(scores: Sequence[float], shipped: Sequence[float]) -> str:
    """Bold where it is more than two of its standard errors."""
    if not scores or not shipped:
        return ""
    change = statistics.mean(scores) - statistics.mean(shipped)
    if min(len(scores), len(shipped)) < 2:
        return f"{change:+.4f}"
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (scores, shipped)))
    shown = f"{change:+.4f} ± {error:.4f}"
    return f"**{shown}**" if abs(change) > 2 * error else shown


if __name__ == "__main__":
    main()
