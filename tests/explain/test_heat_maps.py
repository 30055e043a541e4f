"""Heat maps against gradients and places worked out by hand, and for every kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.config.schema.model import FcnConfig, UNetConfig, YoloConfig
from detseg.explain.heat_maps import HeatMap, class_heat_maps, contributions, detection_heat_maps
from detseg.factory import build_model
from detseg.models.layers import Normalize
from detseg.models.segmentation import SegmentationLoss, SemanticSegmenter
from detseg.models.yolo.detector import YoloDetector, best_detections
from detseg.models.yolo.task_aligned import TaskAlignedAssigner, TaskAlignedScheme
from detseg.predict import Predictor, SegmentationPredictor
from detseg.structures import ClassTable, UInt8Array
from tests.contracts.test_detectors import HEADS
from tests.models.rcnn.small import small_detector, spread_outputs
from tests.predict.networks import noise

CLASSES = ClassTable(("red", "blue", "other"))
TWO = ClassTable(("ground", "red"))


def test_contributions_are_gradient_times_activation_summed_over_channels() -> None:
    # Two channels of two places: (1, 2) and (3, 4), with the gradients (1, 0) and (0, -1).
    feature = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    gradient = torch.tensor([[[[1.0, 0.0]], [[0.0, -1.0]]]])
    assert contributions(feature, gradient).tolist() == [[1 * 1 + 3 * 0, 2 * 0 - 4 * 1]]
    # Grad-CAM: the channels weigh 1/2 and -1/2 everywhere.
    assert contributions(feature, gradient, "grad_cam").tolist() == [[(1 - 3) / 2, (2 - 4) / 2]]


class MeanColors(nn.Module):
    """The mean colour of each cell of 8 × 8 pixels."""

    channels, strides = (3,), (8,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, 8)]


class NoNeck(nn.Identity):
    """The same maps."""

    strides = (8,)


class LinearHead(nn.Module):
    """A 1 × 1 convolution of the only map."""

    stride = 8

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, len(bias), 1)
        with torch.no_grad():
            self.score.weight.copy_(weight[:, :, None, None])
            self.score.bias = nn.Parameter(bias)

    def forward(self, features: list[Tensor]) -> Any:
        return self.score(features[0])


def red_blocks() -> UInt8Array:
    """40 × 80 pixels, black but for a red block at x 50 to 60, y 20 to 30, and one three quarters as bright at 10, 10.

    An input of 64 × 64 shows it at a scale of 0.8 below 16 rows of padding: the first block is the cell of row 4,
    column 5, the second that of row 3, column 1.
    """
    image = np.zeros((40, 80, 3), dtype=np.uint8)
    image[20:30, 50:60, 0] = 255
    image[10:20, 10:20, 0] = 191
    return image


def color_detector() -> YoloDetector:
    """Boxes are cells, and the logit of "red" is 20 R - 12: 8 for the first block, 2.98 for the second."""
    scheme = TaskAlignedScheme(3, (8,), TaskAlignedAssigner(), reg_max=2)  # two equal bins: half a cell to each side
    weight, bias = torch.zeros(8 + 3, 3), torch.full((8 + 3,), -12.0)
    weight[8, 0], bias[:8] = 20.0, 0.0

    class Head(LinearHead):
        def forward(self, features: list[Tensor]) -> list[Tensor]:
            return [super().forward(features)]

    return YoloDetector(MeanColors(), NoNeck(), Head(weight, bias), scheme, Normalize((0.0,) * 3, (1.0,) * 3))


class TestDetectionOfTwoBlocks:
    @pytest.fixture
    def predictor(self) -> Predictor:
        return Predictor(color_detector(), CLASSES, (64, 64))

    def test_heat_is_in_the_cell_of_the_detection_in_pixels_of_the_image(self, predictor: Predictor) -> None:
        first, second = detection_heat_maps(predictor, red_blocks())
        for found, (x, y) in ((first, (50, 20)), (second, (10, 10))):
            assert found.found.names == ["red"]
            assert found.found.boxes[0].tolist() == pytest.approx([x, y, x + 10, y + 10], abs=1e-4)
            assert found.mask is None
            assert found.score.strides == (8,)
            heat = found.score.heat
            assert heat.shape == (40, 80)
            assert heat.max() == 1
            top, left = np.unravel_index(heat.argmax(), heat.shape)
            assert (left, top) in {(x + a, y + b) for a in (4, 5) for b in (4, 5)}
            # Interpolation reaches half a cell beyond the cell, and a pixel.
            around = np.zeros((40, 80), dtype=np.bool_)
            around[max(y - 6, 0) : y + 16, x - 6 : x + 16] = True
            assert not heat[~around].any()
            assert found.score.fraction_inside(around) == pytest.approx(1)

    def test_grad_cam_shows_the_other_object_of_the_class_too(self, predictor: Predictor) -> None:
        (first, _) = detection_heat_maps(predictor, red_blocks(), method="grad_cam")
        # One weight for the whole map: the heat is the redness, 191 / 255 in the other block.
        heat = first.score.heat
        assert heat[24:26, 54:56].max() == pytest.approx(1)
        assert heat[14:16, 14:16].max() == pytest.approx(191 / 255, abs=0.01)

    def test_only_the_best(self, predictor: Predictor) -> None:
        assert len(detection_heat_maps(predictor, red_blocks(), most=1)) == 1

    def test_nothing_is_found_in_a_black_image(self, predictor: Predictor) -> None:
        assert detection_heat_maps(predictor, np.zeros((40, 80, 3), dtype=np.uint8)) == []

    def test_a_score_of_one_has_no_gradient_and_is_empty(self) -> None:
        model = color_detector()
        with torch.no_grad():
            for weight in model.head.parameters():
                weight.mul_(3)
        heat = detection_heat_maps(Predictor(model, CLASSES, (64, 64)), red_blocks())[0].score
        assert heat.is_empty
        assert heat.strides == ()
        assert np.isnan(heat.fraction_inside(np.ones((40, 80), dtype=np.bool_)))


def test_heat_of_the_classes_of_a_map() -> None:
    # One output for two classes, 10 R - 5: red speaks for "red"; nothing but the bias speaks for "ground".
    weight, bias = torch.tensor([[10.0, 0.0, 0.0]]), torch.tensor([-5.0])
    model = SemanticSegmenter(
        MeanColors(), None, LinearHead(weight, bias), Normalize((0.0,) * 3, (1.0,) * 3), SegmentationLoss(2), 2
    )
    heats = class_heat_maps(SegmentationPredictor(model, TWO, (64, 64)), red_blocks())
    assert list(heats) == [0, 1]
    assert heats[0].is_empty
    red = np.zeros((40, 80), dtype=np.bool_)
    red[4:26, 4:26] = red[14:36, 44:66] = True
    assert heats[1].fraction_inside(red) == pytest.approx(1)
    assert heats[1].heat[24:26, 54:56].max() == 1
    assert list(class_heat_maps(SegmentationPredictor(model, TWO, (64, 64)), red_blocks(), labels=[1])) == [1]


def tell_places_apart(model: Any) -> None:
    """Batch statistics near those of images, and weights under which outputs differ from place to place."""
    with torch.no_grad():
        for _ in range(8):
            model.train()(torch.rand(4, 3, 64, 96))
        for module in model.head.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
                module.weight.normal_(std=0.5)


def is_heat(heat: HeatMap, hw: tuple[int, int]) -> bool:
    largest = heat.heat.max()
    return heat.heat.shape == hw and bool(np.isfinite(heat.heat).all()) and heat.heat.min() >= 0 and largest in (0, 1)


def random_yolo(head: str, neck: str) -> Any:
    config = {"backbone": {"name": "csp_nano", "width": 0.125}, "neck": {"name": neck}}
    limits = {"nms_iou": 0.95, "max_detections": 12}
    torch.manual_seed(0)
    model = build_model(YoloConfig.model_validate(config | limits | {"head": {"name": head, **HEADS[head]}}), CLASSES)
    tell_places_apart(model)
    return model.eval()


def random_rcnn(masks: bool, output_of_label: tuple[int, ...] | None) -> Any:
    torch.manual_seed(0)
    model = small_detector(5 if output_of_label else 4, masks, output_of_label=output_of_label)
    spread_outputs(model)
    return model.eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("neck", ["fpn", "pan"])
def test_every_yolo_has_heat_maps_of_each_detection(head: str, neck: str) -> None:
    predictor = Predictor(random_yolo(head, neck), CLASSES, (64, 96), score_threshold=0.0)
    image = noise(50, 60)
    found, heats = predictor(image), detection_heat_maps(predictor, image)
    assert len(found) > 3
    assert len(heats) == len(found)
    for one, heat in zip(found, heats, strict=True):
        assert heat.found.boxes.tolist() == one.boxes.tolist()
        assert heat.found.scores.tolist() == one.scores.tolist()
        assert is_heat(heat.score, (50, 60))
        assert len(heat.score.strides) == 1  # the head of one level sees one map
    assert sum(not heat.score.is_empty for heat in heats) > 3


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("output_of_label", [None, (2, 1, 4)])
def test_every_rcnn_has_heat_where_it_pooled(masks: bool, output_of_label: tuple[int, ...] | None) -> None:
    predictor = Predictor(random_rcnn(masks, output_of_label), CLASSES, (64, 96), score_threshold=0.1)
    image = noise(64, 96)
    found, heats = predictor(image), detection_heat_maps(predictor, image)
    assert len(found) > 3
    assert len(heats) == len(found)
    num_shown = 0
    for one, heat in zip(found, heats, strict=True):
        assert heat.found.boxes.tolist() == one.boxes.tolist()
        assert (heat.mask is not None) == masks
        x1, y1, x2, y2 = one.boxes[0]
        for own in (heat.score, heat.mask):
            if own is None or own.is_empty:
                continue
            num_shown += 1
            assert is_heat(own, (64, 96))
            (stride,) = own.strides  # a region is pooled from one map
            around = np.zeros((64, 96), dtype=np.bool_)
            reach = 2 * stride  # a cell by pooling and one by drawing; proposals are near their boxes here
            around[max(int(y1) - reach, 0) : int(y2) + reach, max(int(x1) - reach, 0) : int(x2) + reach] = True
            assert own.fraction_inside(around) > 0.9
    assert num_shown > len(found) / 2


@pytest.mark.parametrize("kind", [*HEADS, "rcnn", "rcnn with unused outputs"])
def test_heat_is_the_slope_of_the_log_odds_that_the_detector_gives(kind: str) -> None:
    # Each cell of the map is scaled up and down a little, and the score of the best detection read from the results.
    model = random_yolo(kind, "fpn") if kind in HEADS else random_rcnn(False, (2, 1, 4) if "unused" in kind else None)
    predictor = Predictor(model, CLASSES, (64, 96), score_threshold=0.0)
    image = noise(64, 96)  # as large as the input, so that the letterbox changes nothing
    (heat,) = detection_heat_maps(predictor, image, most=1)
    (stride,) = heat.score.strides
    model, hw = predictor.model, (64, 96)
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        features = model.features(inputs)
        level = [64 // x.shape[2] for x in features].index(stride)
        proposals = None if kind in HEADS else model.rpn.propose(model.rpn.read(model(inputs), hw), hw, training=False)

        def log_odds(row: int, column: int, factor: float) -> float:
            changed = [x.clone() for x in features]
            changed[level][:, :, row, column] *= factor
            if proposals is not None:
                (found,) = model.roi_heads.detect(changed, proposals, hw, model.output_of_label)
            else:
                (found,) = best_detections(model.scheme, model.head(changed), hw, 0.001, 0.95, 12)
            assert (found.boxes[0] - torch.from_numpy(heat.found.boxes[0])).abs().max() < 3
            assert found.labels[0] == heat.found.labels[0]
            return float(torch.logit(found.scores[0].double()))

        rows, columns = features[level].shape[2:]
        slopes = [log_odds(y, x, 1.02) - log_odds(y, x, 0.98) for y in range(rows) for x in range(columns)]
    cells = torch.tensor(slopes).view(1, 1, rows, columns)
    expected = F.interpolate(cells, scale_factor=stride, mode="bilinear")[0, 0].relu()
    assert expected.max() > 0
    assert np.abs(heat.score.heat - (expected / expected.max()).numpy()).max() < 0.02


@pytest.mark.parametrize(("schema", "levels"), [(FcnConfig, 6), (UNetConfig, 3)])
def test_every_segmenter_has_heat_maps_of_its_classes(schema: Any, levels: int) -> None:
    torch.manual_seed(0)
    name = "fcn" if schema is FcnConfig else "unet"
    backbone = {"name": "unet", "width": 0.0625, "levels": levels}
    model: Any = build_model(schema.model_validate({"name": name, "backbone": backbone}), CLASSES)
    tell_places_apart(model)
    image = noise(70, 90)
    with torch.no_grad():  # so that no class has all pixels
        inputs = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        model.head.score.bias -= model.eval().predict(inputs).mean(dim=(0, 2, 3))
    predictor = SegmentationPredictor(model, CLASSES, (65, 97))  # no multiple of the strides
    heats = class_heat_maps(predictor, image)
    assert len(heats) > 1
    for heat in heats.values():
        assert is_heat(heat, (70, 90))
    assert any(not heat.is_empty for heat in heats.values())
