"""The factor of the rate at single steps, computed by hand."""

from __future__ import annotations

import pytest

from detseg.config.schema.experiment import CosineConfig, InverseTimeConfig, OneCycleConfig, ScheduleConfig, StepConfig
from detseg.training.optim.optimizers import build_schedule


@pytest.mark.parametrize(
    ("config", "total", "per_epoch", "expected"),
    [
        # Two steps of warm-up: 1/3, 2/3, then half a cosine over eight steps from 1 to 0.2; its middle is 0.6.
        (CosineConfig(warmup_epochs=1, final_lr_fraction=0.2), 10, 2, {0: 1 / 3, 1: 2 / 3, 2: 1.0, 6: 0.6, 10: 0.2}),
        # cos(pi / 3) = 1/2: three quarters of the way down are left.
        (CosineConfig(warmup_epochs=0, final_lr_fraction=0.0), 3, 1, {0: 1.0, 1: 0.75, 2: 0.25, 3: 0.0}),
        # Half an epoch of four steps is two steps.
        (CosineConfig(warmup_epochs=0.5), 100, 4, {0: 1 / 3, 1: 2 / 3, 2: 1.0}),
        (StepConfig(name="step", warmup_epochs=0), 10, 1, {0: 1.0, 6: 1.0, 7: 0.1, 8: 0.1, 9: 0.01}),
        # Milestones are fractions of the whole training, with or without a warm-up.
        (
            StepConfig(name="step", warmup_epochs=4, milestones=(0.5,), gamma=0.25),
            10,
            1,
            {0: 0.2, 3: 0.8, 4: 1.0, 5: 0.25, 9: 0.25},
        ),
        (StepConfig(name="step", warmup_epochs=0, milestones=()), 10, 1, {0: 1.0, 9: 1.0}),
        # 1 / (1 + 9 * 0.5) = 2 / 11.
        (InverseTimeConfig(name="inverse_time", warmup_epochs=2), 10, 1, {1: 2 / 3, 2: 1.0, 6: 2 / 11, 10: 0.1}),
        # Up over two of eight steps: in the middle (0.04 + 1) / 2; down over six: in the middle (1 + 0.001) / 2.
        (OneCycleConfig(name="one_cycle", pct_start=0.25), 8, 1, {0: 0.04, 1: 0.52, 2: 1.0, 5: 0.5005, 8: 0.001}),
        (OneCycleConfig(name="one_cycle", pct_start=0.0), 4, 1, {0: 1.0, 4: 0.001}),
        (OneCycleConfig(name="one_cycle", pct_start=1.0), 4, 1, {0: 0.04, 4: 1.0}),
    ],
)
def test_factors(config: ScheduleConfig, total: int, per_epoch: float, expected: dict[int, float]) -> None:
    schedule = build_schedule(config, total, per_epoch)
    assert {step: schedule(step) for step in expected} == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_longer_than_half_of_the_training_is_cut_to_it() -> None:
    schedule = build_schedule(CosineConfig(warmup_epochs=3), total_steps=8, steps_per_epoch=4)
    assert [schedule(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


KINDS = [
    CosineConfig(),
    StepConfig(name="step"),
    InverseTimeConfig(name="inverse_time"),
    OneCycleConfig(name="one_cycle"),
]


@pytest.mark.parametrize("config", KINDS)
@pytest.mark.parametrize("total", [1, 2, 3, 7, 500])
def test_the_factor_stays_above_zero_and_up_to_one(config: ScheduleConfig, total: int) -> None:
    schedule = build_schedule(config, total, total / 2)
    # Lightning asks once more behind the last step.
    assert all(0 < schedule(step) <= 1 for step in range(total + 2))
