"""A bounded number of changed files a reader, always the same ones; ``make fuzz`` tries more of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from detseg.errors import DataError
from tests.fuzz.campaign import Target, TooSlowError, limited_memory, limited_time, try_input, try_inputs
from tests.fuzz.mutator import byte_mutator, mutate_json, mutate_xml, mutate_yaml, png_chunks
from tests.fuzz.targets import TARGETS

COUNTS = (
    {"voc_xml": 800, "voc_list": 600, "coco_boxes": 1000, "coco_masks": 1000, "coco_semantic": 800, "semantic_voc": 400}
    | {"class_names": 400, "mask_values": 500, "mask_colors": 500, "image": 800, "config": 160, "overrides": 600}
    | {"checkpoint": 60, "checkpoint_records": 60, "weights": 200, "checkpoint_entries": 30}
)
"""Inputs of each target, so that all take about 15 seconds."""


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_rightly_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path / name)
    ends = [try_input(target, content)[0] for content in target.seeds]
    assert ends == ["read"] * len(target.seeds)
    with limited_memory():
        tally = try_inputs(target, 0, iter(range(COUNTS[name])))
    assert not tally.failures, tally.failures[0].details
    assert tally.counts["refused"] > 0
    assert tally.tried >= 0.8 * COUNTS[name]


def test_every_input_can_be_made_again(tmp_path: Path) -> None:
    target = TARGETS["coco_masks"](tmp_path)
    first = [target.content(5, number) for number in range(50)]
    assert first == [target.content(5, number) for number in range(50)]
    assert len(set(first)) > 40
    assert first != [target.content(6, number) for number in range(50)]


def test_the_frame_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """Other errors, slow code, much memory and bad messages are failures."""

    def reader(error: Exception | None) -> Target:
        def read(content: bytes) -> None:
            if error is not None:
                raise error

        return Target("x", (b"",), byte_mutator(), read, "file.xml")

    assert try_input(reader(None), b"")[0] == "read"
    assert try_input(reader(DataError("file.xml: wrong")), b"")[0] == "refused"
    for wrong in (
        KeyError("id"),
        DataError("wrong"),
        DataError("file.xml: \x1b[31m"),
        DataError("file.xml: " + "x" * 5000),
        DataError("file.xml: a\nb"),
    ):
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


@pytest.mark.parametrize("mutate", [byte_mutator(), png_chunks, mutate_json, mutate_xml, mutate_yaml])
def test_mutators_change_and_repeat(mutate: object) -> None:
    seeds = {
        png_chunks: b"\x89PNG\r\n\x1a\n" + (b"\x00\x00\x00\x04IDATabcd\x00\x00\x00\x00") * 3,
        mutate_json: b'{"a": [1, 2, {"b": "c"}], "d": null}',
        mutate_xml: b"<a><b>1</b><b>2</b><c><d/></c></a>",
        mutate_yaml: b"a: [1, 2]\nb: {c: d}\n",
    }
    assert callable(mutate)
    seed = seeds.get(mutate, b"some bytes of a file")
    results = [mutate(seed, random.Random(k)) for k in range(200)]
    assert results == [mutate(seed, random.Random(k)) for k in range(200)]
    assert len(set(results)) > 100
