"""The Predictor with a model of masks: the masks of evaluation, in pixels of the original image, in little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detseg.ops.letterbox import Letterbox
from detseg.ops.tensors import stack_images, to_float
from detseg.predict import Predictor, load_predictor
from detseg.structures import Batch, BoxTargets
from tests.peaks import growth, measured_apart
from tests.predict.networks import CLASSES, FoundMasks, noise, write_rcnn

INPUT_HW = (64, 96)
REGIONS = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 30, 40], [60, 30, 90, 80], [40.3, 30.1, 40.9, 30.7]])


def test_masks_are_exactly_those_that_evaluation_scores() -> None:
    network = FoundMasks(REGIONS).eval()
    images = [noise(100, 130), noise(64, 96), noise(37, 20)]
    letterboxes = [Letterbox.fit((image.shape[0], image.shape[1]), INPUT_HW) for image in images]
    inputs = stack_images([letterbox.apply(image) for letterbox, image in zip(letterboxes, images, strict=True)])
    batch = Batch(inputs, [BoxTargets.empty()] * 3, [0, 1, 2], letterboxes, [1, 2, 3])
    evaluated = batch.to_original(network.predict(to_float(batch.images)))
    predictor = Predictor(network, CLASSES, INPUT_HW)
    together = predictor(list(images), batch_size=3)
    for image, expected, one_of_three in zip(images, evaluated, together, strict=True):
        for found in (predictor(image), one_of_three):
            assert found.masks is not None
            assert found.masks.hw == image.shape[:2]
            assert found.masks.areas[0] > 0
            assert found.masks == expected.masks
            assert np.array_equal(found.boxes, expected.boxes.numpy())
            assert found.classes is CLASSES


def test_masks_go_with_their_detections_above_the_threshold() -> None:
    network = FoundMasks(REGIONS).eval()
    everything = Predictor(network, CLASSES, INPUT_HW, score_threshold=0)(noise(100, 130))
    best = Predictor(network, CLASSES, INPUT_HW, score_threshold=0.8)(noise(100, 130))
    assert len(best) == 2
    assert everything.masks is not None
    assert best.masks == everything.masks.select([0, 1])


def test_an_image_without_objects_has_no_masks() -> None:
    found = Predictor(FoundMasks(REGIONS[:0]).eval(), CLASSES, INPUT_HW)(noise(100, 130))
    assert found.masks is not None
    assert len(found.masks) == 0
    np.testing.assert_array_equal(found.draw(), noise(100, 130))


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
def test_checkpoints_of_both_two_stage_detectors_load(name: str, tmp_path: Path) -> None:
    predictor = load_predictor(write_rcnn(tmp_path / "a.ckpt", name), "cpu", 0)
    assert isinstance(predictor, Predictor)
    found = predictor(noise(100, 130))
    assert 0 < len(found) <= 10
    assert set(found.names) <= set(CLASSES.names)
    if name == "faster_rcnn":
        assert found.masks is None
    else:
        assert found.masks is not None
        assert found.masks.hw == (100, 130)


def peaks_of_masks() -> tuple[float, ...]:
    """Megabytes that a known tensor, a prediction of 300 masks and their drawing take; number and largest area."""
    rng = np.random.default_rng(0)
    corners = rng.uniform((-20, 90), (700, 680), (300, 2))  # none wholly in the letterbox's padding
    sides = rng.uniform(20, 120, (300, 2))
    sides[:4], corners[:4] = 800, 0  # as large as the image
    regions = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
    predictor = Predictor(FoundMasks(regions).eval(), CLASSES, (800, 800))
    predictor(np.full((30, 40, 3), 90, np.uint8))  # what is loaded and set up once
    image = np.full((3000, 4000, 3), 90, np.uint8)
    _, control = growth(lambda: torch.ones(100, 1000, 1000))
    found, predicted = growth(lambda: predictor(image))
    _, drawn = growth(found.draw)
    return control / 1e6, predicted / 1e6, drawn / 1e6, len(found.masks), int(found.masks.areas.max())


def test_300_masks_of_12_megapixels_take_less_than_200_megabytes() -> None:
    code = "from tests.predict.test_masks import peaks_of_masks; print(*peaks_of_masks())"
    control, predicted, drawn, num_masks, largest = measured_apart(code)
    assert 360 < control < 440  # 100 x 1000 x 1000 float32 are 400 megabytes; the kernel counts in chunks of pages
    assert num_masks == 300
    assert largest > 5e6  # pixels: 300 of these as floats are gigabytes
    assert 12 < predicted < 200  # one mask as bytes alone is 12 megabytes
    assert 36 < drawn < 250  # the drawn copy alone is 36 megabytes
