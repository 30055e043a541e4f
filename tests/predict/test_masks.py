"""The Predictor with a model of masks: the masks of evaluation, in pixels of the original image, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detseg.ops.letterbox import Letterbox, stack_images, to_float
from detseg.predict import Predictor, load_predictor
from detseg.structures import Batch, BoxTargets
from tests.predict.networks import CLASSES, FoundMasks, noise, write_rcnn

ROOT = Path(__file__).resolve().parents[2]
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


MEASURE = """
import sys
import numpy as np, torch
from detseg.predict import Predictor
from detseg.structures import ClassTable
from tests.predict.networks import FoundMasks

def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

def growth(work):
    "Megabytes by which the memory's peak during some work is above what was in use before."
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak becomes what is in use now
    before = kilobytes("VmRSS:")
    result = work()
    return result, (kilobytes("VmHWM:") - before) / 1000

torch.set_num_threads(1)
rng = np.random.default_rng(0)
corners = rng.uniform((-20, 90), (700, 680), (300, 2))  # none wholly in the letterbox's padding
sides = rng.uniform(20, 120, (300, 2))
sides[:4] = 800  # as large as the image
corners[:4] = 0
regions = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
predictor = Predictor(FoundMasks(regions).eval(), ClassTable(("a", "b", "c")), (800, 800))
predictor(np.full((30, 40, 3), 90, np.uint8))  # what is loaded and set up once
image = np.full((3000, 4000, 3), 90, np.uint8)
_, control = growth(lambda: torch.ones(100, 1000, 1000))
found, predicted = growth(lambda: predictor(image))
_, drawn = growth(found.draw)
assert "pycocotools" not in sys.modules  # prediction needs no evaluation library
print(control, predicted, drawn, len(found.masks), int(found.masks.areas.max()))
"""


def test_300_masks_of_12_megapixels_take_less_than_200_megabytes() -> None:
    """Peaks of resident memory beyond the image, in a process of its own; a known tensor is measured for control."""
    try:
        with open("/proc/self/clear_refs", "w"):
            pass
    except OSError as error:
        pytest.skip(f"this system does not let a process reset its peak of memory: {error}")
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, cwd=ROOT)
    control, predicted, drawn, num_masks, largest = map(float, done.stdout.split())
    assert 360 < control < 440  # 100 x 1000 x 1000 float32 are 400 megabytes; the kernel counts in lots of pages
    assert num_masks == 300
    assert largest > 5e6  # pixels: 300 of these as floats are gigabytes
    assert 12 < predicted < 200  # one mask as bytes alone is 12 megabytes
    assert 36 < drawn < 250  # the drawn copy alone is 36 megabytes
