"""Files of weights that any program wrote: safetensors, or what ``torch.save`` writes. The content says which, not the
name. Read are tensors, and nothing that could run.

What can be verified is: zip archives of torch by their CRC-32, safetensors of ours by their SHA-256. Files of torch
before 1.6 and safetensors of other programs have no checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from detseg.checkpoint.ckpt_file import load_tensors, read_archive
from detseg.checkpoint.safetensors_file import FORMAT, read_weights
from detseg.errors import CheckpointError
from detseg.messages import one_line, shown

_ZIP, _PICKLE, _LFS = b"PK\x03\x04", b"\x80\x02", b"version https://git-lfs"
_LONGEST_NAME = 4096  # mappings in mappings without end would have names without end


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, those of a mapping in a mapping as ``outer.inner``.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, holds other things that would be run, or no
            tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {_why_no_file(path)}")
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        raise CheckpointError(f"{path}: could not be read ({one_line(error)})") from error
    if start.startswith(_ZIP):
        content = read_archive(path)
    elif start.startswith(_PICKLE):
        content = load_tensors(path)
    elif start[8:9] == b"{":
        content = _read_safetensors(path)
    elif start == _LFS:
        raise CheckpointError(f"{path}: a pointer of Git LFS, not the file itself; fetch that with git lfs pull")
    else:
        what = f"expected safetensors or what torch.save writes, the file begins with {shown(start[:16])}"
        raise CheckpointError(f"{path}: {what}; download or copy it again")
    if not (tensors := _flattened(content, path)):
        raise CheckpointError(f"{path}: expected tensors by name, found none; save model.state_dict()")
    return tensors


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder; give a file in it"
    if path.parts[0] in ("http:", "https:"):
        return "nothing is downloaded here; download the file, and give its path"
    return "no such file of weights" + ("; ~ is not expanded, write the whole path" if path.parts[0] == "~" else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except MemoryError:
        raise
    except Exception as error:  # what safetensors and torch raise on damaged bytes is not a closed list
        raise CheckpointError(f"{path}: damaged ({one_line(error)}); download or copy it again") from error
    return read_weights(path).weights


def _flattened(content: Any, path: Path) -> dict[str, Tensor]:
    found, waiting = dict[str, Tensor](), [("", content)]
    while waiting:
        name, value = waiting.pop()
        if len(name) > _LONGEST_NAME:
            raise CheckpointError(f"{path}: names of more than {_LONGEST_NAME} letters; save model.state_dict()")
        if isinstance(value, Mapping):
            waiting += [(f"{name}.{key}" if name else str(key), value[key]) for key in reversed(list(value))]
        elif isinstance(value, Tensor) and name:
            found[name] = value
    return found
