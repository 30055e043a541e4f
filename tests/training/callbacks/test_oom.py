"""A training that runs out of memory says in which step, on which batch, and what to lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detseg.config.load import config_from_dict
from detseg.errors import DetsegError
from detseg.models.interface import LossTerms
from detseg.structures import Batch, BoxTargets
from detseg.training.callbacks.oom import training_advice, training_memory_errors
from tests.training.stub import SILENT, OneWeight, Validated, batch_of, loader_of, task_of

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIG = config_from_dict({"data": {"name": "voc", "root": "x"}}, "settings")
BATCH = "1 image of 8 x 8 pixels (height x width), objects: 1, 1 of them in image 0 of the data set (counted from 0); "


def refuse(gradient: Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of")


class Greedy(OneWeight):
    """Runs out of memory where it is told to, at the third batch that it is given there."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.num_batches = 0

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        self.num_batches += torch.is_grad_enabled()  # not in validation
        if self.num_batches == 3 and self.where == "forward":
            torch.empty(2**48, dtype=torch.uint8)
        total: Tensor = self(images)[0]
        if self.num_batches == 3 and self.where == "backward":
            total.register_hook(refuse)
        return {"only": total}

    def losses_and_predictions(self, images: Tensor, targets: list[BoxTargets]) -> Validated:
        if self.where == "validation":
            raise MemoryError
        return super().losses_and_predictions(images, targets)


def fit(model: OneWeight, loader: DataLoader[Batch], folder: Path) -> str:
    """What is said when two epochs of two batches each run out of memory."""
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, default_root_dir=folder, **SILENT)
    with pytest.raises(DetsegError) as caught, training_memory_errors(trainer, CONFIG):
        trainer.fit(task_of(model), loader, loader_of([batch_of(0)]))
    assert "\n" not in str(caught.value)
    assert "lower, in this order: data.batch_size (and" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("where", "beginning"),
    [
        ("forward", f"out of memory: training step 3 (epoch 2, batch 1), {BATCH}"),
        ("backward", f"out of memory: training step 3 (epoch 2, batch 1), {BATCH}CUDA out of memory. Tried to all"),
        ("validation", f"out of memory: validation after epoch 1, batch 1, {BATCH}MemoryError; lower"),
    ],
)
def test_the_batch_is_told(where: str, beginning: str, tmp_path: Path) -> None:
    assert fit(Greedy(where), loader_of([batch_of(0), batch_of(9)]), tmp_path).startswith(beginning)


class Unreadable(list[Batch]):
    """Its second batch does not fit into memory."""

    def __getitem__(self, index: Any) -> Any:
        if index == 1:
            raise MemoryError
        return super().__getitem__(index)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_cannot_be_loaded_is_told_without_a_batch(num_workers: int, tmp_path: Path) -> None:
    images: Any = Unreadable([batch_of(0), batch_of(0)])
    loader = DataLoader(images, batch_size=None, num_workers=num_workers, prefetch_factor=None)
    line = fit(OneWeight(), loader, tmp_path)
    assert line.startswith("out of memory: after training step 1 (epoch 1); ")
    assert "MemoryError" in line


def test_what_to_lower() -> None:
    assert training_advice(CONFIG, computes_float32=True) == (
        "lower, in this order: data.batch_size (and raise trainer.accumulate_grad_batches as much), data.image_size, "
        "for main memory data.num_workers; --resume allows trainer.precision=bfloat16, fewer data.num_workers, and "
        "more devices with a smaller data.batch_size for each; any other change needs a new run"
    )
    data = {"name": "coco", "root": "x", "batch_size": 1, "num_workers": 0}
    data["augmentation"] = {"multi_scale": [0.5, 1.5], "mosaic": 0.5, "mixup": 0.5}
    crowded = config_from_dict({"data": data, "model": {"name": "mask_rcnn"}}, "settings")
    assert training_advice(crowded, computes_float32=False).startswith(
        "lower, in this order: data.image_size, the upper end of data.augmentation.multi_scale, "
        "data.augmentation.mosaic, data.augmentation.mixup, model.roi_heads.batch_size_per_image, "
        "model.rpn.post_nms_top_n_train; --resume allows fewer"
    )
