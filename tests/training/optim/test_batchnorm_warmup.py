"""Normalisation that begins without statistics takes the plain average of its first batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.stub import OneWeight, batch_of, fit, task_of


class Normalised(OneWeight):
    """One weight behind batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=0.03)

    def forward(self, images: Tensor) -> list[Tensor]:
        return super().forward(self.norm(images))


@pytest.mark.parametrize("accumulated", [1, 4])
def test_average_of_the_batches_whatever_is_accumulated(accumulated: int, tmp_path: Path) -> None:
    model = Normalised()
    batches = [batch_of(grey) for grey in (0, 51, 102, 153, 204, 255, 10, 30)]
    fit(task_of(model), batches, tmp_path, accumulate_grad_batches=accumulated, limit_val_batches=0)
    mean = torch.stack([batch.images.float().mean() / 255 for batch in batches]).mean()
    assert model.norm.running_mean is not None
    torch.testing.assert_close(model.norm.running_mean, mean.expand(3))
