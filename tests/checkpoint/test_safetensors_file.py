"""Weights as safetensors: the same model as the checkpoint's, and nothing of damaged, foreign or hostile files."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint, read_raw_checkpoint, write_weights
from detseg.cli.deploy.export_weights import export_weights
from detseg.cli.train import train
from detseg.errors import CheckpointError
from detseg.evaluation import evaluate_checkpoint
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")


def small() -> ModelCheckpoint:
    shared = torch.arange(6.0)
    weights = {
        "b.weight": shared.reshape(2, 3).T,  # not laid out row by row
        "a.bias": shared[:2],  # the same memory
        "a.count": torch.tensor(7),
        "a.half": torch.tensor([0.1], dtype=torch.bfloat16),
    }
    return ModelCheckpoint({"model": {"name": "yolo"}, "seed": 0.1}, ClassTable(("é", "b"), (90, 3)), weights, 12)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new" / "small.safetensors"
    write_weights(path, small())
    return path


def test_what_was_written_is_read(file: Path) -> None:
    found, expected = read_model_checkpoint(file), small()
    assert (found.config, found.classes, found.epoch) == (expected.config, expected.classes, expected.epoch)
    assert found.weights.keys() == expected.weights.keys()
    for name, value in expected.weights.items():
        assert found.weights[name].dtype == value.dtype
        assert torch.equal(found.weights[name], value), name
    with safe_open(file, framework="np") as opened:  # as another program
        metadata = opened.metadata()
    assert (metadata["format"], metadata["epoch"]) == ("detseg-weights-1", "12")
    assert json.loads(metadata["classes"]) == {"names": ["é", "b"], "source_ids": [90, 3]}
    assert json.loads(metadata["config"]) == small().config
    with pytest.raises(CheckpointError, match=r"new: could not be written \(.*Is a directory"):
        write_weights(file.parent, small())
    assert os.listdir(file.parent) == [file.name]


def test_weights_and_metrics_stay(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.safetensors"
    assert said(export_weights, [str(tiny_run.best), str(out)], capsys) == (0, "")
    expected, found = read_model_checkpoint(tiny_run.best), read_model_checkpoint(out)
    assert (found.config, found.classes, found.epoch) == (expected.config, expected.classes, expected.epoch)
    assert all(torch.equal(value, found.weights[name]) for name, value in expected.weights.items())
    (tmp_path / "plain").touch()
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode  # as the user's umask has it
    result = evaluate_checkpoint(out, "val", device="cpu").to_dict()
    assert result == evaluate_checkpoint(tiny_run.best, "val", device="cpu").to_dict()
    assert (tmp_path / "evaluation_val_tiny.json").is_file()


def test_the_tool_replaces_nothing(tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("mine")
    code, message = said(export_weights, [str(tiny_run.best), str(out)], capsys)
    assert (code, out.read_text()) == (2, "mine")
    assert message == f"error: {out}: exists already; choose another name, or replace it with --overwrite\n"
    code, message = said(export_weights, [str(tiny_run.best), str(tmp_path / "a.pt")], capsys)
    assert code == 2
    assert "expected a name that ends in .safetensors" in message
    assert said(export_weights, [str(tiny_run.best), str(out), "--overwrite"], capsys) == (0, "")
    assert read_model_checkpoint(out).classes.names == ("blue", "red", "yellow")


def test_no_run_goes_on_from_weights_alone(file: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match=r"small\.safetensors: holds weights alone; a run resumes from a \.ckpt"):
        read_raw_checkpoint(file)
    code, message = said(train, [str(tiny_run.config_path), f"--resume={file}"], capsys)
    assert (code, message.count("\n")) == (2, 1)
    assert f"{file}: holds weights alone" in message


def raw(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "empty": b"",
    "not one": b"PK\x03\x04 something else",
    "a header of four exabytes": raw(b"{}", length=2**62),
    "a header beyond the file": raw(b"{}", length=10**8),
    "a header of depth 10^5": raw(b"[" * 100_000),
    "metadata of depth 10^5": raw(b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "overlapping tensors": raw(header(a=FLOATS, b=FLOATS | {"data_offsets": [4, 12]}), bytes(12)),
    "a tensor beyond the file": raw(header(a=FLOATS | {"shape": [10**12], "data_offsets": [0, 4 * 10**12]}), bytes(8)),
    "a product that overflows": raw(header(a=FLOATS | {"shape": [2**63, 2**63]}), bytes(8)),
    "a hole before the numbers": raw(header(a=FLOATS | {"data_offsets": [4, 12]}), bytes(12)),
    "offsets that run backwards": raw(header(a=FLOATS | {"data_offsets": [8, 0]}), bytes(8)),
    "a kind of number that is none": raw(header(a=FLOATS | {"dtype": "PICKLE"}), bytes(8)),
    "no metadata": raw(header(a=FLOATS), bytes(8)),
    "those of another program": raw(header(a=FLOATS, __metadata__={"format": "pt"}), bytes(8)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_files_are_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^.*hostile\.safetensors: (damaged|not weights of detseg)") as caught:
        read_model_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def signed(path: Path, **texts: str) -> Path:
    """A file of ours with other metadata, and the checksum of them that every version writes."""
    tensors = {"a": torch.zeros(2)}
    metadata = {
        "format": "detseg-weights-1",
        "config": "{}",
        "classes": '{"names": ["a"], "source_ids": [1]}',
        "epoch": "1",
    } | texts
    parts = [f"=%d:{text}" % len(text.encode()) for item in sorted(metadata.items()) for text in map(repr, item)]
    digest = hashlib.sha256(f"[2{{{len(metadata)}{''.join(parts)}{{1=3:'a'torch.float32(2,)".encode() + bytes(8))
    save_file(tensors, path, metadata=metadata | {"sha256": digest.hexdigest()})
    return path


@pytest.mark.parametrize(
    "texts",
    [
        {"config": "[" * 100_000},
        {"config": '{"a":' * 100_000},
        {"config": "[]"},
        {"config": "no json"},
        {"classes": "{}"},
        {"classes": '{"names": [], "source_ids": []}'},
        {"classes": '{"names": ["a", "a"], "source_ids": [1, 2]}'},
        {"classes": '{"names": ["\\u001b[31m"], "source_ids": [1]}'},
        {"classes": '{"names": [1], "source_ids": [1]}'},
        {"epoch": "many"},
        {"epoch": "9" * 5000},
    ],
    ids=lambda texts: str(texts)[:40],
)
def test_metadata_that_mean_nothing_are_one_line(texts: dict[str, str], tmp_path: Path) -> None:
    assert read_model_checkpoint(signed(tmp_path / "b.safetensors")).classes == ClassTable(("a",))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: an entry is missing or malformed") as caught:
        read_model_checkpoint(signed(tmp_path / "a.safetensors", **texts))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_changed_bit_is_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for position in np.linspace(len(content) - 40, len(content) - 1, 10).astype(int).tolist():
        content[position] ^= 4
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="does not have its checksum"):
            read_model_checkpoint(file)
        content[position] ^= 4
    file.write_bytes(content)
    assert read_model_checkpoint(file).epoch == 12
