from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from detseg.models.rcnn import instance_masks
from detseg.models.rcnn.instance_masks import mask_targets, published_regions
from detseg.structures import RoiMasks


def random_regions(num: int, side: float) -> torch.Tensor:
    low = torch.rand(num, 2) * side * 0.6
    return torch.cat([low, low + 2 + torch.rand(num, 2) * side * 0.4], dim=1)


def test_whole_pixels_are_told_exactly() -> None:
    masks = torch.rand(3, 12, 16) > 0.5
    regions = torch.tensor([[0.0, 0.0, 4.0, 4.0], [12.0, 8.0, 16.0, 12.0]])
    targets = mask_targets(masks, torch.tensor([2, 0]), regions, cells=4, aligned=True)
    # Along the image's border RoIAlign repeats the last pixel; a cell of a pixel is that pixel everywhere.
    torch.testing.assert_close(targets, torch.stack([masks[2, :4, :4], masks[0, 8:, 12:]]).float())


def test_a_cell_is_the_share_of_its_pixels() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 2:6] = True  # rows 2, 3 and 4
    targets = mask_targets(masks, torch.tensor([0]), torch.tensor([[2.0, 2.0, 6.0, 6.0]]), cells=2, aligned=True)
    assert targets[0].tolist() == [[1.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize("pixels_at_once", [1, 3 * 40 * 50, 1 << 24])
def test_published_targets_are_torchvisions_however_many_masks_at_once(
    pixels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(instance_masks, "_PIXELS_AT_ONCE", pixels_at_once)
    masks, objects, regions = torch.rand(7, 40, 50) > 0.4, torch.randint(7, (20,)), random_regions(20, 40)
    expected = project_masks_on_boxes(masks.to(torch.uint8), regions, objects, 28)
    assert torch.equal(mask_targets(masks, objects, regions, cells=28, aligned=False), expected)


def test_nothing_to_learn() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert mask_targets(torch.zeros(0, 9, 9, dtype=torch.bool), none, torch.zeros(0, 4), 28, True).shape == (0, 28, 28)


@pytest.mark.parametrize("cells", [28, 14])
def test_published_regions_paste_as_torchvision_does(cells: int) -> None:
    torch.manual_seed(1)
    boxes = random_regions(40, 100)
    boxes[:4] = torch.tensor([[0, 0, 1, 1], [0, 0, 100, 90], [99, 89, 100, 90], [3.5, 0.25, 3.75, 90]])
    # As networks give them: smooth over the grid.  A value within rounding of a half would be anybody's guess.
    grids = torch.nn.functional.interpolate(torch.rand(40, 1, 5, 5), size=(cells, cells), mode="bilinear")[:, 0]
    expected = paste_masks_in_image(grids[:, None], boxes, (90, 100))[:, 0] >= 0.5
    pasted = RoiMasks(grids, published_regions(boxes, cells)).paste((90, 100))
    np.testing.assert_array_equal(pasted.dense(), expected.numpy())


def test_published_regions_by_hand() -> None:
    # Widened by 30/28 about (14, 28): 14 ± 15 and 28 ± 30, whole pixels and the last one in: -1..30 and -2..59, of
    # which a thirtieth at each end is the padding.
    region = published_regions(torch.tensor([[0.0, 0.0, 28.0, 56.0]]), 28)
    expected = [-1 + 31 / 30, -2 + 61 / 30, 30 - 31 / 30, 59 - 61 / 30]
    assert region[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_targets_of_a_mask_pasted_back_are_the_mask() -> None:
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    masks[0] = (x - 30) ** 2 / 20**2 + (y - 34) ** 2 / 14**2 <= 1
    region = torch.tensor([[10.0, 20.0, 50.0, 48.0]])
    grid = mask_targets(masks, torch.tensor([0]), region, cells=28, aligned=True)
    again = RoiMasks(grid, region).paste((64, 64)).dense()
    wrong = (again[0] != masks[0].numpy()).sum()
    assert wrong <= 0.02 * masks.sum()
