"""Out of memory, told in one line: what ran, on which batch, what the device had left, and what to lower."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from detseg.errors import DetsegError
from detseg.memory.host import available_memory
from detseg.structures import Batch

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "unable to allocate",
    "failed to allocate",
    "insufficient memory",
    "bad_alloc",
    "alloc_failed",
    "insufficient shared memory",
    "killed by signal: killed",
    "killed by signal: bus error",
)
"""What errors say, in lower case, that are about memory and have no class of their own: torch's allocators, cuDNN and
cuBLAS, OpenCV, and loader processes that the system killed or left without shared memory."""

_WANTED = re.compile(r"allocate ([0-9.]+) ?([KMGTPE]?i?B|bytes)\b")


@dataclass(frozen=True)
class BatchOutline:
    """What of a batch decides how much memory it takes; no tensor is held.

    Attributes:
        hw: height and width of the images, pixels.
        objects: number of objects of each image.
        masks: whether each object has a mask.
        indices: position of each image in the data set.
    """

    hw: tuple[int, int]
    objects: tuple[int, ...]
    masks: bool
    indices: tuple[int, ...]

    @classmethod
    def of(cls, batch: Batch) -> BatchOutline:
        """That of a batch; nothing waits for a device."""
        height, width = batch.images.shape[-2:]
        objects = tuple(len(target) for target in batch.targets)
        masks = any(target.masks is not None for target in batch.targets)
        return cls((height, width), objects, masks, tuple(batch.indices))

    def __str__(self) -> str:
        num, total = len(self.objects), sum(self.objects)
        text = f"{num} {'image' if num == 1 else 'images'} of {self.hw[0]} x {self.hw[1]} pixels (height x width)"
        if not total:
            return f"{text} without objects"
        most = max(self.objects)
        fullest = self.indices[self.objects.index(most)]
        what = ("object" if total == 1 else "objects") + (" with masks" if self.masks else "")
        return f"{text} with {total} {what}, {most} of them in image {fullest} of the data set (counted from 0)"


class BatchInHand:
    """What is being computed, for the message of an error that comes out of it.

    Attributes:
        where: what is going on.
        outline: the batch that it is going on with; None: none.
    """

    def __init__(self) -> None:
        self.where = "before the first batch"
        self.outline: BatchOutline | None = None

    def take(self, where: str, batch: Batch | None) -> None:
        """Note what begins, and with which batch."""
        self.where, self.outline = where, None if batch is None else BatchOutline.of(batch)

    def put_down(self) -> None:
        """Note that the batch is done."""
        self.where, self.outline = f"after {self.where.removeprefix('after ')}, between two batches", None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of the machine, was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    is_spoken = isinstance(error, RuntimeError | OSError) or type(error).__module__.split(".")[0] == "cv2"
    return is_spoken and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def memory_errors_explained(
    in_hand: BatchInHand, device: Callable[[], torch.device], advice: Callable[[], str]
) -> Iterator[None]:
    """Turns running out of memory inside the ``with`` block into one line.

    Args:
        in_hand: kept up to date inside the block.
        device: what the model computes on; asked when an error has happened, as is:
        advice: what to lower.

    Raises:
        DetsegError: memory ran out; other errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        batch = "" if in_hand.outline is None else f", the batch being {in_hand.outline}"
        raise DetsegError(
            f"out of memory: {in_hand.where}{batch}; {_what_failed(error)}; {memory_state(device())}; {advice()}"
        ) from error


def gibibytes(num_bytes: float) -> str:
    """``5368709120`` → ``5.00 GiB``."""
    return f"{num_bytes / 2**30:.2f} GiB"


def memory_state(device: torch.device) -> str:
    """What a device has left, in words; of a CPU what the machine has."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own, tensors = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return (
            f"{device} has {gibibytes(total)}, of which this process holds {gibibytes(own)} ({gibibytes(tensors)} in "
            f"tensors) and {gibibytes(free)} are free"
        )
    available = available_memory()
    return "main memory left: " + ("unknown" if available is None else gibibytes(available))


def _what_failed(error: BaseException) -> str:
    text = str(error)
    if "killed by signal" in text:
        return "the system ended a loader process, most likely because memory, or shared memory (/dev/shm), ran out"
    wanted = _WANTED.search(text)
    if wanted is None:
        return "an allocation was refused"
    number, unit = wanted.groups()
    return f"{gibibytes(float(number)) if unit == 'bytes' else f'{number} {unit}'} more were asked for"
