"""Each rule of the verdict on numbers made by hand, and which one goes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detseg.benchmark.loading import AUGMENT, COLLATE, DECODE
from detseg.benchmark.seams import (
    ASSIGNMENT,
    AVERAGE,
    BACKWARD,
    CLIPPING,
    COPY,
    FORWARD,
    LOSS,
    OPTIMISER,
    PROPOSALS,
    REST,
)
from detseg.benchmark.verdict import Figures, judge

SHARES = {FORWARD: 0.35, BACKWARD: 0.5, LOSS: 0.05, ASSIGNMENT: 0.02, OPTIMISER: 0.03, REST: 0.05}
HEALTHY = Figures(
    batch_size=16,
    num_workers=2,
    num_cores=4,
    loader_rates={0: 120.0, 1: 110.0, 2: 210.0, 4: 400.0, 8: 520.0},
    loading={DECODE: 5.0, AUGMENT: 3.0, COLLATE: 0.5},
    step_rate=100.0,
    fed_rate=98.0,
    waiting=0.01,
    shares=SHARES,
    validation_share=0.05,
)
"""A training that its network limits."""


def with_shares(**more: float) -> Figures:
    """The healthy training with other shares, the rest of which is left to the network."""
    names = {"rest": REST, "copy": COPY, "optimiser": OPTIMISER, "ema": AVERAGE, "clipping": CLIPPING, "loss": LOSS}
    names |= {"assignment": ASSIGNMENT, "proposals": PROPOSALS}
    shares = {names[name]: share for name, share in more.items()}
    return replace(HEALTHY, shares={**shares, FORWARD: (1 - sum(shares.values())) / 3})


def test_the_loader_limits_and_more_workers_suffice() -> None:
    verdict = judge(replace(HEALTHY, step_rate=480.0, fed_rate=205.0, waiting=0.55))
    assert verdict.rule == "loader"
    assert verdict.bottleneck == (
        "the loader limits training: it gives 210 images/s with 2 workers, the step could take 480; together they do "
        "205, 55% of the time spent waiting"
    )
    assert verdict.advice == "set data.num_workers=8: that gives 520 images/s"


def test_no_more_workers_than_the_step_needs_are_advised() -> None:
    verdict = judge(replace(HEALTHY, step_rate=390.0, fed_rate=205.0, waiting=0.45))
    assert verdict.advice == "set data.num_workers=4: that gives 400 images/s"


def test_a_loader_in_the_trainings_own_process_never_suffices() -> None:
    rates = {0: 120.0, 1: 110.0, 2: 210.0}
    figures = replace(HEALTHY, num_workers=0, waiting=0.45, loader_rates=rates, step_rate=100.0)
    assert judge(figures).advice == "set data.num_workers=1: that gives 110 images/s"
    assert judge(replace(figures, step_rate=200.0)).advice == "set data.num_workers=2: that gives 210 images/s"


@pytest.mark.parametrize(
    ("loading", "advice"),
    [
        (
            {DECODE: 5.0, AUGMENT: 3.0, COLLATE: 0.5},
            "read and decode takes 5 of 8.5 ms an image: store the pictures no larger than data.image_size",
        ),
        (
            {DECODE: 2.0, AUGMENT: 3.0, COLLATE: 0.5},
            "letterbox, augment takes 3 of 5.5 ms an image: take something out of data.augmentation",
        ),
    ],
)
def test_where_more_workers_do_not_help(loading: dict[str, float], advice: str) -> None:
    rates = {0: 120.0, 1: 110.0, 2: 210.0, 4: 215.0}
    figures = replace(HEALTHY, step_rate=480.0, waiting=0.5, loader_rates=rates, loading=loading)
    assert judge(figures).rule == "loader"
    assert judge(figures).advice == advice


def test_a_loader_that_was_not_measured_is_named_all_the_same() -> None:
    verdict = judge(replace(HEALTHY, waiting=0.5, fed_rate=50.0, loader_rates={}, loading={}, num_workers=1))
    assert verdict.bottleneck.startswith("the loader limits training: it has 1 worker, the step could take 100;")
    assert verdict.advice.startswith("raise data.num_workers")


def test_a_loader_that_takes_the_cores_of_the_step() -> None:
    crowded = replace(HEALTHY, fed_rate=75.0)
    assert judge(crowded).rule == "cores"
    assert "alone it does 100 images/s, beside 2 workers 75" in judge(crowded).bottleneck
    assert judge(replace(crowded, on_gpu=True)).rule == "network"
    # 8.5 ms an image are 85% of a core at 100 images/s, of 16 cores a twentieth: then it was something else.
    assert judge(replace(crowded, num_cores=16)).rule == "network"


def test_the_loader_goes_before_everything_else() -> None:
    everything = replace(with_shares(rest=0.4, copy=0.2), waiting=0.3, validation_share=0.8)
    assert judge(everything).rule == "loader"
    assert judge(replace(everything, waiting=0.0)).rule == "validation"
    assert judge(replace(everything, waiting=0.0, validation_share=None)).rule == "overhead"


@pytest.mark.parametrize(("every", "epochs", "advised"), [(1, 100, 2), (5, 100, 10), (2, 3, 3)])
def test_validation_that_takes_too_long(every: int, epochs: int, advised: int) -> None:
    figures = replace(HEALTHY, validation_share=0.4, validate_every=every, max_epochs=epochs)
    assert judge(figures).rule == "validation"
    assert "validation takes 40% of a training" in judge(figures).bottleneck
    assert judge(figures).advice == f"set trainer.validate_every={advised}"


def test_validation_once_cannot_be_rarer() -> None:
    assert judge(replace(HEALTHY, validation_share=0.4, validate_every=100)).rule == "network"


@pytest.mark.parametrize(
    ("figures", "rule", "setting"),
    [
        (with_shares(rest=0.25), "overhead", "data.batch_size=32"),
        (with_shares(rest=0.24), "network", "data.image_size"),
        (with_shares(copy=0.15), "copy", "data.image_size"),
        (with_shares(optimiser=0.1, ema=0.1, clipping=0.06), "update", "data.batch_size=32"),
        (with_shares(loss=0.2, assignment=0.1), "loss", "data.image_size"),
        (replace(with_shares(loss=0.2, proposals=0.1), two_stage=True), "loss", "model.rpn.pre_nms_top_n_train"),
    ],
)
def test_what_surrounds_the_network(figures: Figures, rule: str, setting: str) -> None:
    verdict = judge(figures)
    assert verdict.rule == rule
    assert setting in verdict.advice


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({}, "data.image_size"),
        ({"can_compile": True}, "trainer.compile=true"),
        ({"can_compile": True, "on_gpu": True, "memory_share": 0.2}, "data.batch_size=32"),
        ({"can_compile": True, "on_gpu": True, "memory_share": 0.8}, "trainer.compile=true"),
        ({"can_compile": True, "lowers_precision": True}, "trainer.precision=auto"),
    ],
)
def test_the_network_limits(changes: dict[str, float | bool], setting: str) -> None:
    verdict = judge(replace(HEALTHY, **changes))  # type: ignore[arg-type]  # of the fields' own types
    assert verdict.rule == "network"
    assert verdict.bottleneck.startswith("the network limits training: forward and backward are 85% of a step")
    assert setting in verdict.advice


def test_without_steps_there_is_no_verdict() -> None:
    verdict = judge(Figures(batch_size=16, num_workers=2, loader_rates={2: 100.0}))
    assert verdict.rule == "unknown"
    assert "step" in verdict.advice


def test_every_line_is_one_line_and_advice_names_a_setting() -> None:
    several = [replace(HEALTHY, waiting=0.5), replace(HEALTHY, validation_share=0.5), HEALTHY, with_shares(rest=0.5)]
    for verdict in map(judge, several):
        assert "\n" not in verdict.bottleneck + verdict.advice
        assert any(section in verdict.advice for section in ("data.", "trainer.", "model."))
