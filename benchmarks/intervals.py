"""Do the 95 % intervals of detections hold what they are to hold, and how long do they take?

    python -m benchmarks.intervals

Sets of images are drawn from 20 000 made-up ones with 5 classes. What their intervals are to hold is the mean of the
number over all sets.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.coco_records import synthetic_records
from benchmarks.comparison import ROOT, measured_on, write_results
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


def time_of_1000() -> float:
    """Seconds for a set of the size of COCO's val2017."""
    classes = ClassTable(tuple(f"class {k}" for k in range(80)))
    records = synthetic_records(5000, 36_000, 500_000, 80)
    begin = time.perf_counter()
    detection_samples(records, classes, 100, 0.5)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
