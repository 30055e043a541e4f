"""A predictor on one image after the other, as an application uses it."""

from __future__ import annotations

from typing import Any

import numpy as np

from detseg.benchmark.clock import Clock, Stopwatch
from detseg.benchmark.effort import Effort
from detseg.benchmark.measurement import Findings, Measurement, parts_of_whole
from detseg.benchmark.seams import POST, PRE, PREDICTION_ORDER, prediction_seams, timed_calls
from detseg.benchmark.subject import Subject
from detseg.config.schema.experiment import DetectorConfig
from detseg.predict.detection import Predictor
from detseg.predict.images import to_array
from detseg.predict.predictor import ImagePredictor
from detseg.predict.segmentation import SegmentationPredictor
from detseg.structures import Detections

STAGE = "predictor"
READ, WHOLE, SLOWEST = "read and decode", "an image, p50", "an image, p95"

_NUM_IMAGES = 32


def measure_predictor(subject: Subject, effort: Effort, findings: Findings) -> None:
    """Predicts for validation images, one at a time; the weights are those that validation sees."""
    predictor = _predictor(subject)
    files = [subject.val_set.path(i) for i in range(min(len(subject.val_set), _NUM_IMAGES))]
    clock = Clock(subject.device)
    stopwatch = Stopwatch(clock)
    rounds: list[dict[str, float]] = []
    reading: list[float] = []
    found: list[int] = []
    with timed_calls(stopwatch, prediction_seams(predictor.model)):
        for file in files[:2]:
            predictor(to_array(file))
        for number in effort.repetitions():
            with Clock().timing(reading):
                image = to_array(files[number % len(files)])
            with stopwatch.part(PRE, after=POST):
                result = predictor(image)
            taken = stopwatch.take(divided_by=1 / 1000)
            rounds.append({name: taken[name] for name in sorted(taken, key=PREDICTION_ORDER.index)})
            found.append(len(result) if isinstance(result, Detections) else 0)
    wholes = [sum(values.values()) for values in rounds]
    note = "from the array in memory to the result"
    if isinstance(subject.config.model, DetectorConfig):
        note += f"; {np.mean(found):.0f} detections an image"
    findings.measurements += [
        Measurement(STAGE, READ, "ms", tuple(1000 * seconds for seconds in reading)),
        *parts_of_whole(STAGE, "ms", rounds),
        Measurement(STAGE, WHOLE, "ms", tuple(wholes), note=note),
        Measurement(STAGE, SLOWEST, "ms", (float(np.percentile(wholes, 95)),), note=f"of {len(wholes)} predictions"),
    ]


def _predictor(subject: Subject) -> ImagePredictor[Any]:
    model, classes = subject.task.evaluated_model, subject.train_set.classes
    input_hw = subject.config.data.input_hw
    if isinstance(subject.config.model, DetectorConfig):
        return Predictor(model, classes, input_hw, subject.device)
    return SegmentationPredictor(model, classes, input_hw, subject.device)
