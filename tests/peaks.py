"""How much main memory some work takes at its peak: measured on Linux, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def growth(work: Callable[[], Any]) -> tuple[Any, int]:
    """What some work returns, and the bytes by which its peak of memory is above what was in use before."""

    def memory(kind: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))

    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is in use now
    before = memory("VmRSS")
    result = work()
    return result, memory("VmHWM") - before


def measured_apart(code: str) -> list[float]:
    """The numbers that a statement prints in a new process, whose allocator gives large blocks back at once: what the
    tests before left in the heap, and what glibc keeps for later, is no part of the measure."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"this system does not let a process reset its peak of memory: {error}")
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=exact)
    return [float(number) for number in done.stdout.split()]
