"""Batch norm that begins without statistics takes the plain average of its first batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor, nn

from detseg.models.interface import LossTerms
from detseg.structures import BoxTargets
from tests.training.stub import OneWeight, batch_of, fit, task_of

pytestmark = pytest.mark.filterwarnings("ignore")


class Normed(OneWeight):
    """Measures its images by two batch norms, a new one and one that comes with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.pretrained = nn.BatchNorm2d(3, momentum=0.25), nn.BatchNorm2d(3, momentum=0.25)
        self.pretrained.num_batches_tracked += 7

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        self.norm(images)
        self.pretrained(images)
        return super().losses(images, targets)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize(
    ("greys", "mean", "of_pretrained"),
    [
        ((51, 102, 255, 51), 0.45, 0.31484375),
        ((51, 102), 0.3, 0.1375),
        ((51, 102, 255, 51, 255, 255), 0.69062, 0.61460),  # the momentum takes over: 0.75 × 0.45 + 0.25, once more
    ],
)
def test_first_statistics_are_the_plain_average_of_the_batches(
    greys: tuple[int, ...], mean: float, of_pretrained: float, accumulated: int, tmp_path: Path
) -> None:
    """With a momentum of a quarter: four batches count alike, and a fifth counts a quarter."""
    model = Normed()
    fit(task_of(model), [batch_of(grey) for grey in greys], tmp_path, accumulate_grad_batches=accumulated)
    assert model.norm.running_mean is not None
    assert model.pretrained.running_mean is not None
    assert float(model.norm.running_mean[0]) == pytest.approx(mean, abs=1e-5)
    assert float(model.pretrained.running_mean[0]) == pytest.approx(of_pretrained, abs=1e-5)
    if len(greys) > 4:
        assert model.norm.momentum == 0.25
