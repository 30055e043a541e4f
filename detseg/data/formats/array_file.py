"""Arrays and a little plain data in one file, which many processes map into their memory and share.

The format is safetensors': eight bytes of the header's length, the header in JSON, the arrays one after the other.  The
metadata hold a SHA-256 over the rest of the header and the arrays.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.data.formats.file_digest import FileDigest, digest_of

_DTYPES = {"F64": np.float64, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_MOST_HEADER_BYTES = 1 << 24

PARTIAL = ".partial"
"""How the names of files end that are being written."""

Arrays = dict[str, npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], content: dict[str, Any]) -> None:
    """Write a file whole or not at all, also beside other processes that write the same one.

    It is not synced to the disk, which takes longer than all the rest: what a crash of the machine leaves is noticed by
    its checksum.

    Args:
        path: the file; an existing one is replaced.
        arrays: of the types float64, int64, int32, uint8 and bool.
        content: plain data.

    Raises:
        OSError: the disk refused.
    """
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)  # so that each begins where its type may
    data, header, end = FileDigest(), {}, 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        data.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    text = json.dumps(content)
    metadata = {"content": text, "sha256": _checksum(header, text, data.hexdigest())}
    head = json.dumps({"__metadata__": metadata, **header}).encode()
    head += b" " * (-len(head) % 8)
    handle, partial = tempfile.mkstemp(PARTIAL, ".", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for _, array in ordered:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_arrays(path: Path, verify: bool = True) -> tuple[Arrays, dict[str, Any]]:
    """What was written; the arrays are mapped, not read, and cannot be written to.

    Args:
        path: the file.
        verify: whether to read all of it and compare the checksum.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or belongs to another user.
    """
    with path.open("rb") as file:
        if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid not in (os.getuid(), 0):
            raise ValueError("it belongs to another user")
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError("its header is too long")
        try:
            header = json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError("its header is nested too deeply") from error
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        metadata = header.pop("__metadata__")
        if verify:
            data = digest_of(path, start=8 + length)
            if metadata["sha256"] != _checksum(header, metadata["content"], data):
                raise ValueError("its checksum is another one")
        arrays: Arrays = {}
        for name, place in header.items():
            dtype = np.dtype(_DTYPES[place["dtype"]])
            begin, end = place["data_offsets"]
            found = np.frombuffer(mapped, dtype, (end - begin) // dtype.itemsize, 8 + length + begin)
            arrays[name] = found.reshape(place["shape"])
        return arrays, json.loads(metadata["content"])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its header is another one") from error


def _checksum(header: dict[str, Any], content: str, data: str) -> str:
    return hashlib.sha256(json.dumps([header, content, data]).encode()).hexdigest()
