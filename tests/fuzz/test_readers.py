"""A bounded number of changed files a reader, always the same ones; ``make fuzz`` tries more of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.errors import DataError
from tests.fuzz.campaign import Target, TooSlowError, limited_memory, limited_time, try_input, try_inputs
from tests.fuzz.mutator import byte_mutator
from tests.fuzz.targets import TARGETS

COUNTS = (
    {"voc_xml": 400, "voc_list": 300, "coco_boxes": 500, "coco_masks": 500, "coco_semantic": 400, "semantic_voc": 200}
    | {"class_names": 200, "mask_values": 250, "mask_colors": 250, "image": 400, "config": 80, "overrides": 300}
    | {"yolo_labels": 100, "yolo_yaml": 80, "labelme": 100, "cvat": 100}
    | {"checkpoint": 30, "checkpoint_records": 30, "weights": 100, "checkpoint_entries": 15}
)
"""Inputs of each target, so that all take about 10 seconds; `make fuzz` goes on."""


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_rightly_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path / name)
    ends = [try_input(target, content)[0] for content in target.seeds]
    assert ends == ["read"] * len(target.seeds)
    with limited_memory():
        tally = try_inputs(target, 0, iter(range(COUNTS[name])))
    assert not tally.failures, tally.failures[0].details
    assert tally.counts["refused"] > 0
    assert tally.counts["not tested"] <= 0.2 * COUNTS[name]


@pytest.mark.parametrize("name", ["coco_masks", "voc_xml", "config", "image"])
def test_every_input_can_be_made_again(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    first, again, other = ([target.content(seed, number) for number in range(50, 100)] for seed in (5, 5, 6))
    assert first == again != other
    assert len(set(first)) > 40


def test_the_frame_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """Other errors, slow code, much memory and bad messages are failures."""

    def reader(error: Exception | None) -> Target:
        def read(content: bytes) -> None:
            if error is not None:
                raise error

        return Target("x", (b"",), byte_mutator(), read, "file.xml")

    assert try_input(reader(None), b"")[0] == "read"
    assert try_input(reader(DataError("file.xml: wrong")), b"")[0] == "refused"
    messages = ("wrong", "file.xml: \x1b[31m", "file.xml: " + "x" * 5000, "file.xml: a\nb")
    for wrong in (KeyError("id"), *map(DataError, messages)):
        end, failure = try_input(reader(wrong), b"")
        assert end == "failed"
        assert failure is not None
    with pytest.raises(TooSlowError, match="processor time"), limited_time(0.05):
        work_for_ever()
    with pytest.raises(MemoryError), limited_memory(1 << 28):
        np.ones(1 << 29, dtype=np.uint8)


def work_for_ever() -> None:
    while True:
        pass
