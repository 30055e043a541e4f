"""The largest batch on a device whose need is a known straight line, and the learning rate, computed by hand."""

from __future__ import annotations

import pytest

from detseg.config.load import config_from_dict
from detseg.experiment.batch_search import Found, largest_reckoned, largest_tried, rounded_down, scaled_rate


class Machine:
    """Training takes ``fixed`` bytes and ``each`` an image; what takes more than ``room`` does not fit."""

    def __init__(self, fixed: int, each: int, room: int = 10**9) -> None:
        self.fixed, self.each, self.room = fixed, each, room
        self.tried: list[int] = []

    def measure(self, num_images: int) -> int | None:
        self.tried.append(num_images)
        num_bytes = self.fixed + self.each * num_images
        return num_bytes if num_bytes <= self.room else None


@pytest.mark.parametrize(
    ("num", "expected"), [(1, 1), (7, 7), (8, 8), (9, 8), (11, 8), (12, 12), (39, 36), (1024, 1024)]
)
def test_rounding(num: int, expected: int) -> None:
    assert rounded_down(num) == expected


@pytest.mark.parametrize(
    ("fixed", "each", "room", "limit", "most", "expected"),
    [
        (100, 10, 1000, 850, 1024, 72),  # (850 - 100) / 10 = 75
        (100, 10, 700, 850, 1024, 60),  # refused beyond 60
        (100, 10, 1000, 850, 20, 20),
        (100, 10, 1000, 850, 21, 20),
        (100, 200, 1000, 850, 1024, 3),  # 700 fits, 900 does not
        (0, 1, 10**9, 10**9, 1024, 1024),
        (800, 50, 1000, 850, 1024, 1),
    ],
)
def test_by_trying(fixed: int, each: int, room: int, limit: int, most: int, expected: int) -> None:
    machine = Machine(fixed, each, room)
    found = largest_tried(machine.measure, limit, most)
    assert found is not None
    assert (found.num_images, found.num_bytes) == (expected, fixed + each * expected)
    assert machine.tried[0] == 1
    assert len(machine.tried) <= 20
    assert len(set(machine.tried)) == len(machine.tried)


def test_not_even_one_image_by_trying() -> None:
    assert largest_tried(Machine(900, 1).measure, 850, 1024) is None
    assert largest_tried(Machine(900, 1, room=10).measure, 850, 1024) is None


@pytest.mark.parametrize(
    ("fixed", "each", "available", "most", "expected"),
    [
        (100, 10, 2000, 1024, 88),  # half: 1000; (1000 - 100) / 10 = 90
        (100, 10, 2000, 50, 48),
        (100, 10, 2000, 3, 3),
        (100, 10, 2000, 1, 1),
        (100, 100, 1000, 1024, 4),
        (100, 100, 1250, 1024, 5),  # half: 625; 4 take 500, one more 100
        (100, 100, 600, 1024, 2),  # half: 300, which two take; four are never tried: 2 × 300 is more than 480
        (0, 450, 1000, 1024, 1),  # two may take 900, more than 800
    ],
)
def test_by_a_straight_line(fixed: int, each: int, available: int, most: int, expected: int) -> None:
    machine = Machine(fixed, each)
    found = largest_reckoned(machine.measure, available, most, least_per_image=1)
    assert found is not None
    assert (found.num_images, found.num_bytes) == (expected, fixed + each * expected)
    assert all(fixed + each * num <= 0.8 * available for num in machine.tried)


def test_the_steepest_part_of_the_line_counts() -> None:
    measured = {1: 100, 2: 102, 4: 122}  # one more image: 2, then 10
    found = largest_reckoned(measured.get, 400, 1024, least_per_image=1)
    assert found == Found(8, 162, measured)  # half: 200, 4 + 78 / 10 = 11, rounded to 8


def test_small_models_are_bounded_by_their_images() -> None:
    found = largest_reckoned(lambda num: 100, 400, 1024, least_per_image=5)
    assert found == Found(24, 200, {1: 100, 2: 100, 4: 100})  # 4 + 100 / 5


def test_a_trial_that_is_killed_ends_the_search() -> None:
    assert largest_reckoned({1: 100, 2: 150}.get, 1000, 1024, 1) == Found(8, 450, {1: 100, 2: 150})  # 2 + 350/50 = 9
    assert largest_reckoned({1: 100}.get, 1000, 1024, 1) == Found(1, 100, {1: 100})
    assert largest_reckoned(lambda num: None, 1000, 1024, 1) is None
    assert largest_reckoned({1: 600}.get, 1000, 1024, 1) is None


@pytest.mark.parametrize(
    ("name", "num_images", "expected"),
    [
        ("sgd", 16, 0.01),
        ("sgd", 32, 0.02),
        ("sgd", 4, 0.0025),
        ("adamw", 64, 0.02),
        ("adam", 4, 0.005),
        ("rmsprop", 8, 0.007071),
    ],
)
def test_the_rate(name: str, num_images: int, expected: float) -> None:
    settings = {"optimizer": {"name": name, "lr": 0.01}, "data": {"name": "voc", "root": "x"}}
    assert scaled_rate(config_from_dict(settings, "settings").optimizer, num_images) == expected
