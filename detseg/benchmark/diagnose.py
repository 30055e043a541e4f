"""What limits a training, and the one setting to try first: rules over the numbers of a benchmark.

The first rule that holds decides; docs/benchmarking.md lists them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from detseg.benchmark.results import Results
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import FasterRcnnConfig, MaskRcnnConfig
from detseg.training.setup.trainer import resolve_precision

COPY, FORWARD, LOSSES, BACKWARD = "copy to the device, to float", "forward", "assignment, losses", "backward"
UPDATE, OVERHEAD = "clipping, optimiser, EMA", "Lightning, logging, NaN guard"
"""The parts of a step."""

_WAITING_PERCENT = 15
_WORTH_WORKERS = 1.15
"""Times more images per second that another number of workers must give to be advised."""
_VALIDATION_SHARE = 0.25
_SHARES = {OVERHEAD: 0.25, COPY: 0.15, UPDATE: 0.25, LOSSES: 0.3}
"""Part of a step → from which fraction of the step on it is the bottleneck."""


@dataclass(frozen=True)
class Diagnosis:
    """What the numbers say, and what to try first: one line each."""

    bottleneck: str
    advice: str


def diagnose(results: Results, config: ExperimentConfig, num_train: int, num_val: int) -> Diagnosis:
    """The diagnosis by the first rule that holds; the last arguments are the sizes of the data sets."""
    step, fed = results.median("step", "training"), results.median("step", "training with the loader")
    if step is None or fed is None:
        return Diagnosis("training steps were not timed", "leave out --stages, or add step to it")
    waiting = results.median("step", "waiting for the loader") or 0.0
    if waiting >= _WAITING_PERCENT:
        line = (
            f"the loader: the step could take {step:.3g} images/s, gets {fed:.3g}, and waits {waiting:.0f}% of the time"
        )
        return Diagnosis(line, _faster_loader(results, config, step))
    every, epochs = config.trainer.validate_every, config.trainer.max_epochs
    if (rate := results.median("validation", "validation, scoring")) and not results.facts["synthetic"]:
        share = 1 / (1 + every * (num_train / fed) / (num_val / rate))
        if share >= _VALIDATION_SHARE and every < epochs:
            advice = f"set trainer.validate_every={min(epochs, 2 * every)}"
            return Diagnosis(f"validation: it takes {share:.0%} of the whole training", advice)
    shares = results.shares("step")
    larger = f"set data.batch_size={2 * config.data.num_images} (with optimizer.lr to match)"
    smaller = "lower data.image_size, or take a smaller model.backbone"
    remedies = {OVERHEAD: larger, COPY: smaller, UPDATE: larger, LOSSES: smaller}
    if isinstance(config.model, FasterRcnnConfig | MaskRcnnConfig):  # the second stage is part of the losses
        remedies[LOSSES] = "lower model.rpn.post_nms_top_n_train and model.roi_heads.batch_size_per_image"
    for part, limit in _SHARES.items():
        if shares[part] >= limit:
            return Diagnosis(f"{part}: {shares[part]:.0%} of a step", remedies[part])
    line = f"the network: forward and backward are {shares[FORWARD] + shares[BACKWARD]:.0%} of a step"
    device, memory = results.facts["device"], results.facts.get("device_memory_fraction", 1.0)
    has_compiler = device == "cuda" or any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
    if config.trainer.precision == "float32" and resolve_precision("auto", device) == "bfloat16":
        return Diagnosis(line, "set trainer.precision=auto: bfloat16 is computed natively here")
    if memory < 0.4:
        return Diagnosis(line, f"{larger}: only {memory:.0%} of the GPU's memory are in use")
    if has_compiler and not config.trainer.compile:
        return Diagnosis(line, "try trainer.compile=true, and run this benchmark again")
    return Diagnosis(line, smaller)


def _faster_loader(results: Results, config: ExperimentConfig, step: float) -> str:
    """More workers where they help, else less work."""
    rates: dict[int, float] = results.facts.get("loader_rates", {})
    now, num_workers = rates.get(config.data.num_workers), config.data.num_workers
    if now is None:
        return "raise data.num_workers; with the stage loader timed, a number could be named"
    # Without processes, loading and training take turns, which never feeds a step fully.
    others = {number: rate for number, rate in rates.items() if number}
    enough = [number for number in sorted(others) if others[number] >= step]
    best = enough[0] if enough else max(others, key=lambda number: others[number], default=0)
    if best and (others[best] >= _WORTH_WORKERS * now or (not num_workers and enough)):
        return f"set data.num_workers={best}: that gives {others[best]:.3g} images/s"
    decoding, whole = results.median("loader", "read and decode") or 0.0, 1000 * max(num_workers, 1) / now
    if decoding >= whole / 2:
        return (
            f"store the images no larger than data.image_size: reading takes {decoding:.3g} of {whole:.3g} ms an image"
        )
    return f"take something out of data.augmentation: reading takes only {decoding:.3g} of {whole:.3g} ms an image"
