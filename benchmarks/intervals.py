"""Do the 95 % intervals of detections hold what they are to hold, do comparisons see differences where there are some,
and none where there are none, and how long does it take?

    python -m benchmarks.intervals

Sets of images are drawn from 20 000 made-up ones with 5 classes. What their intervals are to hold is the mean of the
number over all sets.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.coco_records import synthetic_records
from benchmarks.comparison import ROOT, measured_on, write_results
from detseg.evaluation.compare import difference
from detseg.metrics.bootstrap import detection_samples, interval
from detseg.metrics.coco import coco_numbers
from detseg.structures import ClassTable

NUM_IMAGES, NUM_CLASSES, NUM_SETS = 20_000, 5, 500
METRICS = ("AP", "AP50")


def main() -> None:
    """Measure, and write the results."""
    rows = ["| images of a set | metric | intervals that hold the mean | unmoved | width |", "|---|---|---|---|---|"]
    for num_images in (100, 500):
        for name, held, unmoved, width in coverage(num_images):
            rows.append(f"| {num_images} | {name} | {held:.1%} | {unmoved:.1%} | {width:.3f} |")
    rows += ["", "| compared on 100 images | changed boxes | p below 0.05 | mean change of AP |", "|---|---|---|---|"]
    for what, spread in (("equally good", 1.0), ("the second is worse", 1.1), ("much worse", 1.3)):
        fraction, change = told_apart(100, spread)
        rows.append(f"| {what} | × {spread:g} | {fraction:.1%} | {change:+.3f} |")
    seconds = sorted(time_of_1000() for _ in range(3))
    text = f"1000 resamples of 5000 images with 500 000 detections of 80 classes: {seconds[1]:.1f} s"
    text += f" ({seconds[0]:.1f} to {seconds[2]:.1f}, AP and F1, matching included)."
    write_results(ROOT / "docs" / "benchmarks.md", "intervals", "\n".join([*rows, "", text, "", measured_on()]))


def coverage(num_images: int) -> list[tuple[str, float, float, float]]:
    """Metric, fraction of the intervals that hold its mean, the same of percentile intervals, and their mean width."""
    classes = ClassTable(tuple(f"class {k}" for k in range(NUM_CLASSES)))
    population = synthetic_records(NUM_IMAGES, NUM_IMAGES * 7, NUM_IMAGES * 30, NUM_CLASSES)
    rng = np.random.default_rng(1)
    found: dict[str, list[tuple[float, float, float, float, float]]] = {name: [] for name in METRICS}
    for number in range(NUM_SETS):
        others = rng.permutation(population.image_ids)[num_images:]
        records = population.without_images(others)
        numbers = coco_numbers(records, classes, 100).summary
        samples = detection_samples(records, classes, 100, 0.5, num_resamples=200, seed=number).numbers
        for name in METRICS:
            unmoved = np.quantile(samples[name], [0.025, 0.975]).tolist()
            found[name].append((numbers[name], *interval(numbers[name], samples[name]), *unmoved))
    results = []
    for name in METRICS:
        number, low, high, unmoved_low, unmoved_high = np.array(found[name]).T
        mean = number.mean()
        held = np.mean((low <= mean) & (mean <= high)), np.mean((unmoved_low <= mean) & (mean <= unmoved_high))
        results.append((name, float(held[0]), float(held[1]), float((high - low).mean())))
    return results


def told_apart(num_images: int, spread: float) -> tuple[float, float]:
    """In which fraction of the sets two models differ by p < 0.05, and how much on average."""
    classes = ClassTable(tuple(f"class {k}" for k in range(NUM_CLASSES)))
    sizes = NUM_IMAGES, NUM_IMAGES * 7, NUM_IMAGES * 30, NUM_CLASSES
    models = [synthetic_records(*sizes, model=1), synthetic_records(*sizes, model=2, spread=spread)]
    rng = np.random.default_rng(2)
    found: list[tuple[bool, float]] = []
    for number in range(NUM_SETS):
        others = rng.permutation(NUM_IMAGES)[num_images:]
        both = [records.without_images(others) for records in models]
        numbers = [coco_numbers(records, classes, 100).summary["AP"] for records in both]
        samples = [
            detection_samples(records, classes, 100, 0.5, num_resamples=200, seed=number).numbers["AP"]
            for records in both
        ]
        row = difference(numbers[0], numbers[1], samples[0], samples[1])
        found.append((row.p < 0.05, row.second - row.first))
    told, changes = np.array(found, dtype=np.float64).T
    return float(told.mean()), float(changes.mean())


def time_of_1000() -> float:
    """Seconds for a set of the size of COCO's val2017."""
    classes = ClassTable(tuple(f"class {k}" for k in range(80)))
    records = synthetic_records(5000, 36_000, 500_000, 80)
    begin = time.perf_counter()
    detection_samples(records, classes, 100, 0.5)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
