"""Memory of the machine and of GPUs: keeping what tensors have freed, and giving it back; running out of it, as one
line: what was computed on, what failed, what to lower."""

from __future__ import annotations

import ctypes
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any

from detseg.errors import DetsegError
from detseg.messages import one_line

if TYPE_CHECKING:
    from detseg.structures import Batch

_TEXTS = (
    "out of memory",  # CUDA, MPS
    "bad_alloc",  # C++
    "not enough memory",  # torch's allocator on a CPU
    "allocate memory",  # the same, and the operating system
    "alloc_failed",  # cuDNN, cuBLAS
    "insufficient memory",  # OpenCV
)
"""What errors without a type of their own say in lower case."""


_MMAP_THRESHOLD = (-3, 256 << 20)  # larger pieces, such as huge images, go back to the system at once
_MALLOC_OPTIONS = {
    -1: 1 << 30,  # M_TRIM_THRESHOLD: most that is kept at the end of the heap
    -2: 64 << 20,  # M_TOP_PAD: more that is taken each time
    -8: 1,  # M_ARENA_MAX: other heaps than the first one have pieces of at most 64 MiB
}
"""Of glibc's ``mallopt``, bytes; numbers of <malloc.h>."""


def keep_freed_memory() -> None:
    """Have the C library keep what tensors free for the next ones, of this whole process.

    By default pieces of 32 MiB and more, such as the maps of a batch, go back to the system each time, which then has
    to fill the next ones with zeros: on a CPU that takes up to half of the time of a prediction in batches. What is
    free below a piece that is in use stays with the process, up to all that it ever used at once; at the end of the
    heap it is 1 GiB at most. ``give_freed_memory_back`` returns it.

    It does nothing where there is no glibc, as on macOS and Windows, where glibc does not take the setting, or where
    the environment says how memory is allocated (``MALLOC_...``, ``GLIBC_TUNABLES``, ``LD_PRELOAD``).
    """
    is_told = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if is_told or (library := _glibc()) is None:
        return
    if library.mallopt(*_MMAP_THRESHOLD):  # 0: refused, as by old versions; without it the others cost time
        for option, value in _MALLOC_OPTIONS.items():
            library.mallopt(option, value)


def give_freed_memory_back() -> None:
    """Give all memory that is free back to the system, which is for a process that has nothing to do for a while.

    Threads that allocate meanwhile wait for it. It does nothing where there is no glibc.
    """
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    """The C library, None where it is another one."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of the machine, was not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which may be missing
        return True
    has_no_type = isinstance(error, RuntimeError | OSError) or type(error).__module__.split(".")[0] == "cv2"
    return has_no_type and any(text in str(error).lower() for text in _TEXTS)


class MemoryErrors:
    """A ``with`` block that turns running out of memory inside it into a DetsegError; other errors pass.

    Args:
        advice: what to lower.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.doing = "before the first batch"  # to be kept up to date inside the block

    def __enter__(self) -> MemoryErrors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None and is_out_of_memory(error):
            raise DetsegError(f"out of memory: {self.doing}; {one_line(error)}; {self.advice}") from error


def describe_batch(batch: Batch) -> str:
    """What of a batch decides how much memory it takes, in words; nothing waits for a device."""
    num, (height, width) = len(batch), batch.images.shape[-2:]
    text = f"{num} {'image' if num == 1 else 'images'} of {height} x {width} pixels (height x width)"
    objects = [len(target) for target in batch.targets]
    if not any(objects):
        return f"{text} without objects"
    masks = " with masks" if any(target.masks is not None for target in batch.targets) else ""
    fullest = batch.indices[objects.index(max(objects))]
    most = f"{max(objects)} of them in image {fullest} of the data set (counted from 0)"
    return f"{text}, objects{masks}: {sum(objects)}, {most}"
