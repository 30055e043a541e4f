"""Logits at the original size: by a plain loop over pixels, and the label map by the definition of argmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detseg.ops.letterbox import Letterbox, label_map, logits_at_original_size


def random_logits(num_classes: int, hw: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(num_classes, *hw, generator=torch.Generator().manual_seed(seed))


def bilinear(plane: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """The definition: pixel centres at half, clamped at the edge, weights by distance; in float64."""
    height, width = plane.shape
    result = np.zeros(hw)
    for i in range(hw[0]):
        for j in range(hw[1]):
            y = min(max((i + 0.5) * height / hw[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / hw[1] - 0.5, 0), width - 1)
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
            lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


@pytest.mark.parametrize("original_hw", [(181, 239), (20, 31), (64, 64), (7, 90), (1, 40)])
def test_logits_equal_a_loop_over_pixels(original_hw: tuple[int, int]) -> None:
    """Enlarged, shrunk, of the input's size, with padding above and beside."""
    letterbox = Letterbox.fit(original_hw, (64, 64))
    logits = random_logits(2, (64, 64))
    height, width = letterbox.resized_hw
    cut = logits[:, letterbox.top : letterbox.top + height, letterbox.left : letterbox.left + width].double().numpy()
    result = logits_at_original_size(logits, letterbox)
    assert result.shape == (2, *original_hw)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), np.stack([bilinear(plane, original_hw) for plane in cut]), atol=2e-5)


def test_size_of_the_input_is_left_as_it_is() -> None:
    logits = random_logits(3, (32, 48))
    assert torch.equal(logits_at_original_size(logits, Letterbox.fit((32, 48), (32, 48))), logits)


def test_the_padding_has_no_say() -> None:
    """A 16 × 32 image in a 32 × 32 input: 8 rows above and below; whatever the logits say there, nothing changes."""
    letterbox = Letterbox.fit((50, 100), (32, 32))
    assert (letterbox.top, letterbox.resized_hw) == (8, (16, 32))
    logits = random_logits(4, (32, 32))
    other = logits.clone()
    other[:, :8], other[:, 24:] = 1e6, float("nan")
    assert torch.equal(logits_at_original_size(logits, letterbox), logits_at_original_size(other, letterbox))


@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_label_map_is_the_argmax(num_classes: int) -> None:
    """Of logits of few values, so that there are many ties."""
    letterbox = Letterbox.fit((61, 45), (32, 32))
    logits = random_logits(num_classes, (32, 32)).round()
    labels = label_map(logits, letterbox)
    assert labels.dtype == torch.uint8
    large = logits_at_original_size(logits, letterbox).numpy()
    np.testing.assert_array_equal(labels.numpy(), np.argmax(large, axis=0))  # numpy: the first of equals


@pytest.mark.parametrize("original_hw", [(1000, 1400), (2050, 2050)])
def test_large_images_are_interpolated_two_classes_or_one_at_a_time(original_hw: tuple[int, int]) -> None:
    letterbox = Letterbox.fit(original_hw, (32, 32))
    logits = random_logits(3, (32, 32))
    labels = label_map(logits, letterbox)
    large = logits_at_original_size(logits, letterbox)
    missing = large.amax(dim=0) - large.gather(0, labels[None].long())[0]
    assert missing.max() < 1e-5  # torch rounds one plane alone differently from several
    assert missing.count_nonzero() < 1e-4 * missing.numel()


def test_channels_last_logits_give_the_same_map() -> None:
    letterbox = Letterbox.fit((75, 101), (64, 64))
    logits = random_logits(6, (64, 64))
    strided = logits[None].to(memory_format=torch.channels_last)[0]
    assert strided.stride() != logits.stride()
    assert torch.equal(logits_at_original_size(strided, letterbox), logits_at_original_size(logits, letterbox))
    assert torch.equal(label_map(strided, letterbox), label_map(logits, letterbox))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 8, 9), r"expected float32 of shape \(C, 8, 8\), got torch.float32 of shape \(2, 8, 9\)"),
        (torch.zeros(1, 2, 8, 8), r"got torch.float32 of shape \(1, 2, 8, 8\)"),
        (torch.zeros(2, 8, 8, dtype=torch.float16), "got torch.float16"),
    ],
)
def test_wrong_logits_are_refused(logits: Tensor, message: str) -> None:
    letterbox = Letterbox.fit((30, 30), (8, 8))
    for function in (logits_at_original_size, label_map):
        with pytest.raises(ValueError, match=message):
            function(logits, letterbox)
    for num_classes in (0, 256):
        with pytest.raises(ValueError, match=f"expected 1 to 255 classes, got {num_classes}"):
            label_map(torch.zeros(num_classes, 8, 8), letterbox)
