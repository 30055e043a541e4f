"""Files that mean harm, made on the spot; what they would do is to leave a file, by which it is seen that they ran."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from detseg.checkpoint import ENTRY, model_entry
from detseg.structures import ClassTable
from tests.fuzz.mutator import put_together


class Opens:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return (open, (str(self.target), "w"))


class Shells(Opens):
    """Starts a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return (os.system, (f"touch '{self.target}'",))


def innocent(**extra: Any) -> dict[str, Any]:
    """What a checkpoint of ours holds, and something else."""
    entry = model_entry({"model": {"name": "yolo"}}, ClassTable(("a",)))
    return {"state_dict": {"model.w": torch.zeros(4)}, "epoch": 0, "global_step": 1, ENTRY: entry} | extra


def in_torch_zip(content: Any) -> bytes:
    """What ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def with_another_pickle(pickled: bytes) -> bytes:
    """A checkpoint of ours whose pickle was exchanged behind its back."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(in_torch_zip(innocent()))) as source, zipfile.ZipFile(stream, "w") as target:
        for entry in source.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            target.writestr(entry.filename, pickled if is_pickle else source.read(entry))
    return stream.getvalue()


def _legacy(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


CODE: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda target: pickle.dumps(innocent(extra=Opens(target))),
    "an old pickle": lambda target: pickle.dumps(Shells(target), protocol=0),
    "in torch's old format": lambda target: _legacy(innocent(extra=Shells(target))),
    "in torch's zip": lambda target: in_torch_zip(innocent(extra=Opens(target))),
    "as the weights of torch's zip": lambda target: in_torch_zip(innocent(state_dict=Shells(target))),
    "behind the pickle of a checkpoint": lambda target: with_another_pickle(pickle.dumps(Shells(target), protocol=2)),
}
"""Ways to hide code in a checkpoint, each as a function of the file that it would leave."""


def compressed_bomb() -> bytes:
    """A torch archive of 60 kB that takes 60 MB: its numbers are compressed."""
    stream = io.BytesIO()
    large = in_torch_zip(innocent(extra=torch.zeros(15_000_000)))
    with zipfile.ZipFile(io.BytesIO(large)) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return stream.getvalue()


def overlapping_bomb() -> bytes:
    """A torch archive whose directory names the same bytes a thousand times."""
    content = in_torch_zip(innocent(extra=torch.zeros(100_000)))
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        start = source.start_dir
        directory = content[start : content.rindex(b"PK\x05\x06")].split(b"PK\x06\x06")[0]
        num = len(source.infolist())
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, num * 1000, num * 1000, len(directory) * 1000, start, 0)
    return content[:start] + directory * 1000 + end


def laughing_lists() -> list[Any]:
    """Ten lists in ten lists in ten ...: thirty objects that take 10^30 steps to walk through."""
    level: list[Any] = ["ha"]
    for _ in range(30):
        level = [level] * 10
    return level


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG of a size in its header, with a few bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return put_together([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])
