"""The one resize: geometry by hand, boxes there and back, pixels as OpenCV computes them, labels by brute force."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detseg.ops.letterbox import PAD_LABEL, PAD_VALUE, Letterbox, resize, resize_labels
from detseg.structures import IGNORE_LABEL

SIDE = st.integers(1, 3000)
INPUT_SIDE = st.integers(1, 40).map(lambda k: 32 * k)


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


def test_boxes_by_hand() -> None:
    letterbox = Letterbox.fit((480, 640), (320, 320))  # half as large, 40 rows above
    boxes = np.array([[100, 60, 300, 200], [0, 0, 640, 480]], dtype=np.float32)
    moved = letterbox.boxes_to_input(boxes)
    assert moved.dtype == np.float32
    assert moved.tolist() == [[50, 70, 150, 140], [0, 40, 320, 280]]
    assert letterbox.boxes_to_original(torch.from_numpy(moved)).tolist() == boxes.tolist()


def test_boxes_that_reach_into_the_padding_are_cut_at_the_image() -> None:
    letterbox = Letterbox.fit((480, 640), (320, 320))
    boxes = letterbox.boxes_to_original(torch.tensor([[-3.0, 10, 330, 300]]))
    assert boxes.tolist() == [[0, 0, 640, 480]]


@given(height=SIDE, width=SIDE, input_hw=st.tuples(INPUT_SIDE, INPUT_SIDE), data=st.data())
def test_boxes_round_trip(height: int, width: int, input_hw: tuple[int, int], data: st.DataObject) -> None:
    letterbox = Letterbox.fit((height, width), input_hw)
    shares = [data.draw(st.floats(0, 1)) for _ in range(4)]
    xs, ys = sorted(shares[:2]), sorted(shares[2:])
    box = np.array([[xs[0] * width, ys[0] * height, xs[1] * width, ys[1] * height]], dtype=np.float32)
    back = letterbox.boxes_to_original(torch.from_numpy(letterbox.boxes_to_input(box)))
    assert back.dtype == torch.float32
    # Float32 keeps 24 bits of a place in the input; half a unit of the last, in original pixels; and once more back.
    sx, sy = letterbox.scale_xy
    tolerance = np.array([input_hw[1] / sx, input_hw[0] / sy] * 2) * 2**-22
    assert (np.abs(back.numpy() - box) <= tolerance).all()


@given(height=SIDE, width=SIDE, input_hw=st.tuples(INPUT_SIDE, INPUT_SIDE))
def test_the_image_fits_centred_and_touches_two_sides(height: int, width: int, input_hw: tuple[int, int]) -> None:
    letterbox = Letterbox.fit((height, width), input_hw)
    spare = [input_hw[i] - letterbox.resized_hw[i] for i in range(2)]
    assert min(spare) == 0
    assert min(letterbox.resized_hw) >= 1
    assert (letterbox.top, letterbox.left) == (spare[0] // 2, spare[1] // 2)
    sx, sy = letterbox.scale_xy
    scale = min(input_hw[0] / height, input_hw[1] / width)
    assert abs(sx * width - scale * width) <= 0.5 + 1e-9 or letterbox.resized_hw[1] == 1
    assert abs(sy * height - scale * height) <= 0.5 + 1e-9 or letterbox.resized_hw[0] == 1


@pytest.mark.parametrize("hw", [(48, 80), (300, 200), (1, 90), (90, 1), (1, 1), (64, 96)])
def test_pixels_are_opencv_s_inside_and_padding_outside(hw: tuple[int, int]) -> None:
    image = noise(*hw)
    letterbox = Letterbox.fit(hw, (64, 96))
    result = letterbox.apply(image)
    assert result.shape == (64, 96, 3)
    assert result.dtype == np.uint8
    rows, columns = letterbox.resized_hw
    interpolation = cv2.INTER_AREA if rows * columns < hw[0] * hw[1] else cv2.INTER_LINEAR
    expected = np.full((64, 96, 3), PAD_VALUE, dtype=np.uint8)
    expected[letterbox.top :, letterbox.left :][:rows, :columns] = cv2.resize(
        image, (columns, rows), interpolation=interpolation
    )
    np.testing.assert_array_equal(result, expected)


def test_padding_is_grey_114() -> None:
    result = Letterbox.fit((10, 20), (20, 20)).apply(np.zeros((10, 20, 3), dtype=np.uint8))
    assert (result[:5] == 114).all()
    assert (result[5:15] == 0).all()
    assert (result[15:] == 114).all()


def test_shrinking_averages() -> None:
    """A chequerboard of single pixels becomes grey; without averaging it would become black or white."""
    board = ((np.indices((64, 64)).sum(axis=0) % 2) * 255).astype(np.uint8)
    small = resize(np.stack([board] * 3, axis=2), (16, 16))
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel, got height 0 and width 5"):
        Letterbox.fit((0, 5), (64, 64))


def label_noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


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
def test_labels_of_a_line_by_hand(labels: list[int], length: int, expected: list[int]) -> None:
    line = np.array([labels], dtype=np.uint8)
    assert resize_labels(line, (1, length)).tolist() == [expected]
    assert resize_labels(line.T, (length, 1)).ravel().tolist() == expected


@given(st.tuples(*[st.integers(1, 50)] * 4))
def test_labels_are_those_of_the_nearest_pixel(sides: tuple[int, int, int, int]) -> None:
    """Brute force: no centre of a pixel of the original is nearer than that of the one taken."""
    height, width, rows, columns = sides
    result = resize_labels(np.arange(height * width).astype(np.uint16).reshape(height, width), (rows, columns))  # type: ignore[arg-type]  # more labels than 256 tell every pixel
    assert result.shape == (rows, columns)
    for taken, side, length in ((result[:, 0] // width, height, rows), (result[0] % width, width, columns)):
        positions = (2 * np.arange(length) + 1) * side  # all in units of 1 / (2 · length) pixels
        distances = np.abs(positions[:, None] - (2 * np.arange(side) + 1) * length)
        np.testing.assert_array_equal(distances[np.arange(length), taken], distances.min(axis=1))


@pytest.mark.parametrize("hw", [(48, 80), (300, 200), (1, 90), (1, 1), (64, 96)])
def test_labels_lie_where_the_image_lies_and_padding_is_ignored(hw: tuple[int, int]) -> None:
    labels = label_noise(*hw) % 200
    letterbox = Letterbox.fit(hw, (64, 96))
    result = letterbox.apply_labels(labels)
    assert result.shape == (64, 96)
    assert result.dtype == np.uint8
    expected = np.full((64, 96), 255, dtype=np.uint8)
    rows, columns = letterbox.resized_hw
    expected[letterbox.top :, letterbox.left :][:rows, :columns] = resize_labels(labels, (rows, columns))
    np.testing.assert_array_equal(result, expected)
    inside = (letterbox.apply(np.zeros((*hw, 3), dtype=np.uint8)) == 0).all(axis=2)
    np.testing.assert_array_equal(result != 255, inside)
    assert PAD_LABEL == IGNORE_LABEL


@pytest.mark.parametrize("side", [23, 40, 61, 150, 201, 333])
def test_image_and_labels_do_not_drift_apart(side: int) -> None:
    """The centroid of a disc is the same in both, whether it shrinks or grows; half a pixel would be seen."""
    rows, columns = np.indices((side, side)) + 0.5
    letterbox = Letterbox.fit((side, side), (96, 96))
    differences = []
    for x, y in np.random.default_rng(0).uniform(0.4, 0.6, (20, 2)) * side:
        disc = ((columns - x) ** 2 + (rows - y) ** 2 < (0.3 * side) ** 2).astype(np.uint8)
        image = letterbox.apply(np.repeat(255 * disc[..., None], 3, axis=2))[..., 0].astype(float)
        labels = letterbox.apply_labels(disc).astype(float)
        places = np.indices((96, 96))
        differences.append([(places * w).sum(axis=(1, 2)) / w.sum() for w in (image, labels)])
    drift = np.subtract(*np.array(differences).transpose(1, 0, 2)).mean(axis=0)
    assert np.abs(drift).max() < 0.1


def test_the_same_size_is_left_alone_and_another_is_an_error() -> None:
    image, labels = noise(32, 64), label_noise(32, 64)
    assert resize(image, (32, 64)) is image
    assert resize_labels(labels, (32, 64)) is labels
    with pytest.raises(ValueError, match=r"height and width \(10, 20\), got \(20, 10\)"):
        Letterbox.fit((10, 20), (64, 64)).apply(noise(20, 10))
    with pytest.raises(ValueError, match=r"height and width \(10, 20\), got \(20, 10\)"):
        Letterbox.fit((10, 20), (64, 64)).apply_labels(label_noise(20, 10))
