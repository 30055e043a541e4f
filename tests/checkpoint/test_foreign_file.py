"""Files of weights of any program: what is in them decides how they are read, and nothing in them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detseg.checkpoint import ModelCheckpoint, read_tensors, write_weights
from detseg.errors import CheckpointError
from detseg.structures import ClassTable
from tests.security import hostile

STATE = {"a.weight": torch.arange(100.0), "b_c": torch.ones(2, 3)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.SAFETENSORS", "w.ckpt", "w"])
@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "safetensors", "ours"])
def test_the_content_says_which_kind_it_is(kind: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    match kind:
        case "safetensors":
            save_file(STATE, file)
        case "ours":
            write_weights(file, ModelCheckpoint({}, ClassTable(("a",)), STATE, 1))
        case _:
            torch.save(STATE, file, _use_new_zipfile_serialization=kind == "zip")
    found = read_tensors(file)
    assert found.keys() == STATE.keys()
    assert all(value.equal(STATE[key]) for key, value in found.items())


def test_mappings_in_mappings_are_flattened(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": torch.tensor(70.1), "x": {"y": STATE}, 1: {}, "args": [STATE]}, tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth")) == ["best", "x.y.a.weight", "x.y.b_c"]


def changed(kind: str, path: Path) -> bytes:
    """A file with one bit of its tensors flipped."""
    if kind == "ours":
        write_weights(path, ModelCheckpoint({}, ClassTable(("a",)), STATE, 1))
    else:
        torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    content[content.index(STATE["a.weight"].numpy().tobytes()) + 8] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("zip", r"damaged or not a checkpoint: '\w+/data/0' does not have its CRC-32; take another"),
        ("ours", r"damaged: its content does not have its checksum"),
        (LFS, "a pointer of Git LFS, not the file itself; fetch that with git lfs pull"),
        (b"", "expected safetensors or what torch.save writes, the file begins with b''; download or copy it again"),
        (b"<!DOCTYPE html>", "expected safetensors or .*, the file begins with b'<!DOCTYPE html>'; download"),
        (b"PK\x03\x04 and no more", "damaged or not a checkpoint: File is not a zip file"),
        (b"\x80\x02 and no more", "holds more than tensors and plain data, or is damaged; it was not loaded"),
        (bytes(8) + b"{ and no more", "damaged .*; download or copy it again"),
        (nn.Linear(2, 2), "holds more than tensors .*; it was not loaded, since that .*; save model.state_dict\\(\\)"),
        ([("a", torch.zeros(1))], "expected tensors by name, found none; save model.state_dict"),
        ({"state_dict": {}}, "expected tensors by name, found none"),
        ({"a": torch.zeros(1).expand(10**12)}, ".*it pretends to hold far more than its file does"),
        (hostile.compressed_bomb(), ".*it holds compressed records or folders"),
    ],
    ids=lambda value: f"{value}"[:20],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_refused(content: Any, message: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    if isinstance(content, str):
        content = changed(content, file)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=rf"a\{suffix}: {message}") as caught:
        read_tensors(file)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice to turn it off


@pytest.mark.parametrize("hide", hostile.CODE.values(), ids=list(hostile.CODE))
def test_code_does_not_run(hide: Callable[[Path], bytes], tmp_path: Path) -> None:
    target = tmp_path / "it ran"
    (tmp_path / "a.pth").write_bytes(hide(target))
    with pytest.raises(CheckpointError):
        read_tensors(tmp_path / "a.pth")
    assert not target.exists()


def test_mappings_without_end(tmp_path: Path) -> None:
    depth = 100_000
    pickled = b"\x80\x02" + b"}X\x01\x00\x00\x00x" * depth + b"N" + b"s" * depth + b"."
    (tmp_path / "a.pth").write_bytes(hostile.with_another_pickle(pickled))
    with pytest.raises(CheckpointError, match=r"a\.pth: names of more than 4096 letters"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nope.pth", "nope.pth: no such file of weights"),
        ("~/nope.pth", "~/nope.pth: no such file of weights; ~ is not expanded, write the whole path"),
        ("https://x.org/a.pth", "https:/x.org/a.pth: nothing is downloaded here; download the file, and give its path"),
        (".", ".: is a folder; give a file in it"),
    ],
)
def test_what_is_no_file(path: str, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(Path(path))
    assert str(caught.value) == message
