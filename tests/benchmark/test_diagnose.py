"""Each rule of the diagnosis on numbers made by hand, and which one goes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.benchmark.results import BACKWARD, COPY, FORWARD, LOSSES, OVERHEAD, UPDATE, Diagnosis, Results, diagnose
from detseg.config.load import load_config

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "yolo_bccd.yaml"
SLOW_READING = {2: 200.0, 4: 205.0}
RATES = {0: 120.0, 1: 110.0, 2: 210.0, 4: 400.0, 8: 520.0}


def diagnosis(
    *overrides: str,
    step: float = 100.0,
    fed: float = 98.0,
    waiting: float = 1.0,
    decoding: float = 5.0,
    validation: float | None = 500.0,
    rates: dict[int, float] | None = None,
    parts: dict[str, float] | None = None,
    **facts: object,
) -> Diagnosis:
    """Of a training that its network limits, with other numbers."""
    results = Results(
        facts={"device": "cpu", "synthetic": False, "loader_rates": RATES if rates is None else rates} | facts
    )
    names = {COPY: 1.0, FORWARD: 30.0, LOSSES: 5.0, BACKWARD: 60.0, UPDATE: 2.0, OVERHEAD: 2.0} | (parts or {})
    results.add("loader", "read and decode", "ms/image", [decoding])
    results.add_parts("step", "ms", {name: [value] for name, value in names.items()})
    results.add("step", "training", "images/s", [step])
    results.add("step", "training with the loader", "images/s", [fed])
    results.add("step", "waiting for the loader", "%", [waiting])
    if validation is not None:
        results.add("validation", "validation, scoring", "images/s", [validation])
    usual = ["data.num_workers=2", "data.batch_size=16", "trainer.precision=auto", "trainer.max_epochs=100"]
    settings = [*usual, "trainer.validate_every=1", *overrides]
    return diagnose(results, load_config(CONFIG, settings), num_train=1000, num_val=500)


@pytest.mark.parametrize(
    ("step", "num_workers", "rates", "decoding", "advice"),
    [
        (480.0, 2, RATES, 5.0, "set data.num_workers=8: that gives 520 images/s"),
        (390.0, 2, RATES, 5.0, "set data.num_workers=4: that gives 400 images/s"),  # the smallest that is enough
        (900.0, 2, RATES, 5.0, "set data.num_workers=8: that gives 520 images/s"),  # the fastest
        (100.0, 0, RATES, 5.0, "set data.num_workers=1: that gives 110 images/s"),
        (480.0, 2, SLOW_READING, 5.0, "store the images no larger than data.image_size: reading takes 5 of 10 ms"),
        (480.0, 2, SLOW_READING, 2.0, "take something out of data.augmentation: reading takes only 2 of 10 ms"),
        (480.0, 0, {0: 100.0}, 2.0, "take something out of data.augmentation: reading takes only 2 of 10 ms"),
        (480.0, 2, {}, 2.0, "raise data.num_workers"),
    ],
)
def test_the_loader(step: float, num_workers: int, rates: dict[int, float], decoding: float, advice: str) -> None:
    slow = {OVERHEAD: 90.0}  # the loader goes first
    found = diagnosis(
        f"data.num_workers={num_workers}", step=step, fed=90.0, waiting=55.0, rates=rates, decoding=decoding, parts=slow
    )
    line = f"the loader: the step could take {step:.3g} images/s, gets 90, and waits 55% of the time"
    assert found.bottleneck == line
    assert found.advice.startswith(advice)


def test_validation() -> None:
    found = diagnosis(validation=50.0, fed=100.0, parts={OVERHEAD: 90.0})
    assert found == Diagnosis("validation: it takes 50% of the whole training", "set trainer.validate_every=2")
    assert diagnosis("trainer.validate_every=4", validation=50.0, fed=100.0).bottleneck.startswith("the network")
    assert diagnosis("trainer.max_epochs=1", validation=50.0).bottleneck.startswith("the network")
    assert diagnosis(validation=50.0, synthetic=True).bottleneck.startswith("the network")
    assert diagnosis(validation=None).bottleneck.startswith("the network")


@pytest.mark.parametrize(
    ("part", "ms", "setting"),
    [
        (OVERHEAD, 33.0, "data.batch_size=32"),
        (COPY, 18.0, "data.image_size"),
        (UPDATE, 33.0, "data.batch_size=32"),
        (LOSSES, 45.0, "data.image_size"),
    ],
)
def test_parts_around_the_network(part: str, ms: float, setting: str) -> None:
    found = diagnosis(parts={part: ms})
    assert found.bottleneck.startswith(part)
    assert setting in found.advice
    assert diagnosis(parts={part: 0.6 * ms}).bottleneck.startswith("the network")


def test_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    found = diagnosis(device="cuda", device_memory_fraction=0.2)
    line = "the network: forward and backward are 90% of a step"
    advice = "set data.batch_size=32 (with optimizer.lr to match): only 20% of the GPU's memory are in use"
    assert found == Diagnosis(line, advice)
    assert "trainer.compile=true" in diagnosis(device="cuda", device_memory_fraction=0.8).advice
    assert "data.image_size" in diagnosis("trainer.compile=true", device="cuda").advice
    monkeypatch.setenv("PATH", "")  # no compiler
    assert "data.image_size" in diagnosis().advice


def test_without_steps_there_is_no_diagnosis() -> None:
    assert "step" in diagnose(Results(facts={}), load_config(CONFIG), 1, 1).advice
