"""What every detector must hold; each inherits ``DetectorContract`` and says how it is built."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.config.schema.model import YoloConfig
from detseg.factory.yolo import build_detector
from detseg.ops.boxes import pairwise_iou
from detseg.structures import BoxTargets, DetectorOutput
from tests.models.targets import box_targets
from tests.rounding import assert_same_detections_but_for_rounding

NUM_CLASSES = 3
HEIGHT, WIDTH = 64, 96
MAX_DETECTIONS = 25
NMS_IOU = 0.6


OBJECTS = box_targets([(4, 4, 44, 40, 0, False), (60, 20, 90, 60, 2, False), (30, 45, 50, 62, 1, True)])
IGNORED = box_targets([(10, 10, 50, 60, 1, True)])
EMPTY = BoxTargets.empty()
TARGETS = {
    "objects": [OBJECTS, OBJECTS],
    "one image empty": [EMPTY, OBJECTS],
    "all images empty": [EMPTY, EMPTY],
    "only ignored": [IGNORED, EMPTY],
}
WITH_TARGETS = pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS.keys())


def random_images(num: int = 2, hw: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
    return torch.rand(num, 3, *hw, generator=torch.Generator().manual_seed(num))


def assert_same_detections(one: DetectorOutput, other: DetectorOutput) -> None:
    assert one.labels.tolist() == other.labels.tolist()
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(one.boxes, other.boxes)


@pytest.mark.filterwarnings("ignore:several objects have their centre", "ignore:more objects have their centre")
class DetectorContract:
    """Inherit, call the class ``Test…`` and give the fixture: NUM_CLASSES, MAX_DETECTIONS, NMS_IOU, and weights under
    which scores differ.  A test may do to it what it likes."""

    @pytest.fixture
    def detector(self) -> Any:
        raise NotImplementedError  # the tester of each implementation builds its own

    @WITH_TARGETS
    def test_losses_are_finite_and_reach_every_parameter(self, detector: Any, targets: list[BoxTargets]) -> None:
        detector.train()
        terms = detector.losses(random_images(), targets)
        names = set(detector.eval().losses(random_images(), TARGETS["objects"]))
        assert set(terms) == names
        for name, term in terms.items():
            assert term.shape == (), name
            assert term.dtype == torch.float32, name
            assert term.isfinite(), name
            assert term.requires_grad, name
        torch.autograd.backward(list(terms.values()))
        for name, parameter in detector.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name}: distributed training refuses parameters without gradient"
                assert parameter.grad.isfinite().all(), name

    @pytest.mark.parametrize(("training", "hw"), [(False, (HEIGHT, WIDTH)), (True, (96, 32))])
    def test_detections_are_as_promised(self, detector: Any, training: bool, hw: tuple[int, int]) -> None:
        found = detector.train(training).predict(random_images(2, hw))
        assert isinstance(found, list)
        assert len(found) == 2
        for detections in found:
            assert isinstance(detections, DetectorOutput)
            assert 0 < len(detections) <= MAX_DETECTIONS
            assert not detections.scores.requires_grad
            assert (detections.scores.diff() <= 0).all()
            assert ((detections.scores >= 0) & (detections.scores <= 1)).all()
            assert ((detections.labels >= 0) & (detections.labels < NUM_CLASSES)).all()
            x1, y1, x2, y2 = detections.boxes.unbind(dim=1)
            assert ((x1 >= 0) & (x1 < x2) & (x2 <= hw[1])).all()
            assert ((y1 >= 0) & (y1 < y2) & (y2 <= hw[0])).all()
            same_class = detections.labels[:, None] == detections.labels
            overlaps = pairwise_iou(detections.boxes, detections.boxes).fill_diagonal_(0)
            assert (overlaps[same_class] <= NMS_IOU + 1e-6).all()

    @pytest.mark.parametrize("training", [False, True])
    def test_return_types_do_not_depend_on_training(self, detector: Any, training: bool) -> None:
        detector.train(training)
        maps = detector(random_images())
        assert isinstance(maps, list)
        assert all(isinstance(x, Tensor) and x.ndim == 4 and len(x) == 2 for x in maps)
        both = detector.losses_and_predictions(random_images(), TARGETS["objects"])
        assert isinstance(both, tuple)
        assert isinstance(both[0], dict)
        assert all(isinstance(detections, DetectorOutput) for detections in both[1])
        assert detector.training == training

    def test_both_at_once_equal_each_apart(self, detector: Any) -> None:
        detector.eval()
        images, targets = random_images(), TARGETS["one image empty"]
        terms, found = detector.losses_and_predictions(images, targets)
        apart = detector.losses(images, targets)
        assert {name: term.item() for name, term in terms.items()} == {n: term.item() for n, term in apart.items()}
        for one, other in zip(found, detector.predict(images), strict=True):
            assert_same_detections(one, other)

    def test_losses_are_float32_under_bfloat16(self, detector: Any) -> None:
        detector.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = detector.losses(random_images(), TARGETS["objects"])
            found = detector.predict(random_images())
        assert {term.dtype for term in terms.values()} == {torch.float32}
        torch.autograd.backward(list(terms.values()))
        assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
        assert {detections.boxes.dtype for detections in found} == {torch.float32}

    def test_weights_make_the_round_trip(self, detector: Any) -> None:
        detector.train()
        detector.losses(random_images(), TARGETS["objects"])  # batch statistics are part of the state
        expected = detector.eval().predict(random_images())
        other = copy.deepcopy(detector)
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
        other.load_state_dict(detector.state_dict(), strict=True)
        for one, two in zip(expected, other.eval().predict(random_images()), strict=True):
            assert_same_detections(one, two)

    def test_neighbours_in_the_batch_do_not_matter(self, detector: Any) -> None:
        detector.eval()
        images = random_images(4)
        together = detector.predict(images)
        assert all(len(detections) for detections in together)
        for i in range(4):
            assert_same_detections_but_for_rounding(detector.predict(images[i : i + 1])[0], together[i], detector)


HEADS: dict[str, dict[str, Any]] = {
    "task_aligned": {"strides": (8, 16, 32)},
    "anchor": {"strides": (16, 32), "anchors": ((10, 12), (24, 16), (30, 32), (48, 40)), "anchors_per_level": 2},
    "grid": {"stride": 16},
}
BACKBONES = {"csp": {"name": "csp_nano", "width": 0.125}, "timm": {"name": "test_resnet"}}
CASES = {
    f"{head}-{'coupled' if coupled else 'decoupled'}-{neck}-{backbone}": {
        "backbone": BACKBONES[backbone],
        "neck": {"name": neck},
        "head": {"name": head, "coupled": coupled, **HEADS[head]},
        "nms_iou": NMS_IOU,
        "max_detections": MAX_DETECTIONS,
    }
    for head, coupled, neck, backbone in product(HEADS, (True, False), ("fpn", "pan"), BACKBONES)
    if backbone == "csp" or coupled == (neck == "fpn")  # half of timm's: heads see no more of a backbone than its maps
}


@pytest.fixture(scope="module", params=list(CASES.values()), ids=list(CASES))
def yolo(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = build_detector(YoloConfig.model_validate(request.param), NUM_CLASSES)
    model.train()
    with torch.no_grad():
        for _ in range(8):  # batch statistics near those of the images
            model(random_images(4))
        last = [m for m in model.head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
        for convolution in last:
            convolution.weight.normal_(std=0.5)  # outputs that tell places and images apart
    return model


class TestYoloDetector(DetectorContract):
    @pytest.fixture
    def detector(self, yolo: nn.Module) -> Any:
        return copy.deepcopy(yolo)
