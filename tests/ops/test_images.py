"""Images on their way to the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detseg.ops.letterbox import stack_images, to_float


def test_stacked_images_keep_every_pixel_in_place() -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8) for seed in range(2)]
    stacked = stack_images(images)
    assert stacked.shape == (2, 3, 5, 7)
    assert stacked.dtype == torch.uint8
    assert stacked.is_contiguous(memory_format=torch.channels_last)
    for i, image in enumerate(images):
        for channel in range(3):
            np.testing.assert_array_equal(stacked[i, channel].numpy(), image[:, :, channel])


def test_floats_run_from_zero_to_one() -> None:
    images = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).view(1, 1, 2, 2).expand(2, 3, 2, 2)
    floats = to_float(images)
    assert floats.dtype == torch.float32
    assert floats.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(floats[0, 0], torch.tensor([[0.0, 0.2], [0.4, 1.0]]))
    assert images[0, 0, 1, 1] == 255  # the batch itself is untouched


def test_floats_are_not_scaled_twice() -> None:
    images = torch.ones(1, 3, 2, 2)
    with pytest.raises(ValueError, match="expected uint8"):
        to_float(images)
    assert (images == 1).all()
