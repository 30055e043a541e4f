"""Every model as a file, small and random: our predictor over it, and OpenCV's DNN module, a client that nobody here
wrote, give the numbers of the checkpoint's predictor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from detseg.errors import CheckpointError
from detseg.export.files import ProgramEngine, onnx_model, write_program
from detseg.export.networks import with_fixed_padding
from detseg.models.acceleration import fuse
from detseg.models.backbones.unet import UNetEncoder
from detseg.models.layers import Normalize
from detseg.models.segmentation import FCNHead, SegmentationLoss, SemanticSegmenter, UNetDecoder
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.detector import DecoupledHead, YoloDetector
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.scheme import Scheme
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.predict import Predictor, SegmentationPredictor, load_predictor
from detseg.predict.runtime.description import Description
from detseg.predict.runtime.predictor import ExportedPredictor
from detseg.structures import ClassTable, UInt8Array
from tests.models.rcnn.small import small_detector, spread_outputs
from tests.predict.networks import noise

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES, HW, STRIDES = ClassTable(("cat", "dog", "pig")), (64, 96), (8, 16)
THRESHOLD, NMS_IOU = 0.2, 0.5
IMAGES: list[Any] = [noise(40, 90), noise(120, 100), noise(64, 96), noise(200, 300)]
NORMALIZE = Normalize((0.5, 0.25, 0.375), (0.5, 0.5, 0.25))
ANCHORS = [[(8.0, 12.0), (16.0, 16.0)], [(40.0, 24.0), (30.0, 60.0)]]
SCHEMES: dict[str, Scheme] = {
    "grid": GridScheme(3, 16),
    "anchor": AnchorScheme(3, STRIDES, ANCHORS),
    "task_aligned": TaskAlignedScheme(3, STRIDES, TaskAlignedAssigner(), 4),
}
Floats = npt.NDArray[np.float32]


class Body(nn.Module):
    """Maps of given strides, each straight from the image."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides, self.channels = strides, (8,) * len(strides)
        self.maps = nn.ModuleList(nn.Conv2d(3, 8, stride, stride=stride) for stride in strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [one(images).relu() for one in self.maps]


@dataclass
class Exported:
    """A model and its file, which takes one image of ``HW`` at a time."""

    model: nn.Module
    path: Path
    description: Description


def written(model: nn.Module, task: Any, path: Path) -> Exported:
    """With weights and statistics under which outputs tell places apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 2)
            elif isinstance(part, nn.Conv2d):
                part.weight.normal_(std=3 * part.weight[0].numel() ** -0.5)
    model = fuse(model, "cpu")
    limits = {"score_threshold": 0.001, "nms_iou": NMS_IOU, "max_detections": 300} if task == "detection" else {}
    description = Description(task, "small", CLASSES, HW, 1, False, 16, **limits)
    path.write_bytes(onnx_model(model, description).SerializeToString())
    return Exported(model, path, description)


@pytest.fixture(scope="module", params=list(SCHEMES))
def yolo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    scheme = SCHEMES[request.param]
    body = Body(scheme.strides)
    torch.manual_seed(1)
    head = DecoupledHead(body.channels, scheme, 8)
    detector = YoloDetector(body, nn.Identity(), head, scheme, NORMALIZE, 0.001, NMS_IOU)
    return written(detector, "detection", tmp_path_factory.mktemp("yolo") / "plain.onnx")


@pytest.fixture(scope="module", params=["fcn", "unet"])
def segmenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(1)
    body: Any
    if request.param == "fcn":
        body = Body(STRIDES)
        head: nn.Module = FCNHead(body.channels, STRIDES, 3)
    else:
        body = UNetEncoder(width=0.0625, levels=3)
        head = UNetDecoder(body.channels, body.strides, 3)
    model = SemanticSegmenter(body, None, head, NORMALIZE, SegmentationLoss(3), 3)
    return written(model, "semantic", tmp_path_factory.mktemp("maps") / "maps.onnx")


def test_a_yolo_of_each_scheme_finds_the_same(yolo: Exported) -> None:
    expected = Predictor(yolo.model, CLASSES, HW, score_threshold=THRESHOLD)(IMAGES)
    assert sum(map(len, expected)) > 20
    for one, other in zip(expected, load_predictor(yolo.path, score_threshold=THRESHOLD)(IMAGES, 4), strict=True):
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.01)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)


def test_a_yolo_of_each_scheme_takes_any_size(yolo: Exported, tmp_path: Path) -> None:
    description = replace(yolo.description, batch=None, any_size=True)
    write_program(yolo.model, description, tmp_path / "any.pt2")
    original = Predictor(yolo.model, CLASSES, (64, 64), score_threshold=THRESHOLD)
    exported = ExportedPredictor(ProgramEngine(tmp_path / "any.pt2"), description, THRESHOLD)
    exported.input_hw = (64, 64)
    for scale in (0.5, 2):
        expected = original.scaled(scale)(IMAGES)
        assert sum(map(len, expected)) >= 5
        for one, other in zip(expected, exported.scaled(scale)(IMAGES, 3), strict=True):
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
            assert sorted(other.labels.tolist()) == sorted(one.labels.tolist())
            for box in one.boxes:  # of equal scores in any order
                assert abs(other.boxes - box).max(axis=1).min() < 0.01


def test_each_segmenter_labels_the_same(segmenter: Exported) -> None:
    expected = SegmentationPredictor(segmenter.model, CLASSES, HW)(IMAGES)
    for one, other in zip(expected, load_predictor(segmenter.path)(IMAGES, 4), strict=True):
        assert len(np.unique(one.labels)) > 1
        assert (one.labels != other.labels).mean() < 2e-3


# What follows is what docs/decode.md shows in C++, step by step, with nothing of ours.


def opencv_input(rgb: UInt8Array) -> tuple[Floats, tuple[float, float, int, int, int, int]]:
    """The blob of an image, and where the image is in it: scales, left, top, width and height."""
    rows, columns = rgb.shape[:2]
    scale = min(HW[0] / rows, HW[1] / columns)
    height = min(max(round(rows * scale), 1), HW[0])
    width = min(max(round(columns * scale), 1), HW[1])
    method = cv2.INTER_AREA if height * width < rows * columns else cv2.INTER_LINEAR
    left, top = (HW[1] - width) // 2, (HW[0] - height) // 2
    canvas = np.full((*HW, 3), 114, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(rgb, (width, height), interpolation=method)
    blob: Any = cv2.dnn.blobFromImage(canvas, 1 / 255)
    return blob, (width / columns, height / rows, left, top, width, height)


def opencv_detections(net: Any, rgb: UInt8Array) -> list[tuple[float, int, list[float]]]:
    """Score, label and box of each detection, best first."""
    blob, (scale_x, scale_y, left, top, _, _) = opencv_input(rgb)
    net.setInput(blob, "images")
    boxes, scores = net.forward(["boxes", "scores"])  # (1, P, 4) and (1, C, P)
    found = []
    for label in range(scores.shape[1]):
        corners = boxes[0].astype(float)
        regions = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        for index in cv2.dnn.NMSBoxes(regions.tolist(), scores[0, label].tolist(), THRESHOLD, NMS_IOU):
            x1, y1, x2, y2 = corners[index]
            box = [(x1 - left) / scale_x, (y1 - top) / scale_y, (x2 - left) / scale_x, (y2 - top) / scale_y]
            limits = [rgb.shape[1], rgb.shape[0]] * 2
            box = [min(max(side, 0.0), limit) for side, limit in zip(box, limits, strict=True)]
            if box[0] < box[2] and box[1] < box[3]:  # not in the padding
                found.append((float(scores[0, label, index]), label, box))
    return sorted(found, key=lambda one: -one[0])


def opencv_labels(net: Any, rgb: UInt8Array) -> UInt8Array:
    """The label of each pixel."""
    blob, (_, _, left, top, width, height) = opencv_input(rgb)
    net.setInput(blob, "images")
    logits = net.forward("logits")[0][:, top : top + height, left : left + width]
    planes = [cv2.resize(plane, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR) for plane in logits]
    return np.argmax(planes, axis=0).astype(np.uint8)


def test_opencv_finds_what_we_find(yolo: Exported) -> None:
    net = cv2.dnn.readNetFromONNX(str(yolo.path))
    for image, expected in zip(IMAGES, load_predictor(yolo.path, score_threshold=THRESHOLD)(IMAGES), strict=True):
        found = opencv_detections(net, image)
        assert [label for _, label, _ in found] == expected.labels.tolist()
        np.testing.assert_allclose([score for score, _, _ in found], expected.scores, atol=1e-4)
        np.testing.assert_allclose([box for _, _, box in found], expected.boxes, atol=0.01)


def test_opencv_labels_as_we_do(segmenter: Exported) -> None:
    net = cv2.dnn.readNetFromONNX(str(segmenter.path))
    for image, expected in zip(IMAGES, load_predictor(segmenter.path)(IMAGES), strict=True):
        assert (opencv_labels(net, image) != expected.labels).mean() < 2e-3


def test_a_program_of_a_two_stage_detector_may_find_nothing(tmp_path: Path) -> None:
    """Which the exporter believes impossible: there would be an error."""
    model = small_detector(4, False, score_threshold=0.0).eval()
    spread_outputs(model)
    threshold = Predictor(model, CLASSES, HW, score_threshold=0.0)(IMAGES[0]).scores[0]
    model.roi_heads.score_threshold = float(threshold)
    limits: dict[str, Any] = {"nms": True, "score_threshold": float(threshold), "max_detections": 25}
    description = Description("detection", "faster_rcnn", CLASSES, HW, 1, False, 16, **limits)
    write_program(model, description, tmp_path / "rcnn.pt2")
    engine = ProgramEngine(tmp_path / "rcnn.pt2")
    assert Description.from_metadata(engine.metadata, "") == description
    images = [*IMAGES, np.zeros((*HW, 3), dtype=np.uint8)]
    expected = Predictor(model, CLASSES, HW, score_threshold=threshold)(images)
    assert {0, 1} <= set(map(len, expected))
    for one, other in zip(expected, ExportedPredictor(engine, description, threshold)(images), strict=True):
        np.testing.assert_array_equal(other.labels, one.labels)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.01)


def test_programs_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "best.pt2").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"best\.pt2: torch unpickles programs, which could run any code; load"):
        load_predictor(tmp_path / "best.pt2")


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (4, 2, 1), ((3, 5), (2, 1), 1), (3, 4, 1), (3, 2, 2), (1, 2, 1)]
)
def test_fixed_padding_is_timms(kernel: Any, stride: Any, dilation: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), Conv2dSame(4, 8, kernel, stride, dilation=dilation, groups=2))
    fixed = with_fixed_padding(plain)
    assert not any(isinstance(part, Conv2dSame) for part in fixed.modules())
    for hw in ((8, 16), (32, 24), (4, 4)):
        images = torch.rand(2, 3, *hw)
        assert torch.equal(fixed(images), plain(images))
