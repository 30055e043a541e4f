"""The largest batch that fits, from measurements of small or of tried ones, and the learning rate that goes with it.

Sizes of memory are bytes.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from detseg.config.schema.training import OptimizerConfig, SgdConfig

REFERENCE_BATCH = 16
"""The batch that a rate in the settings is for where the batch is to be found: the default of ``data.batch_size``."""

LARGEST = 1024
"""Larger batches are not looked for."""

DEVICE_SHARE = 0.85
"""Share of a GPU's free memory that a batch may take: its allocator cannot use the rest in one piece."""

HOST_SHARE = 0.5
"""Share of the available main memory that a batch may take: loader processes, the cache of files and the scoring of a
validation need some, too, and who takes too much is killed without a word."""

_TRIAL_SHARE = 0.8
"""Share of the available main memory that a trial may take at the very most."""

_TRIED = (1, 2, 4)
"""Images of the trials from which the need of larger batches is reckoned."""

Measure = Callable[[int], int | None]
"""The most memory that training on so many images takes; None: it did not fit."""


@dataclass(frozen=True)
class Found:
    """A batch that fits.

    Attributes:
        num_images: of it.
        num_bytes: what it takes; measured on a GPU, reckoned on a CPU.
        measured: what was measured, by number of images.
    """

    num_images: int
    num_bytes: float
    measured: dict[int, int]


def rounded_down(num_images: int) -> int:
    """Below 8 any number, from 8 on the multiple of 4 below: what fits by a hair is not worth an odd batch."""
    return num_images if num_images < 8 else num_images - num_images % 4


def largest_tried(measure: Measure, limit: float, most: int) -> Found | None:
    """The largest batch within a limit, by trying: doubling until one does not fit, then halving the gap.

    For devices that refuse what does not fit, and go on.

    Args:
        measure: see ``Measure``.
        limit: what a batch may take.
        most: no larger one is tried.

    Returns:
        None: not even one image fits.
    """
    sizes = sorted({rounded_down(n) for n in range(1, most + 1)})
    measured: dict[int, int] = {}
    fits, too_large = -1, len(sizes)
    while too_large - fits > 1:
        if fits < 0:
            tried = 0
        elif too_large == len(sizes):
            tried = bisect.bisect_right(sizes, 2 * sizes[fits]) - 1
        else:
            tried = (fits + too_large) // 2
        num_bytes = measure(sizes[tried])
        if num_bytes is None or num_bytes > limit:
            too_large = tried
        else:
            fits, measured[sizes[tried]] = tried, num_bytes
    return Found(sizes[fits], measured[sizes[fits]], measured) if fits >= 0 else None


def largest_reckoned(measure: Measure, available: float, most: int, least_per_image: float) -> Found | None:
    """The largest batch within ``HOST_SHARE`` of the available memory, on a straight line through small ones.

    For main memory, which is not refused: who takes too much is killed.  So no batch is tried that may not fit.

    Args:
        measure: see ``Measure``; what fits counts in steps of 1, 2, 4 images.
        available: memory that is there.
        most: no larger one is returned.
        least_per_image: a bound from below for what one more image takes, against noise in small measurements.

    Returns:
        None: not even one image fits.
    """
    measured: dict[int, int] = {}
    for num in _TRIED:
        # Some of it does not grow with the batch, so twice the images take at most twice the memory.
        if num > most or (measured and 2 * measured[num // 2] > _TRIAL_SHARE * available):
            break
        num_bytes = measure(num)
        if num_bytes is None:
            break
        measured[num] = num_bytes
    budget = HOST_SHARE * available
    fitting = [num for num, num_bytes in measured.items() if num_bytes <= budget]
    if not fitting:
        return None
    last = max(fitting)
    if last < max(measured) or len(measured) == 1:
        return Found(last, measured[last], measured)
    per_image = max([least_per_image, *(2 * (measured[n] - measured[n // 2]) / n for n in measured if n > 1)])
    num_images = rounded_down(min(last + int((budget - measured[last]) // per_image), most))
    return Found(num_images, measured[last] + (num_images - last) * per_image, measured)


def scaled_rate(optimizer: OptimizerConfig, num_images: int) -> float:
    """The learning rate for a batch, from that of the settings, which is for 16 images of a process.

    The number of processes and ``accumulate_grad_batches`` are the same in both, so they drop out.  SGD: in proportion
    to the batch (Goyal et al. 2017, section 2.1).  Adam, AdamW, RMSprop: to its square root (Krizhevsky 2014,
    section 5; Malladi et al. 2022, definition 4.1).

    Args:
        optimizer: its settings.
        num_images: images of a batch of one process.

    Returns:
        The rate, to four digits that count, so that it can be written down.
    """
    ratio = num_images / REFERENCE_BATCH
    factor = ratio if isinstance(optimizer, SgdConfig) else math.sqrt(ratio)
    return float(f"{optimizer.lr * factor:.4g}")
