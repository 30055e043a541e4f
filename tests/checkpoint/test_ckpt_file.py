"""Checkpoint files: whole or not at all.  Hostile ones: tests/security/test_checkpoints.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import ENTRY, model_entry, read_model_checkpoint, read_raw_checkpoint, save_atomically
from detseg.errors import CheckpointError
from detseg.structures import ClassTable
from tests.bits import digest_of

TABLE = ClassTable(("cat", "dog"), (17, 18))


def contents(**others: Any) -> dict[str, Any]:
    return {
        ENTRY: model_entry({"seed": 3}, TABLE),
        "epoch": 4,
        "state_dict": {"model.weight": torch.ones(2), "evaluator": torch.zeros(1)},
        **others,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    save_atomically(contents(), path)
    return path


def test_what_a_predictor_needs_comes_back_with_averaged_weights_where_there_are_some(file: Path) -> None:
    found = read_model_checkpoint(file)
    assert (found.config, found.classes, found.epoch) == ({"seed": 3}, TABLE, 5)
    assert {name: value.tolist() for name, value in found.weights.items()} == {"weight": [1.0, 1.0]}
    weights = {"model.weight": torch.ones(2), "average.model.weight": torch.full((2,), 5.0)}
    save_atomically(contents(state_dict=weights), file)
    found = read_model_checkpoint(file)
    assert {name: value.tolist() for name, value in found.weights.items()} == {"weight": [5.0, 5.0]}


@contextmanager
def small_disk(num_bytes: int) -> Iterator[None]:
    """The system writes no more than this to any file, as if the disk were full."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("copy", [None, "best.ckpt"])
def test_a_full_disk_leaves_the_old_file(copy: str | None, file: Path) -> None:
    before, large = file.read_bytes(), contents(weight=torch.zeros(10**6))
    kept = {"previous": file.with_name("previous.ckpt"), "copy": file.with_name(copy) if copy else None}
    with small_disk(10**6), pytest.raises(CheckpointError) as caught:
        save_atomically(large, file, **kept)
    assert str(caught.value).startswith(f"{file}: could not be written (")
    assert str(caught.value).endswith(" MB are free there); the previous file is untouched")
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_what_cannot_be_renamed_or_made_leaves_the_old_files(file: Path) -> None:
    before, folder = file.read_bytes(), file.parent / "folder.ckpt"
    (folder / "in it").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"folder\.ckpt: could not be written \(Is a directory; \d+ MB are free"):
        save_atomically(contents(epoch=9), folder)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: could not be written \(Is a directory"):
        save_atomically(contents(epoch=9), file, previous=folder)
    with pytest.raises(CheckpointError, match=r"last\.ckpt/a\.ckpt: could not be written"):
        save_atomically(contents(), file / "a.ckpt")
    assert file.read_bytes() == before
    assert sorted(os.listdir(file.parent)) == ["folder.ckpt", file.name]


def test_the_newest_two_are_kept_and_a_copy_is_the_same(file: Path) -> None:
    first, best = file.read_bytes(), file.with_name("best.ckpt")
    save_atomically(contents(epoch=9), file, previous=file.with_name("previous.ckpt"), copy=best)
    assert file.with_name("previous.ckpt").read_bytes() == first
    assert best.read_bytes() == file.read_bytes() != first
    assert sorted(os.listdir(file.parent)) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


def test_a_bit_that_torch_does_not_miss_is_missed_by_the_checksum(file: Path) -> None:
    save_atomically(contents(state_dict={"model.weight": torch.arange(10000.0)}), file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    altered = torch.load(file, weights_only=True)["state_dict"]["model.weight"]
    assert not torch.equal(altered, torch.arange(10000.0))
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged or not .*: '\w+/data/0' does not have its CRC-32"):
        read_model_checkpoint(file)


def test_any_changed_bit_is_refused_or_changes_nothing(file: Path) -> None:
    """Names, sizes and places of the archive count as well; the space between its records does not."""
    data, written = file.read_bytes(), digest_of(read_raw_checkpoint(file))
    num_refused = 0
    folder_bit = (data.rindex(b"archive/data/0") - 8, 4)  # of the record's attributes: torch would not read it then
    for place, bit in [*((place, place % 8) for place in range(0, len(data), 3)), folder_bit]:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        try:
            assert digest_of(read_raw_checkpoint(file)) == written, place
        except CheckpointError:
            num_refused += 1
    assert num_refused > len(data) // 12


@pytest.mark.parametrize("content", [b"just text\n", b"\x80", b"PK\x03\x04", b"\x00" * 64, 0.0, 0.3, 0.99])
def test_other_files_and_files_cut_short_are_refused(content: bytes | float, file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(content if isinstance(content, bytes) else data[: int(len(data) * content)])
    with pytest.raises(CheckpointError) as caught:
        read_model_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "not a detseg checkpoint (it has no 'detseg' entry)"),
        ([1, 2], "not a detseg checkpoint (it has no 'detseg' entry)"),
        ({ENTRY: {"format": 2}}, "checkpoint format 2, this version reads format 1"),
        ({ENTRY: {"format": 1}}, "an entry is missing or malformed ('config')"),
        ({**contents(), "epoch": None}, "an entry is missing or malformed ("),
    ],
)
def test_what_is_not_ours_is_refused(content: object, message: str, file: Path) -> None:
    torch.save(content, file)
    with pytest.raises(CheckpointError) as caught:
        read_model_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_a_missing_file_names_those_that_are_there(file: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_raw_checkpoint(file.with_name("lst.ckpt"))
    assert str(caught.value) == f"{file.parent}/lst.ckpt: no such checkpoint file; there are last.ckpt"
    with pytest.raises(CheckpointError, match=r"no such checkpoint file$"):
        read_raw_checkpoint(file.parent / "nowhere" / "a.ckpt")
