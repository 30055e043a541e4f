"""What is said when a run goes on with other data."""

from __future__ import annotations

from typing import Literal, cast

import pytest

from detseg.data.datasets.fingerprint import Fingerprint
from detseg.errors import CheckpointError
from detseg.training.resume.data_changes import DataGuard
from tests.heard import heard


def fingerprint(images: int = 205, **changed: str) -> Fingerprint:
    digests = {"names": "a1", "annotations": "b2", "files": "c3", "masks": "", "pipeline": ""} | changed
    return cast(Fingerprint, {"version": 2, "images": images, **digests})


def guard(train: Fingerprint, on_change: Literal["error", "warn"] = "error") -> DataGuard:
    return DataGuard({"train": train, "val": fingerprint(20)}, on_change)


BEFORE = {"train": fingerprint(), "val": fingerprint(20)}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (fingerprint(204, names="z", annotations="z", files="z"), "train: 205 images, now 204; bring"),
        (fingerprint(names="z"), "train: the names of the images, or their order, changed; bring"),
        (fingerprint(annotations="z"), "train: the annotations changed; bring"),
        (fingerprint(files="z"), "train: the image files changed (sizes); bring"),
        (fingerprint(masks="z"), "train: the mask files changed (sizes); bring"),
        (fingerprint(pipeline="z"), "train: the pipeline of data.augmentation.albumentations changed; bring"),
        (
            fingerprint(annotations="z", files="z"),
            "train: the annotations changed; train: the image files changed (sizes); bring",
        ),
    ],
)
def test_each_change_is_named_with_its_mend(now: Fingerprint, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        guard(now).check(BEFORE)
    message = str(caught.value)
    assert message.startswith(f"the data is not what the run began with: {words}")
    assert message.endswith("the data back, or go on with what it is now: data.on_change=warn")


def test_a_warning_is_one_line_and_the_run_goes_on() -> None:
    with heard() as lines:
        guard(fingerprint(files="z"), "warn").check(BEFORE)
    assert lines == [
        "the data is not what the run began with: train: the image files changed (sizes); the run goes on "
        "with what it is now (data.on_change=warn)"
    ]


def test_the_same_data_and_checkpoints_without_fingerprints_say_nothing() -> None:
    with heard() as lines:
        guard(fingerprint()).check(BEFORE)
        guard(fingerprint()).check(None)
    assert lines == []


def test_a_fingerprint_of_another_version_is_not_compared() -> None:
    with heard() as lines:
        for version in ({}, {"version": 1}):
            guard(fingerprint(204, annotations="z")).check({"train": {"images": 205, "annotations": "b2", **version}})
    assert (
        lines == ["the data was not compared with that of the run's start: another version of detseg wrote it down"] * 2
    )
