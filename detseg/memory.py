"""Running out of memory, of a GPU or of the machine, as one line: what was computed on, what failed, what to lower."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

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
