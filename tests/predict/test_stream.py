"""Results one after the other, of any iterable, and what becomes of images that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.errors import ConfigError, DataError
from detseg.predict import Predictor, SegmentationPredictor
from detseg.structures import ClassTable
from tests.predict.networks import FoundMasks, noise, two_levels

CLASSES = ClassTable(("sky", "road", "car"), (5, 7, 90))


@pytest.fixture(params=["objects", "maps"])
def predictor(request: pytest.FixtureRequest) -> Any:
    if request.param == "objects":
        return Predictor(FoundMasks(torch.tensor([[10.0, 20, 50, 44]])).eval(), CLASSES, (64, 96))
    return SegmentationPredictor(two_levels(3), CLASSES, (48, 64))


@pytest.fixture
def images(tmp_path: Path) -> list[Any]:
    """Of heights 40 to 45; the second and the last one cannot be read."""
    (tmp_path / "bad.png").write_text("no image")
    arrays = [noise(40 + i, 60) for i in range(6)]
    return [arrays[0], tmp_path / "bad.png", *arrays[2:5], tmp_path / "none.png"]


def heights(results: list[Any]) -> list[int | str]:
    return ["error" if isinstance(one, DataError) else one.image.shape[0] for one in results]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
def test_t6_unreadable_images(predictor: Any, images: list[Any], batch_size: int, caplog: Any) -> None:
    returned = list(predictor.stream(images, batch_size, on_error="return"))
    assert heights(returned) == [40, "error", 42, 43, 44, "error"]
    assert "bad.png: not an image" in str(returned[1])
    assert not caplog.messages
    assert heights(list(predictor.stream(iter(images), batch_size, on_error="skip"))) == [40, 42, 43, 44]
    first, second = caplog.messages
    assert first.startswith("left out: ")
    assert "bad.png" in first
    assert "none.png" in second
    done: list[Any] = []
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        done.extend(predictor.stream(images, batch_size))
    assert heights(done) == [40]  # what came before


def test_images_are_taken_a_batch_at_a_time(predictor: Any) -> None:
    taken = []

    def coming() -> Iterator[Any]:
        for i in range(1000):
            taken.append(i)
            yield noise(40 + i % 2, 60)

    results = predictor.stream(coming(), batch_size=3)
    assert taken == []
    assert next(results).image.shape == (40, 60, 3)
    assert taken == [0, 1, 2]


def test_with_tiles_images_are_taken_one_by_one(predictor: Any) -> None:
    taken: list[int] = []
    coming = (taken.append(i) or noise(40 + i, 60) for i in range(5))
    for i, found in enumerate(predictor.stream(coming, batch_size=3, tile=(32, 32))):
        assert found.image.shape == (40 + i, 60, 3)
        assert taken == list(range(i + 1))


def test_an_error_of_the_iterable_follows_the_results(predictor: Any) -> None:
    def coming() -> Iterator[Any]:
        yield noise(40, 60)
        yield noise(41, 60)
        raise RuntimeError("the camera is gone")

    done: list[Any] = []
    with pytest.raises(RuntimeError, match="the camera is gone"):
        done.extend(predictor.stream(coming(), batch_size=8, on_error="skip"))
    assert heights(done) == [40, 41]


def test_wrong_arguments_are_one_line_at_once(predictor: Any) -> None:
    assert list(predictor.stream([])) == []
    for alone in ("a.png", np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(TypeError, match="stream: expected several images, such as a list, got one"):
            predictor.stream(alone)
    with pytest.raises(TypeError, match="image: expected a path"):
        predictor.stream(5)
    options: list[tuple[dict[str, Any], str]] = [
        ({"on_error": "ignore"}, "on_error: expected raise, skip, return, got 'ignore'"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size: expected a whole number of at least 1, got 1.5"),
        (
            {"tiles": (64, 96)},
            r"tiles: predictors of this kind have no such option \(did you mean 'tile'\?\); they have ",
        ),
    ]
    for wrong, message in options:
        with pytest.raises(ConfigError, match=f"^{message}"):
            predictor.stream([], **wrong)
