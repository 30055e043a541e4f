"""The stopwatch shares out every moment, and timed calls leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detseg.benchmark.clock import Clock, Stopwatch
from detseg.benchmark.effort import Effort
from detseg.benchmark.measurement import Measurement, parts_of_whole
from detseg.benchmark.seams import Seam, timed_calls


class Steps(Clock):
    """Stands still but for what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def mark(self) -> Any:
        return self.now


def test_time_belongs_to_the_innermost_part() -> None:
    clock = Steps()
    stopwatch = Stopwatch(clock)
    clock.now = 100  # before the first part: nobody's
    with stopwatch.part("step"):
        clock.now += 1
        with stopwatch.part("forward"):
            clock.now += 10
            with stopwatch.part("loss"):
                clock.now += 5
            clock.now += 20
        clock.now += 2
        with stopwatch.part("loss"):
            clock.now += 3
    clock.now = 900
    assert stopwatch.take() == {"step": 3, "forward": 30, "loss": 8}
    assert stopwatch.take() == {}


def test_time_after_an_inner_part_can_have_a_name_of_its_own() -> None:
    clock = Steps()
    stopwatch = Stopwatch(clock)
    with stopwatch.part("pre", after="post"):
        clock.now += 1
        with stopwatch.part("network"):
            clock.now += 7
        clock.now += 2
        with stopwatch.part("network"):
            clock.now += 1
        clock.now += 3
    assert stopwatch.take(divided_by=2) == {"pre": 0.5, "network": 4, "post": 2.5}


def test_an_error_closes_the_parts() -> None:
    stopwatch = Stopwatch(Steps())
    with pytest.raises(KeyError), stopwatch.part("step"), stopwatch.part("forward"):
        raise KeyError
    assert not stopwatch.is_running


class Model(nn.Module):
    """Calls what is to be timed in each way that models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.assigner = Assigner()

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)

    def losses(self, x: torch.Tensor) -> Any:
        y = self(x)
        return y.sum() * self.assigner(1) * self.assigner.assign(1) + self.assigner.top


class Assigner:
    """Is called, has a method and a number."""

    top = 3

    def __call__(self, number: int) -> int:
        return number

    def assign(self, number: int) -> int:
        return number


def test_calls_are_timed_and_all_is_as_before() -> None:
    model, clock = Model(), Steps()
    x = torch.ones(1, 2)
    expected, before = model.losses(x), dict(vars(model))
    calls: list[str] = []

    class Counting(Stopwatch):
        def part(self, name: str, after: str | None = None) -> Any:
            calls.append(name)
            return super().part(name, after)

    stopwatch = Counting(clock)
    seams = [Seam(model, *names) for names in (("losses", "a"), ("forward", "b"), ("layer", "c"), ("assigner", "d"))]
    with timed_calls(stopwatch, seams):
        assert model.losses(x) == expected  # no part is open: nobody measures
        assert calls == []
        with stopwatch.part("whole"):
            assert model.losses(x) == expected
        assert calls == ["whole", "a", "b", "c", "d", "d"]
        assert len(list(model.parameters())) == 2
    assert dict(vars(model)) == before
    assert model.losses(x) == expected


def test_an_error_brings_everything_back() -> None:
    model = Model()
    before = dict(vars(model))
    with (
        pytest.raises(AttributeError),
        timed_calls(Stopwatch(Steps()), [Seam(model, "losses", "a"), Seam(model, "no", "b")]),
    ):
        pass
    assert dict(vars(model)) == before


def test_moments_of_a_gpu_are_events_behind_all_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            said.append("record")

        def synchronize(self) -> None:
            said.append("wait for event")

        def elapsed_time(self, end: Event) -> float:
            return 2500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append("wait for device"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = Clock("cuda")
    assert clock.seconds(clock.mark(), clock.mark()) == 2.5
    assert said == ["wait for device", "record"] * 2 + ["wait for event"]


def test_efforts_are_bounded() -> None:
    assert list(Effort(steps=4).repetitions()) == [0, 1, 2, 3]
    assert len(list(Effort(seconds=0).repetitions())) == 3
    assert len(list(Effort(seconds=1e9).repetitions())) == 50


def test_shares_are_of_the_medians() -> None:
    rounds = [{"a": 1.0, "b": 3.0}, {"a": 1.0, "b": 3.0}, {"a": 100.0, "b": 3.0}, {"b": 3.0}]
    a, b = parts_of_whole("step", "ms", rounds, {"b": "noted"})
    assert (a.values, a.median, a.share, a.note) == ((1.0, 1.0, 100.0, 0.0), 1.0, 0.25, "")
    assert (b.median, b.share, b.note) == (3.0, 0.75, "noted")


def test_a_measurement_without_values_is_none() -> None:
    with pytest.raises(ValueError, match="step, whole: expected at least one value"):
        Measurement("step", "whole", "ms", ())
