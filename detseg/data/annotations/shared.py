"""Arrays that loader processes share with the process that starts them.

Forked processes share all memory until somebody writes to it. A process that is spawned (macOS, Windows, and Linux from
Python 3.14 on) is sent a copy of its data set; here it is sent shared memory instead.
"""

from __future__ import annotations

import shutil
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

_SMALLEST = 1 << 18
"""Bytes of an array from which on it is shared; smaller ones are copied."""

_LARGEST_FRACTION = 0.25
"""Of the free shared memory: batches need it, too, and Docker gives 64 MB."""

_SHARED_MEMORY = Path("/dev/shm")  # where Linux has it; nothing is written there by name


class SharedArrays:
    """Base of frozen dataclasses that hold large numpy arrays."""

    def __reduce__(self) -> tuple[Any, ...]:
        columns = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        if get_spawning_popen() is not None:
            columns |= self._in_shared_memory(columns)
        return _rebuilt, (type(self), columns)

    def _in_shared_memory(self, columns: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The large arrays as shared tensors, made once for all processes; empty where there is no room for them."""
        shared: dict[str, torch.Tensor] = vars(self).get("_shared", {})
        large: dict[str, npt.NDArray[Any]] = {k: v for k, v in columns.items() if getattr(v, "nbytes", 0) >= _SMALLEST}
        if shared or not _fits(sum(array.nbytes for array in large.values())):
            return shared
        try:
            for name, array in large.items():
                shared[name] = torch.tensor(array).share_memory_()  # type: ignore[no-untyped-call]  # torch's lack
        except RuntimeError:  # another process was faster
            return {}
        object.__setattr__(self, "_shared", shared)
        for name, tensor in shared.items():
            object.__setattr__(self, name, tensor.numpy())  # so that this process has one copy
        return shared


def _fits(num_bytes: int) -> bool:
    if not _SHARED_MEMORY.is_dir():  # macOS and Windows set no such limit
        return True
    return num_bytes <= _LARGEST_FRACTION * shutil.disk_usage(_SHARED_MEMORY).free


def _rebuilt(kind: type[Any], columns: dict[str, Any]) -> Any:
    return kind(**{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in columns.items()})
