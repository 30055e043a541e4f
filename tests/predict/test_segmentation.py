"""The segmentation predictor: the labels of evaluation, in the image's size, from any form of image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detseg.errors import CheckpointError, ConfigError, DetsegError
from detseg.ops.letterbox import PAD_VALUE
from detseg.predict import ImagePredictor, Predictor, SegmentationMap, SegmentationPredictor, load_predictor
from tests.predict.networks import CLASSES, noise, two_levels, write_unet


@pytest.fixture
def predictor() -> SegmentationPredictor:
    return SegmentationPredictor(two_levels(), CLASSES, input_hw=(48, 64))


class Brightness(nn.Module):
    """Logits that can be told by hand: of class 0 what is dark, of class 1 what is bright, of class 2 never."""

    stride = 4

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, 3, H, W): 0.5 - grey, grey - 0.5, -9."""
        grey = images.mean(dim=1)
        return torch.stack([0.5 - grey, grey - 0.5, torch.full_like(grey, -9.0)], dim=1)


def test_labels_lie_where_the_picture_is() -> None:
    image = np.zeros((60, 200, 3), dtype=np.uint8)
    image[:, 100:] = 255
    found = SegmentationPredictor(Brightness(), CLASSES, (64, 64))(image)
    assert found.labels.shape == (60, 200)
    assert found.classes is CLASSES
    assert found.probabilities is None
    np.testing.assert_array_equal(found.labels, np.repeat([[0] * 100 + [1] * 100], 60, axis=0))
    assert found.areas == {"sky": 6000, "road": 6000, "car": 0}


def test_a_map_is_letterboxed_and_brought_back_as_opencv_would(predictor: SegmentationPredictor) -> None:
    image = noise(90, 100)  # fits 48 x 64 as 48 x 53, five pixels from the left
    canvas = np.full((48, 64, 3), PAD_VALUE, dtype=np.uint8)
    canvas[:, 5:58] = cv2.resize(image, (53, 48), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        logits = predictor.model.predict(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)[0, :, :, 5:58]
    planes = [cv2.resize(plane, (100, 90), interpolation=cv2.INTER_LINEAR) for plane in logits.numpy()]
    found = predictor(image, probabilities=True)
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float32
    expected = np.exp(planes) / np.exp(planes).sum(axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    differ = found.labels != np.argmax(planes, axis=0)
    assert differ.mean() < 1e-3  # where two classes are equal but for rounding
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(axis=0))


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_all_forms_of_an_image(predictor: SegmentationPredictor, tmp_path: Path, tile: tuple[int, int] | None) -> None:
    pixels = noise(50, 70)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = predictor(pixels, tile=tile).labels
    assert len(np.unique(expected)) > 1
    for form in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels)):
        np.testing.assert_array_equal(predictor(form, tile=tile).labels, expected)


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_list_gives_a_list(predictor: SegmentationPredictor, batch_size: int, tile: tuple[int, int] | None) -> None:
    images = [noise(50, 70), noise(33, 20), noise(20, 90)]
    found = predictor(list(images), batch_size=batch_size, tile=tile, probabilities=True)
    assert [one.hw for one in found] == [(50, 70), (33, 20), (20, 90)]
    for one, image in zip(found, images, strict=True):
        alone = predictor(image, tile=tile, probabilities=True)
        assert one.probabilities is not None
        assert alone.probabilities is not None
        np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-5)
    assert predictor([]) == []
    streamed = predictor.stream(list(images), batch_size, tile=tile)
    assert [one.hw for one in streamed] == [(50, 70), (33, 20), (20, 90)]


def test_tiles_see_the_picture_at_its_own_scale(predictor: SegmentationPredictor) -> None:
    image = noise(100, 130)
    with torch.no_grad():
        whole = predictor.model.predict(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0]
    found = predictor(image, tile=(64, 64), overlap=48, probabilities=True)
    np.testing.assert_allclose(found.probabilities, whole.softmax(dim=0).numpy(), atol=1e-5)
    assert (found.labels != whole.argmax(dim=0).numpy()).mean() < 1e-3
    assert (found.labels != predictor(image).labels).mean() > 0.01  # which is another scale


def test_what_cannot_be_asked_for_is_refused(predictor: SegmentationPredictor) -> None:
    with pytest.raises(ConfigError, match=r"^overlap: belongs to tiles; give tile=\(height, width\) too"):
        predictor(noise(9, 9), overlap=8)
    for tile in (64, (32.0, 32.0), (32, 32, 32), (32,), "64", (True, 32)):
        with pytest.raises(ConfigError, match=r"^tile: expected height and width in multiples of 4, .*, got "):
            predictor(noise(9, 9), tile=tile)  # type: ignore[arg-type]  # wrong on purpose
    for overlap in (32, -1, 8.0):
        with pytest.raises(ConfigError, match=r"^overlap: expected 0 to 28 pixels"):
            predictor(noise(9, 9), tile=(32, 32), overlap=overlap)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="an image needs at least one pixel"):
        predictor(np.zeros((0, 8, 3), dtype=np.uint8), tile=(32, 32))


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_diverged_labels_nothing(predictor: SegmentationPredictor, value: float, tile: tuple[int, int] | None) -> None:
    with torch.no_grad():
        dict(predictor.model.named_parameters())["score.bias"][1] = value
    with pytest.raises(DetsegError, match=r"^the model's logits are NaN or infinite, so there are no labels; take"):
        predictor(noise(50, 60), tile=tile)


def test_a_checkpoint_of_a_segmenter_gives_its_predictor(tmp_path: Path) -> None:
    loaded: ImagePredictor[SegmentationMap] = load_predictor(write_unet(tmp_path / "a.ckpt"), device="cpu")
    assert isinstance(loaded, SegmentationPredictor)
    assert not isinstance(loaded, Predictor)
    assert repr(loaded) == "SegmentationPredictor(SemanticSegmenter, 3 classes (sky, road, car), input 48 x 64, cpu)"
    assert loaded.classes == CLASSES
    for image in (noise(181, 239), noise(5, 7)):
        for tile in (None, (64, 64)):
            found = loaded(image, tile=tile)
            assert found.labels.shape == image.shape[:2]
            assert found.names == CLASSES.names
    with pytest.raises(ConfigError, match=r"^tile: expected height and width in multiples of 4"):
        loaded(noise(9, 9), tile=(30, 32))


def test_a_segmenter_has_no_score_threshold(tmp_path: Path) -> None:
    path = write_unet(tmp_path / "a.ckpt")
    with pytest.raises(ConfigError) as caught:
        load_predictor(path, device="cpu", score_threshold=0.3)
    assert str(caught.value) == (
        f"{path}: is a segmentation model (unet), which gives every pixel a class and has no score threshold; got 0.3, "
        "leave it out"
    )
    with pytest.raises(CheckpointError, match=r"b\.ckpt: no such checkpoint file; there are a\.ckpt"):
        load_predictor(tmp_path / "b.ckpt", device="cpu")
