"""Which of the many regions of an image the losses look at (Ren et al. 2015, section 3.1.3).

Letters: R regions, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detseg.models.rcnn.assign import RegionAssignment


class RegionSampler(nn.Module):
    """Draws a fixed number of regions, positives up to a share of them, the rest negatives.

    As dropout, it draws at random in training mode (positives first, then negatives), by the seed of the image; without
    one, from torch's own generator: the draws of torchvision.  In evaluation mode the draws of an image are always the
    same, so that the losses of a validation repeat.

    Args:
        num_samples: S, fewer where an image has fewer.
        positive_share: most positives, as a share of S.
    """

    def __init__(self, num_samples: int, positive_share: float) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.most_positives = int(num_samples * positive_share)

    def forward(self, assignment: RegionAssignment, seed: int | None = None) -> Tensor:
        """The assignment of R regions and the seed of the draws → (S,) int64 positions, ascending."""
        positive = torch.nonzero(assignment.positive).flatten()
        negative = torch.nonzero(assignment.negative).flatten()
        seed = seed if self.training else 0
        generator = None if seed is None else torch.Generator(positive.device).manual_seed(seed)
        num_positives = min(len(positive), self.most_positives)
        num_negatives = min(len(negative), self.num_samples - num_positives)
        drawn = torch.cat(
            [_draw(positive, num_positives, generator), _draw(negative, num_negatives, generator)],
        )
        return drawn.sort().values


def _draw(positions: Tensor, num: int, generator: torch.Generator | None) -> Tensor:
    return positions[torch.randperm(len(positions), device=positions.device, generator=generator)[:num]]
