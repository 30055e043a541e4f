"""The two-stage detectors hold the contract of detectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.models.rcnn.detector import RCNNDetector
from detseg.structures import BoxTargets, RoiMasks
from tests.contracts.test_detectors import (
    EMPTY,
    IGNORED,
    MAX_DETECTIONS,
    NMS_IOU,
    NUM_CLASSES,
    OBJECTS,
    DetectorContract,
    random_images,
)
from tests.models.rcnn.small import small_detector, spread_outputs


class FilledBoxes(RCNNDetector):
    """A detector of masks to which the contract's targets may be given: the mask of an object is its whole box."""

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> Any:
        return super().losses(images, [filled(images, target) for target in targets])

    def losses_and_predictions(self, images: Tensor, targets: list[BoxTargets]) -> Any:
        return super().losses_and_predictions(images, [filled(images, target) for target in targets])


def filled(images: Tensor, target: BoxTargets) -> BoxTargets:
    masks = torch.zeros(len(target), *images.shape[-2:], dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, target.boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return replace(target, masks=masks)


def built(masks: bool, output_of_label: tuple[int, ...] | None = None, **regions: Any) -> RCNNDetector:
    torch.manual_seed(0)
    num_outputs = 1 + max(output_of_label or (NUM_CLASSES,))
    settings = {"score_threshold": 0.05, "nms_iou": NMS_IOU, "max_detections": MAX_DETECTIONS} | regions
    model = small_detector(num_outputs, masks, output_of_label=output_of_label, **settings)
    spread_outputs(model)
    return model


class TestFasterRCNN(DetectorContract):
    @pytest.fixture
    def detector(self) -> Any:
        return built(masks=False)


class TestFasterRCNNWithSparseOutputs(DetectorContract):
    @pytest.fixture
    def detector(self) -> Any:
        return built(masks=False, output_of_label=(2, 5, 1))


class TestMaskRCNN(DetectorContract):
    published = False

    @pytest.fixture
    def detector(self) -> Any:
        model = built(masks=True, torchvision_masks=self.published)
        model.__class__ = FilledBoxes
        return model

    @pytest.mark.parametrize("training", [False, True])
    def test_every_detection_has_a_grid(self, detector: Any, training: bool) -> None:
        for detections in detector.train(training).predict(random_images()):
            grids = detections.grids
            assert isinstance(grids, RoiMasks)
            assert len(grids) == len(detections) > 0
            assert ((grids.probabilities >= 0) & (grids.probabilities <= 1)).all()
            assert torch.equal(grids.regions, detections.boxes) is not self.published

    @pytest.mark.parametrize("masks", [None, torch.zeros(3, 64, 64, dtype=torch.bool)])
    def test_objects_without_fitting_masks_are_an_error(self, detector: Any, masks: Tensor | None) -> None:
        expected = r"^targets: image 1 of the batch: expected .*mask.*, got (boxes alone|64 x 64)$"
        with pytest.raises(ValueError, match=expected):
            RCNNDetector.losses(detector, random_images(), [EMPTY, replace(OBJECTS, masks=masks)])

    def test_no_masks_are_needed_where_there_are_no_objects(self, detector: Any) -> None:
        terms = RCNNDetector.losses(detector, random_images(), [EMPTY, filled(random_images(), IGNORED)])
        assert terms["mask"].item() == 0


class TestMaskRCNNWithPublishedMasks(TestMaskRCNN):
    published = True
