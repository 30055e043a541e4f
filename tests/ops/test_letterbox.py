"""The one resize: geometry by hand, pixels as OpenCV computes them, labels and logits by brute force."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detseg.ops.letterbox import Letterbox, nearest_pixels, resize
from detseg.ops.tensors import label_map, logits_at_original_size, stack_images, to_float
from tests.fuzz.strategies import boxes_inside, seeds


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("original_hw", "input_hw", "resized_hw", "top", "left"),
    [
        # min(320 / 480, 320 / 640) = 0.5: 240 × 320, and (320 - 240) / 2 = 40 rows above.
        ((480, 640), (320, 320), (240, 320), 40, 0),
        # min(320 / 100, 320 / 50) = 3.2: 320 × 160, 80 columns to the left.
        ((100, 50), (320, 320), (320, 160), 0, 80),
        # 0.4266667: 213.33 columns become 213; of 107 spare ones 53 stand to the left, 54 to the right.
        ((750, 500), (320, 320), (320, 213), 0, 53),
        # 320 / 1000: 0.32 of a pixel is still one.
        ((1, 1000), (320, 320), (1, 320), 159, 0),
        # Input that is not square: min(64 / 60, 96 / 100) = 0.96, 57.6 rows become 58.
        ((60, 100), (64, 96), (58, 96), 3, 0),
        ((320, 320), (320, 320), (320, 320), 0, 0),
    ],
)
def test_placement_by_hand(
    original_hw: tuple[int, int], input_hw: tuple[int, int], resized_hw: tuple[int, int], top: int, left: int
) -> None:
    assert Letterbox.fit(original_hw, input_hw) == Letterbox(original_hw, input_hw, resized_hw, top, left)


def boxes_to_input(letterbox: Letterbox, boxes: Any) -> Any:
    return (boxes * np.array(letterbox.scale_xy * 2) + np.array([letterbox.left, letterbox.top] * 2)).astype(np.float32)


def test_boxes_by_hand() -> None:
    letterbox = Letterbox.fit((480, 640), (320, 320))  # half as large, 40 rows above
    boxes = np.array([[100, 60, 300, 200], [0, 0, 640, 480]], dtype=np.float32)
    moved = boxes_to_input(letterbox, boxes)
    assert moved.dtype == np.float32
    assert moved.tolist() == [[50, 70, 150, 140], [0, 40, 320, 280]]
    assert letterbox.boxes_to_original(torch.from_numpy(moved)).tolist() == boxes.tolist()
    # What reaches into the padding is cut at the image.
    assert letterbox.boxes_to_original(torch.tensor([[-3.0, 10, 330, 300]])).tolist() == [[0, 0, 640, 480]]


@given(st.tuples(*[st.integers(1, 100_000)] * 2), st.tuples(*[st.integers(32, 2048)] * 2), seeds)
def test_any_is_centred_and_its_boxes_come_back(hw: tuple[int, int], input_hw: tuple[int, int], seed: int) -> None:
    letterbox = Letterbox.fit(hw, input_hw)
    (height, width), top, left = letterbox.resized_hw, letterbox.top, letterbox.left
    spare = input_hw[0] - height, input_hw[1] - width
    assert (min(spare), top, left) == (0, spare[0] // 2, spare[1] // 2)
    scale = min(input_hw[0] / hw[0], input_hw[1] / hw[1])
    for side, original in ((height, hw[0]), (width, hw[1])):
        assert side == 1 or (side > 1 and abs(side - scale * original) <= 0.5 + 1e-9)
    boxes = boxes_inside(hw, 20, np.random.default_rng(seed))
    inside = boxes_to_input(letterbox, boxes)
    room = np.array([left, top, left, top]), np.array([left + width, top + height, left + width, top + height])
    assert ((inside >= room[0] - 1e-3) & (inside <= room[1] + 1e-3)).all()
    back = letterbox.boxes_to_original(torch.from_numpy(inside)).numpy()
    step = 2048 * 2.0**-23 / np.array(letterbox.scale_xy * 2)  # float32 of the input, in pixels of the original
    assert back.dtype == np.float32
    assert (np.abs(back - boxes) <= 4 * step + 1e-6 * np.abs(boxes)).all()


HWS = [(48, 80), (300, 200), (1, 90), (90, 1), (1, 1), (64, 96), (1, 4000), (4000, 1), (2, 3), (33, 31)]


@pytest.mark.parametrize("input_hw", [(64, 96), (32, 32)])
@pytest.mark.parametrize("hw", HWS)
def test_pixels_are_opencvs_and_the_padding_is_grey(hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    image, letterbox = noise(*hw), Letterbox.fit(hw, input_hw)
    rows, columns = letterbox.resized_hw
    interpolation = cv2.INTER_AREA if rows * columns < hw[0] * hw[1] else cv2.INTER_LINEAR
    expected = np.full((*input_hw, 3), 114, dtype=np.uint8)
    expected[letterbox.top :, letterbox.left :][:rows, :columns] = cv2.resize(
        image, (columns, rows), interpolation=interpolation
    )
    result = letterbox.apply(image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("labels", "length", "expected"),
    [
        ([0, 1, 2, 3], 2, [1, 3]),  # centres at 1.0 and 3.0, on borders: the right pixel
        ([0, 1, 2, 3, 4, 5], 2, [1, 4]),  # 1.5 and 4.5
        ([0, 1, 2], 6, [0, 0, 1, 1, 2, 2]),
        ([0, 1], 3, [0, 1, 1]),  # 1/3, 1.0, 5/3
        ([0, 1, 2, 3, 4], 3, [0, 2, 4]),  # 5/6, 2.5, 4 1/6
        ([0, 1, 2, 3, 4], 1, [2]),
    ],
)
def test_nearest_pixels_by_hand(labels: list[int], length: int, expected: list[int]) -> None:
    assert nearest_pixels(len(labels), length).tolist() == expected


@given(st.integers(1, 400), st.integers(1, 400))
def test_no_centre_is_nearer_than_that_of_the_pixel_taken(side: int, length: int) -> None:
    positions = (2 * np.arange(length) + 1) * side  # all in units of 1 / (2 · length) pixels
    distances = np.abs(positions[:, None] - (2 * np.arange(side) + 1) * length)
    taken = nearest_pixels(side, length)
    np.testing.assert_array_equal(distances[np.arange(length), taken], distances.min(axis=1))


def test_the_same_size_is_left_alone_and_another_is_an_error() -> None:
    image = noise(32, 64)
    assert resize(image, (32, 64)) is image
    with pytest.raises(ValueError, match=r"height and width \(10, 20\), got \(20, 10\)"):
        Letterbox.fit((10, 20), (64, 64)).apply(noise(20, 10))
    with pytest.raises(ValueError, match="at least one pixel, got height 0 and width 5"):
        Letterbox.fit((0, 5), (64, 64))


def test_stacked_images_keep_every_pixel_and_floats_run_from_zero_to_one() -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8) for seed in range(2)]
    stacked = stack_images(images)
    before = stacked.clone()
    assert (stacked.shape, stacked.dtype) == ((2, 3, 5, 7), torch.uint8)
    np.testing.assert_array_equal(stacked.numpy(), np.stack(images).transpose(0, 3, 1, 2))
    floats = to_float(stacked)
    for batch in (stacked, floats):
        assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(floats.numpy(), stacked.numpy().astype(np.float32) / 255)
    assert torch.equal(stacked, before)
    with pytest.raises(ValueError, match="expected uint8"):  # scaled twice
        to_float(floats)


def random_logits(num_classes: int, hw: tuple[int, int]) -> Tensor:
    return torch.randn(num_classes, *hw, generator=torch.Generator().manual_seed(0))


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


def test_the_padding_has_no_say() -> None:
    """A 16 × 32 image in a 32 × 32 input: 8 rows above and below; whatever the logits say there, nothing changes."""
    letterbox = Letterbox.fit((50, 100), (32, 32))
    assert (letterbox.top, letterbox.resized_hw) == (8, (16, 32))
    logits = random_logits(4, (32, 32))
    other = logits.clone()
    other[:, :8], other[:, 24:] = 1e6, float("nan")
    assert torch.equal(logits_at_original_size(logits, letterbox), logits_at_original_size(other, letterbox))
    same = Letterbox.fit((32, 32), (32, 32))
    assert torch.equal(logits_at_original_size(logits, same), logits)  # of the input's size: as they are


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


def test_boxes_go_to_the_input_as_pixels_do() -> None:
    letterbox = Letterbox.fit((100, 50), (64, 64))  # 64 x 32 pixels, 16 to the left of them
    boxes = torch.tensor([[0.0, 0, 50, 100], [25, 50, 30, 60]])
    inside = letterbox.to_input(boxes)
    torch.testing.assert_close(inside, torch.tensor([[16.0, 0, 48, 64], [32, 32, 35.2, 38.4]]))
    torch.testing.assert_close(letterbox.to_original(inside), boxes)
