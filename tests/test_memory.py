"""Running out of memory: which errors say it, what is told of it, and that evaluation and prediction tell it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from detseg.errors import DetsegError
from detseg.evaluation.run import EVALUATION_ADVICE, predictions
from detseg.memory import MemoryErrors, describe_batch, is_out_of_memory, keep_freed_memory
from detseg.structures import Batch, BoxTargets, DetectorOutput
from detseg.tasks import kind_of
from tests.tiny import TinyRun, tiny_config
from tests.training.stub import OneWeight

TOO_MUCH = 2**48
"""Bytes that no address space has."""


@pytest.mark.parametrize(
    "raises",
    [
        lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
        lambda: np.empty(TOO_MUCH, dtype=np.uint8),
        lambda: cv2.copyMakeBorder(np.zeros((1, 1), np.uint8), 0, 2**31 - 2, 0, 2**31 - 2, cv2.BORDER_CONSTANT),
    ],
)
def test_real_errors_are_known(raises: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError, cv2.error)) as caught:
        raises()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:73] not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), False),
        (OSError(12, os.strerror(12)), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("out of resource: shared memory, Required: 9, Hardware limit: 8"), False),
        (ValueError("out of memory"), False),
        (DetsegError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


@pytest.mark.parametrize(
    ("counts", "masks", "text"),
    [
        ([2, 7, 1], False, ", objects: 10, 7 of them in image 11 of the data set (counted from 0)"),
        ([0, 3, 3], True, ", objects with masks: 6, 3 of them in image 11 of the data set (counted from 0)"),
        ([0, 0, 0], False, " without objects"),
    ],
)
def test_what_is_said_of_a_batch(counts: list[int], masks: bool, text: str) -> None:
    targets = [
        BoxTargets(
            torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(count, 4),
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(count, dtype=torch.bool),
            torch.zeros(count, 8, 12, dtype=torch.bool) if masks else None,
        )
        for count in counts
    ]
    batch = Batch(torch.zeros(3, 3, 8, 12, dtype=torch.uint8), targets, [10, 11, 12])
    assert describe_batch(batch) == f"3 images of 8 x 12 pixels (height x width){text}"


def test_the_line_and_that_other_errors_pass() -> None:
    error = RuntimeError("[enforce fail]\nnot enough memory: you tried to allocate 9 bytes.")
    errors = MemoryErrors("lower something")
    errors.doing = "training step 3"
    with pytest.raises(RuntimeError, match=r"^another$"), errors:
        raise RuntimeError("another")
    with pytest.raises(DetsegError) as caught, errors:
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value) == (
        "out of memory: training step 3; [enforce fail] not enough memory: you tried to allocate 9 bytes.; lower "
        "something"
    )


class Limited(OneWeight):
    """There is memory for one batch."""

    num_batches = 0

    def predict(self, images: torch.Tensor) -> list[DetectorOutput]:
        self.num_batches += 1
        if self.num_batches == 2:
            raise MemoryError
        return super().predict(images)


def test_an_evaluation_tells_its_batch(tiny_run: TinyRun) -> None:
    """Batches of two: the third and the fourth image have one object and two."""
    config = tiny_config(tiny_run.config_path, None)
    dataset = kind_of(config.model).open_dataset(config.data, "val")
    with pytest.raises(DetsegError) as caught, MemoryErrors(EVALUATION_ADVICE) as errors:
        list(predictions(Limited(), dataset, config, torch.device("cpu"), errors))
    assert str(caught.value) == (
        "out of memory: batch 2 of the evaluation, 2 images of 64 x 64 pixels (height x width), objects: 3, 2 of them "
        "in image 3 of the data set (counted from 0); MemoryError; lower, in this order: data.batch_size, which "
        "changes no number; for main memory data.num_workers; data.image_size, which changes the numbers; or take a "
        "device with more memory (--device)"
    )


_COUNT_FAULTS = """
import resource, sys
import torch
from detseg.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(30):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(32 << 20)  # 128 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed_memory is for glibc")
def test_what_tensors_free_is_kept_for_the_next_ones() -> None:
    """Pages that the system had to give for the last ten tensors: of 4 KiB each has 32 768, of 2 MiB 64.

    The first ones may all take new memory, as small objects come to lie between them.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults = [
        int(subprocess.run([sys.executable, "-c", _COUNT_FAULTS, how], env=environment, capture_output=True).stdout)
        for how in ("keep", "as it is")
    ]
    assert 10 * faults[0] < faults[1]


def test_what_the_environment_says_of_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("the C library was asked"))
    keep_freed_memory()


_COUNT_RESIDENT = """
import numpy as np
from pathlib import Path
from detseg.memory import give_freed_memory_back, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) >> 8  # MiB, of pages of 4 KiB

keep_freed_memory()
before = resident()
freed = [np.ones(8 << 20) for _ in range(4)]  # 64 MiB each
live = np.ones(10_000)  # the heap cannot shrink below it
del freed
kept = resident()
give_freed_memory_back()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed_memory is for glibc")
def test_what_is_kept_is_given_back() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", _COUNT_RESIDENT], env=environment, capture_output=True)
    kept, after = map(int, done.stdout.split())
    assert kept > 200
    assert after < 80  # M_TOP_PAD may be resident


def test_a_c_library_that_refuses_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a high M_MMAP_THRESHOLD the other settings would only cost time."""
    asked: list[int] = []
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    library = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda option, _: asked.append(option) or 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    keep_freed_memory()
    assert asked == [-3]
