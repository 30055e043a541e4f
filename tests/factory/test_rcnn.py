"""From settings to two-stage detectors: what each setting reaches, what null stands for, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_320_FPN_Weights as MobileNet_320
from torchvision.ops import FrozenBatchNorm2d

from detseg.config.schema.model import FasterRcnnConfig, MaskRcnnConfig
from detseg.errors import ConfigError
from detseg.factory.rcnn import build_rcnn
from detseg.models.rcnn.detector import RCNNDetector
from detseg.structures import ClassTable
from tests.factory.torchvision_models import MAKERS

CLASSES = ClassTable(("a", "b", "c"))
SMALL = {"backbone": {"name": "csp_nano", "width": 0.0625, "depth": 0.1}, "neck": {"name": "fpn", "channels": 8}}
PAN = {**SMALL, "neck": {"name": "pan"}}


def faster(**changes: Any) -> FasterRcnnConfig:
    return FasterRcnnConfig.model_validate({"name": "faster_rcnn", **changes})


def anchors(sizes: Any, strides: tuple[int, ...]) -> FasterRcnnConfig:
    return faster(**SMALL, strides=strides, rpn={"anchor_sizes": sizes})


def mask(**changes: Any) -> MaskRcnnConfig:
    return MaskRcnnConfig.model_validate({"name": "mask_rcnn", **changes})


def build(config: FasterRcnnConfig | MaskRcnnConfig, classes: ClassTable = CLASSES) -> RCNNDetector:
    return build_rcnn(config, classes, False)


class TestSettingsReachTheModel:
    def test_of_the_first_stage(self) -> None:
        settings = yaml.safe_load(
            "{anchor_sizes: [[10, 20], [30, 40], [50, 60]], aspect_ratios: [0.5, 2], convolutions: 3, nms_iou: 0.65, "
            "positive_iou: 0.6, negative_iou: 0.2, batch_size_per_image: 40, positive_fraction: 0.3, "
            "pre_nms_top_n_train: 11, pre_nms_top_n: 12, post_nms_top_n_train: 13, post_nms_top_n: 14, "
            "score_threshold: 0.01, box_loss: {name: giou, weight: 2.5}}"
        )
        rpn = build(faster(**SMALL, strides=(8, 16), rpn=settings)).rpn
        assert rpn.anchor_generator.sizes == ((10, 20), (30, 40), (50, 60))
        assert rpn.anchor_generator.aspect_ratios == ((0.5, 2),) * 3
        assert rpn.head.cls_logits.out_channels == 4
        assert sum(isinstance(m, nn.Conv2d) for m in rpn.head.conv.modules()) == 3
        assert (rpn.assigner.positive_iou, rpn.assigner.negative_iou) == (0.6, 0.2)
        assert (rpn.sampler.batch_size_per_image, rpn.sampler.max_positives) == (40, 12)
        assert (rpn.nms_iou, rpn.score_threshold) == (0.65, 0.01)
        assert (rpn.pre_nms_top_n, rpn.post_nms_top_n) == ((11, 12), (13, 14))
        assert (rpn.box_loss.name, rpn.box_loss.weight) == ("giou", 2.5)

    def test_of_the_second_stage(self) -> None:
        settings = yaml.safe_load(
            "{pool_size: 5, sampling_ratio: 3, hidden: 24, positive_iou: 0.4, batch_size_per_image: 20, "
            "positive_fraction: 0.5, box_loss: {name: smooth_l1, beta: 0.5, weight: 3}}"
        )
        model = build(faster(**SMALL, roi_heads=settings, score_threshold=0.2, nms_iou=0.4, max_detections=7))
        heads: Any = model.roi_heads
        assert (heads.box_pool.output_size, heads.box_pool.sampling_ratio) == ((5, 5), 3)
        assert heads.box_head.fc6.weight.shape == (24, 8 * 5 * 5)
        assert heads.box_predictor.cls_score.weight.shape == (4, 24)
        assert heads.box_predictor.bbox_pred.weight.shape == (16, 24)
        assert (heads.assigner.positive_iou, heads.assigner.negative_iou) == (0.4, 0.4)
        assert (heads.sampler.batch_size_per_image, heads.sampler.max_positives) == (20, 10)
        assert (heads.box_loss.name, heads.box_loss.beta, heads.box_loss.weight) == ("smooth_l1", 0.5, 3)
        assert (heads.score_threshold, heads.nms_iou, heads.max_detections) == (0.2, 0.4, 7)
        assert not heads.has_masks
        assert not heads.torchvision_masks

    @pytest.mark.parametrize("convolutions", [0, 2])
    def test_of_the_masks(self, convolutions: int) -> None:
        settings = {"pool_size": 6, "convolutions": convolutions, "channels": 12, "weight": 1.5, "threshold": 0.4}
        heads: Any = build(mask(**SMALL, mask=settings)).roi_heads
        assert heads.mask_pool.output_size == (6, 6)
        assert (heads.mask_weight, heads.mask_threshold, heads.torchvision_masks) == (1.5, 0.4, False)
        assert len(heads.mask_head) == convolutions
        logits = heads.mask_predictor(heads.mask_head(torch.zeros(2, 8, 6, 6)))
        assert logits.shape == (2, 4, 12, 12)
        assert heads.mask_predictor.conv5_mask.out_channels == 12

    def test_class_weights_go_to_the_outputs_of_their_labels(self) -> None:
        heads = build(faster(**SMALL, class_weights=[2, 0.5, 3])).roi_heads
        assert heads.class_weights is not None
        assert heads.class_weights.tolist() == [1, 2, 0.5, 3]  # the background first
        assert build(faster(**SMALL)).roi_heads.class_weights is None

    def test_class_weights_go_to_the_outputs_of_published_heads(self) -> None:
        names = MobileNet_320.COCO_V1.meta["categories"]
        classes = ClassTable(tuple(sorted(set(names) - {"__background__", "N/A"})))
        weights = [1.0 + label for label in range(80)]
        config = faster(variant="mobilenet_v3_large_320_fpn", weights="coco", class_weights=weights)
        found = build(config, classes).roi_heads.class_weights
        assert found is not None
        expected = {name: 1.0 + label for label, name in enumerate(classes.names)}
        assert found.tolist() == [expected.get(name, 1.0) for name in names]

    def test_defaults_are_the_papers(self) -> None:
        """Lin et al. 2017, section 4.1: areas of 32² to 512² on P2 to P6, ratios 1:2, 1:1, 2:1."""
        rpn = build(faster(**SMALL)).rpn
        assert rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
        assert rpn.anchor_generator.aspect_ratios == ((0.5, 1, 2),) * 5
        assert (rpn.pre_nms_top_n, rpn.post_nms_top_n, rpn.score_threshold) == ((2000, 1000), (2000, 1000), 0)


@pytest.mark.parametrize("key", MAKERS, ids=" on ".join)
def test_numbers_of_published_variants_are_torchvisions(key: tuple[str, str]) -> None:
    kind: Any = FasterRcnnConfig if key[0] == "faster_rcnn" else MaskRcnnConfig
    with torch.device("meta"):
        theirs: Any = MAKERS[key](weights=None, weights_backbone=None, num_classes=4)
        ours: Any = build(kind.model_validate({"name": key[0], "variant": key[1]}))
    rpn, heads = theirs.rpn, theirs.roi_heads
    assert ours.rpn.anchor_generator.sizes == rpn.anchor_generator.sizes
    assert ours.rpn.anchor_generator.aspect_ratios == rpn.anchor_generator.aspect_ratios
    assert ours.rpn.pre_nms_top_n == (rpn._pre_nms_top_n["training"], rpn._pre_nms_top_n["testing"])
    assert ours.rpn.post_nms_top_n == (rpn._post_nms_top_n["training"], rpn._post_nms_top_n["testing"])
    assert (ours.rpn.nms_iou, ours.rpn.score_threshold) == (rpn.nms_thresh, rpn.score_thresh)
    assert ours.rpn.sampler.batch_size_per_image == rpn.fg_bg_sampler.batch_size_per_image
    assert ours.roi_heads.sampler.batch_size_per_image == heads.fg_bg_sampler.batch_size_per_image
    assert ours.roi_heads.sampler.max_positives == 512 * heads.fg_bg_sampler.positive_fraction
    assert (ours.roi_heads.score_threshold, ours.roi_heads.nms_iou) == (heads.score_thresh, heads.nms_thresh)
    assert ours.roi_heads.max_detections == heads.detections_per_img
    assert ours.roi_heads.has_masks == heads.has_mask()
    assert ours.roi_heads.torchvision_masks
    assert ours.normalize.mean.shape == (3, 1, 1)
    # Without weights, as torchvision: every layer trains, batch normalisation as well.
    own, expected = ({n: p.shape for n, p in m.named_parameters() if p.requires_grad} for m in (ours, theirs))
    assert own == {name.replace("backbone.fpn.", "neck.fpn."): shape for name, shape in expected.items()}


@pytest.mark.parametrize(
    ("variant", "eps"), [("resnet50_fpn", {0.0}), ("resnet50_fpn_v2", set()), ("mobilenet_v3_large_fpn", {1e-5})]
)
def test_normalisation_with_published_weights_is_fixed_but_for_v2(variant: str, eps: set[float]) -> None:
    with torch.device("meta"):
        model = build(faster(variant=variant, weights="coco"))
    fixed = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert {module.eps for module in fixed} == eps
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == (variant == "resnet50_fpn_v2")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (faster(**PAN), r"model\.neck: .*equal channels.*pan has \[.*set model.neck.name=fpn"),
        (faster(**SMALL, strides=(8, 32)), r"model\.strides: .*twice the one before.*got \[8, 32\]"),
        (faster(**SMALL, strides=(16, 8)), r"model\.strides: .*got \[16, 8\]"),
        (faster(**SMALL, strides=()), r"model\.strides: .*got \[\]"),
        (faster(**SMALL, strides=(32, 64)), r"model\.backbone: .*strides \[2, 4, 8, 16, 32\], got \[32, 64\]"),
        (anchors(((32,),) * 4, (4, 8, 16, 32)), r"model\.rpn.*each of 5 levels.*\[4, 8, 16, 32, 64\].*got \[\[32.0"),
        (anchors(((32,), ()), (8,)), r"model\.rpn\.anchor_sizes: expected one or more.*got \[\(32.0,\), \(\)\]"),
        (anchors(((32,), (64, 128)), (8,)), r"model\.rpn.*as many for each level, got \[\(32.0,\), \(64.0, 128.0\)\]"),
        (faster(**SMALL, rpn={"aspect_ratios": ()}), r"model\.rpn\.aspect_ratios: .*got none"),
        (faster(**SMALL, class_weights=[1, 2]), r"model\.class_weights: .*each of the 3 classes, not all 0, got \[1"),
        (faster(**SMALL, weights="coco"), r"model\.weights: coco belongs to the published variants"),
        (mask(variant="mobilenet_v3_large_fpn"), r"model\.variant: mask_rcnn is published as resnet50_fpn; got 'mob"),
    ],
)
def test_what_does_not_go_together_is_refused(config: FasterRcnnConfig | MaskRcnnConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        build(config)
    assert "\n" not in str(caught.value)


def test_levels_are_the_strides() -> None:
    model = build(faster(**PAN, strides=(16,)))
    assert model.neck.channels == model.backbone.channels
    assert model.roi_heads.box_pool.featmap_names == ["0"]
    assert [tuple(x.shape[1:]) for x in model(torch.rand(1, 3, 64, 96))] == [(15, 4, 6), (15, 2, 3)]
