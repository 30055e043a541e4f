"""Errors of memory are known by what torch, numpy, OpenCV and the loader say, and told with the batch."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch

from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import DetsegError
from detseg.evaluate import evaluate_checkpoint
from detseg.memory.advice import evaluation_advice, training_advice
from detseg.memory.exhausted import BatchInHand, BatchOutline, is_out_of_memory, memory_errors_explained, memory_state
from detseg.models.yolo.detector import YoloDetector
from detseg.structures import Batch, BoxTargets
from tests.tiny import TinyRun

TOO_MUCH = 2**48
"""Bytes that no address space has."""


def settings(**sections: object) -> ExperimentConfig:
    return config_from_dict({"data": {"name": "coco", "root": "x"}, **sections}, "settings")


def batch_with(counts: list[int], masks: bool = False) -> Batch:
    targets = [
        BoxTargets(
            torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(count, 4),
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(count, dtype=torch.bool),
            torch.zeros(count, 8, 12, dtype=torch.bool) if masks else None,
        )
        for count in counts
    ]
    images = torch.zeros(len(counts), 3, 8, 12, dtype=torch.uint8)
    return Batch(images, targets, [10 + i for i in range(len(counts))])


def torch_refuses() -> None:
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def numpy_refuses() -> None:
    np.empty(TOO_MUCH, dtype=np.uint8)


def opencv_refuses() -> None:
    row = np.zeros((1, 1), dtype=np.uint8)
    cv2.copyMakeBorder(row, 0, 2**31 - 2, 0, 2**31 - 2, cv2.BORDER_CONSTANT)


@pytest.mark.parametrize("refuses", [torch_refuses, numpy_refuses, opencv_refuses])
def test_real_refusals_are_known(refuses: object) -> None:
    assert callable(refuses)
    with pytest.raises((RuntimeError, MemoryError, cv2.error)) as caught:
        refuses()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:73] not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (OSError(12, os.strerror(12)), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "), False),
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
        ([2, 7, 1], False, " with 10 objects, 7 of them in image 11 of the data set (counted from 0)"),
        ([0, 3, 3], True, " with 6 objects with masks, 3 of them in image 11 of the data set (counted from 0)"),
        ([0, 0, 0], False, " without objects"),
    ],
)
def test_what_is_said_of_a_batch(counts: list[int], masks: bool, text: str) -> None:
    outline = str(BatchOutline.of(batch_with(counts, masks)))
    assert outline == f"3 images of 8 x 12 pixels (height x width){text}"


def explained(error: Exception) -> str:
    in_hand = BatchInHand()
    in_hand.take("somewhere", batch_with([1]))
    with (
        pytest.raises(DetsegError) as caught,
        memory_errors_explained(in_hand, lambda: torch.device("cpu"), lambda: "lower something"),
    ):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ..."), "2.00 GiB more were"),
        (
            RuntimeError("can't allocate memory: you tried to allocate 5368709120 bytes."),
            "5.00 GiB more were asked for",
        ),
        (MemoryError(), "an allocation was refused"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "the system ended a loader process"),
    ],
)
def test_the_line(error: Exception, said: str) -> None:
    line = explained(error)
    start = "out of memory: somewhere, the batch being 1 image of 8 x 12 pixels (height x width) with 1 object, 1 of "
    assert line.startswith(start)
    assert f"; {said}" in line
    assert line.endswith("; lower something")
    assert "\n" not in line


def test_other_errors_pass() -> None:
    error = RuntimeError("something else")
    with (
        pytest.raises(RuntimeError) as caught,
        memory_errors_explained(BatchInHand(), lambda: torch.device("cpu"), lambda: ""),
    ):
        raise error
    assert caught.value is error


def test_main_memory_is_told() -> None:
    assert memory_state(torch.device("cpu")).startswith("main memory left: ")


def test_what_to_lower_in_a_training() -> None:
    plain = training_advice(settings(trainer={"accumulate_grad_batches": 2}), computes_float32=True)
    assert plain.startswith(
        "lower, in this order: data.batch_size (16; with trainer.accumulate_grad_batches, now 2, raised as much a step "
        "still sees 32 images), data.image_size (640 x 640), for main memory data.num_workers (2); "
    )
    assert "trainer.precision=bfloat16" in plain
    data = {
        "name": "coco",
        "root": "x",
        "batch_size": 1,
        "num_workers": 0,
        "augmentation": {"multi_scale": [0.5, 1.5], "mosaic": 0.5},
    }
    crowded = training_advice(settings(data=data, model={"name": "mask_rcnn"}), computes_float32=False)
    assert crowded.startswith(
        "lower, in this order: data.image_size (640 x 640), the upper end of data.augmentation.multi_scale (1.5), "
        "data.augmentation.mosaic (many objects in one image), model.roi_heads.batch_size_per_image (512), "
        "model.rpn.post_nms_top_n_train (2000); "
    )
    assert "bfloat16" not in crowded


def test_what_to_lower_in_an_evaluation() -> None:
    assert evaluation_advice(settings()) == (
        "lower, in this order: data.batch_size (16), which changes no number; for main memory data.num_workers (2); "
        "data.image_size (640 x 640), which changes the numbers; or take a device with more memory (--device)"
    )


def test_an_evaluation_tells_its_batch(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def predict(model: YoloDetector, images: torch.Tensor) -> object:
        calls.append(len(images))
        if len(calls) == 2:
            torch_refuses()
        return original(model, images)

    original = YoloDetector.predict
    monkeypatch.setattr(YoloDetector, "predict", predict)
    with pytest.raises(DetsegError) as caught:
        evaluate_checkpoint(tiny_run.best, "val", device="cpu")
    # Batches of two: the third and the fourth picture have one object and two.
    assert str(caught.value).startswith(
        "out of memory: batch 2 of the evaluation, the batch being 2 images of 64 x 64 pixels (height x width) with 3 "
        "objects, 2 of them in image 3 of the data set (counted from 0); 262144.00 GiB more were asked for; main memory"
    )
