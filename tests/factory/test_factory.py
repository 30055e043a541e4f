"""From settings to modules: what each setting reaches, and what is refused instead of ignored."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from detseg.checkpoint import ENTRY, model_entry, save_atomically
from detseg.config.load import config_from_dict
from detseg.config.schema.model import (
    AnchorHeadConfig,
    BackboneConfig,
    GridHeadConfig,
    NeckConfig,
    TaskAlignedHeadConfig,
    YoloConfig,
)
from detseg.errors import CheckpointError, ConfigError
from detseg.factory import build_model, load_model
from detseg.factory.backbones import build_backbone, build_neck
from detseg.factory.yolo import build_detector, build_scheme, head_strides
from detseg.models.layers import CSPLayer
from detseg.models.necks import FPN, PAN
from detseg.models.yolo.anchor import AnchorScheme
from detseg.models.yolo.detector import CoupledHead, DecoupledHead
from detseg.models.yolo.grid import GridScheme
from detseg.models.yolo.task_aligned import TaskAlignedScheme
from detseg.structures import ClassTable

STRIDES = (8, 16, 32)
NANO = BackboneConfig(name="csp_nano", width=0.125)
ANCHORS = ((60.0, 50.0), (10.0, 12.0), (100.0, 90.0), (24.0, 16.0))


def test_the_family_grows() -> None:
    """Nano is the size class of the small detectors of the literature: about 3 million weights."""
    sizes = []
    for name in ("csp_nano", "csp_small", "csp_medium", "csp_large"):
        with torch.device("meta"):
            model = build_detector(YoloConfig(backbone=BackboneConfig(name=name)), num_classes=3)
        sizes.append(sum(parameter.numel() for parameter in model.parameters()))
    assert 2.9e6 < sizes[0] < 3.1e6
    assert all(2 * small < large for small, large in pairwise(sizes))


BACKBONE_ERRORS: list[tuple[dict[str, Any], tuple[int, ...], str]] = [
    ({"name": "resnet81"}, STRIDES, r": .*'resnet81' \(did you mean 'resnet18'.*ours are csp_nano"),
    ({"name": "test_resnet"}, (8, 64), r": .*strides \[2, 4, 8, 16, 32\], not \[8, 64\]"),
    ({}, (64,), r": .*strides \[2, 4, 8, 16, 32\], got \[64\]"),
    ({"name": "resnet18", "depth": 0.5}, STRIDES, r"depth: does not apply to 'resnet18'.* csp_nano"),
    ({"name": "unet", "depth": 0.5}, STRIDES, r"depth: does not apply to 'unet', belongs to csp_nano"),
    ({"name": "resnet18", "width": 0.5}, STRIDES, r"width: does not apply to 'resnet18'.*, unet$"),
    ({"name": "csp_nano", "levels": 4}, STRIDES, r"levels: does not apply to 'csp_nano', belongs to"),
    ({"name": "resnet18", "levels": 4}, STRIDES, r"levels: does not apply to 'resnet18'"),
    ({"name": "csp_small", "pretrained": True}, STRIDES, r"pretrained: does not apply to 'csp_small'.*no weights are"),
    ({"name": "unet", "pretrained": True}, STRIDES, r"pretrained: does not apply to 'unet'"),
]


class TestBackbone:
    @pytest.mark.parametrize(("settings", "strides", "message"), BACKBONE_ERRORS)
    def test_what_does_not_apply_is_refused(self, settings: Any, strides: tuple[int, ...], message: str) -> None:
        with pytest.raises(ConfigError, match=rf"^model\.backbone.*{message}"):
            build_backbone(BackboneConfig.model_validate(settings), strides, load_pretrained=False)

    def test_levels_of_the_papers_encoder_follow_the_strides_asked_for(self) -> None:
        paper = BackboneConfig(name="unet", width=0.125)
        assert len(build_backbone(paper, None, False).channels) == 5
        deep = build_backbone(paper, (8, 32), False)
        assert (deep.strides, deep.channels) == ((8, 32), (64, 256))

    def test_multipliers_replace_those_of_the_name(self) -> None:
        assert build_backbone(BackboneConfig(name="csp_nano", width=0.5), STRIDES, True).channels == (128, 256, 512)
        deep = build_backbone(BackboneConfig(name="csp_nano", width=0.125, depth=1.0), STRIDES, True)
        assert [len(layer.blocks) for layer in deep.modules() if isinstance(layer, CSPLayer)] == [3, 6, 6, 3]

    def test_weights_are_fetched_only_where_none_follow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        create_model = timm.create_model

        def recorded(name: str, pretrained: bool = False, **options: Any) -> Any:
            asked.append(pretrained)
            return create_model(name, False, **options)

        monkeypatch.setattr(timm, "create_model", recorded)
        for load_pretrained in (False, True):
            build_backbone(BackboneConfig(name="test_resnet", pretrained=True), STRIDES, load_pretrained)
            assert any(asked) == load_pretrained


class TestNeck:
    def build(self, config: NeckConfig, in_channels: tuple[int, ...] = (16, 32, 64), depth: float | None = None) -> Any:
        return build_neck(config, BackboneConfig(depth=depth), in_channels, STRIDES[: len(in_channels)])

    def test_follows_the_backbone_unless_told(self) -> None:
        assert self.build(NeckConfig(name="fpn")).channels == (16, 16, 16)
        assert self.build(NeckConfig(name="pan")).channels == (16, 32, 64)

    @pytest.mark.parametrize(("name", "kind", "channels"), [("fpn", FPN, (24, 24, 24)), ("pan", PAN, (24, 48, 96))])
    def test_channels_of_an_fpn_are_equal_those_of_a_pan_double(self, name: Any, kind: type, channels: Any) -> None:
        neck = self.build(NeckConfig(name=name, channels=24))
        assert isinstance(neck, kind)
        assert neck.channels == channels

    @pytest.mark.parametrize(("own", "backbone", "blocks"), [(None, None, 1), (None, 0.67, 2), (1.0, 0.67, 3)])
    def test_depth_of_a_pan(self, own: float | None, backbone: float | None, blocks: int) -> None:
        neck = self.build(NeckConfig(name="pan", depth=own), depth=backbone)
        assert {len(layer.blocks) for layer in neck.modules() if isinstance(layer, CSPLayer)} == {blocks}

    def test_settings_that_do_not_apply_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"model\.neck\.depth: belongs to pan"):
            self.build(NeckConfig(name="fpn", depth=0.33))
        for config in (NeckConfig(name="pan", channels=32), NeckConfig(name="pan", depth=1.0)):
            with pytest.raises(ConfigError, match=r"model\.neck: a pan on one stride .* do not apply"):
                self.build(config, in_channels=(16,))


class TestHead:
    def test_strides_are_sorted(self) -> None:
        assert head_strides(TaskAlignedHeadConfig(strides=(32, 8))) == (8, 32)
        assert head_strides(GridHeadConfig(name="grid", stride=16)) == (16,)

    @pytest.mark.parametrize("strides", [(), (8, 8, 16)])
    def test_strides_are_some_and_differ(self, strides: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match=r"model\.head\.strides: expected one or more different strides"):
            head_strides(TaskAlignedHeadConfig(strides=strides))

    def test_task_aligned_settings_arrive(self) -> None:
        weights = {"box_weight": 3.5, "class_weight": 4.5, "dfl_weight": 5.5}
        config = TaskAlignedHeadConfig(strides=(16, 8), reg_max=4, topk=3, alpha=1.5, beta=2.5, **weights)
        scheme = build_scheme(config, num_classes=7)
        assert isinstance(scheme, TaskAlignedScheme)
        assert (scheme.strides, scheme.reg_max, scheme.class_outputs) == ((8, 16), 4, 7)
        assert (scheme.assigner.topk, scheme.assigner.alpha, scheme.assigner.beta) == (3, 1.5, 2.5)
        assert {name: getattr(scheme, name) for name in weights} == weights

    def anchors(self, anchors: Any = ANCHORS, anchors_per_level: int = 2, **settings: Any) -> AnchorHeadConfig:
        return AnchorHeadConfig(
            name="anchor", strides=(32, 16), anchors=anchors, anchors_per_level=anchors_per_level, **settings
        )

    def test_anchor_settings_arrive_and_small_anchors_go_to_the_fine_stride(self) -> None:
        weights = {"box_weight": 3.5, "objectness_weight": 4.5, "class_weight": 5.5}
        scheme = build_scheme(self.anchors(ignore_iou=0.75, **weights), num_classes=7)
        assert isinstance(scheme, AnchorScheme)
        assert scheme.strides == (16, 32)
        assert scheme.anchors.tolist() == [[[10, 12], [24, 16]], [[60, 50], [100, 90]]]
        assert scheme.assigner.ignore_iou == 0.75
        assert {name: getattr(scheme, name) for name in weights} == weights

    @pytest.mark.parametrize(
        ("anchors", "per_level", "message"),
        [
            (ANCHORS[:3], 2, "3 anchors cannot be distributed evenly over 2"),
            ((), 2, "0 anchors cannot be distributed evenly over 2"),
            (None, 2, "not given"),
            (ANCHORS, 3, "4 anchors on 2 strides are 2 for each, .*_per_level is 3; set it to 2, or give 6 anchors$"),
        ],
    )
    def test_anchors_that_do_not_fit_the_strides_are_refused(self, anchors: Any, per_level: int, message: str) -> None:
        with pytest.raises(ConfigError, match=rf"^model\.head\.anchors: {message}"):
            build_scheme(self.anchors(anchors, per_level), num_classes=7)

    def test_grid_settings_arrive(self) -> None:
        config = GridHeadConfig(name="grid", stride=16, boxes_per_cell=3, coordinate_weight=1.5, no_object_weight=2.5)
        scheme = build_scheme(config, num_classes=7)
        assert isinstance(scheme, GridScheme)
        assert (scheme.strides, scheme.boxes_per_cell, scheme.class_outputs) == ((16,), 3, 7)
        assert (scheme.coordinate_weight, scheme.no_object_weight) == (1.5, 2.5)


@pytest.mark.parametrize(
    "head",
    [{"name": "task_aligned"}, {"name": "anchor", "anchors": ANCHORS * 3, "anchors_per_level": 4}, {"name": "grid"}],
)
def test_class_weights_reach_every_head(head: dict[str, Any]) -> None:
    config = YoloConfig.model_validate({"backbone": NANO, "head": head, "class_weights": [0.5, 2, 1]})
    scheme: Any = build_detector(config, 3).scheme
    assert scheme.class_weights.tolist() == [0.5, 2, 1]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0, 2.0), "expected a weight for each of the 3 classes, not all 0, got [1.0, 2.0]"),
        ((0.0, 0.0, 0.0), "expected a weight for each of the 3 classes, not all 0, got [0.0, 0.0, 0.0]"),
        ("inverse_sqrt_frequency", "not computed yet; give numbers, or train from a settings file"),
    ],
)
def test_class_weights_are_one_for_each_class(weights: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_detector(YoloConfig(backbone=NANO, class_weights=weights), 3)
    assert str(caught.value) == f"model.class_weights: {message}"


@pytest.mark.parametrize(("coupled", "kind"), [(True, CoupledHead), (False, DecoupledHead)])
def test_settings_reach_the_detector(coupled: bool, kind: type) -> None:
    head = TaskAlignedHeadConfig(coupled=coupled)
    backbone = BackboneConfig(name="test_resnet")
    config = YoloConfig(backbone=backbone, head=head, score_threshold=0.25, nms_iou=0.5, max_detections=7)
    model: Any = build_detector(config, 3)
    assert isinstance(model.head, kind)
    assert (model.score_threshold, model.nms_iou, model.max_detections) == (0.25, 0.5, 7)
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor(model.backbone.mean))
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor(model.backbone.std))


CLASSES = ClassTable(("a", "b", "c"))
LOADED: dict[str, dict[str, Any]] = {
    "yolo": {"backbone": {"name": "test_resnet", "pretrained": True}, "neck": {"name": "fpn"}},
    "unet": {"name": "unet", "backbone": {"name": "unet", "width": 0.125}},
    "mask_rcnn": {
        "name": "mask_rcnn",
        "backbone": {"name": "csp_nano", "width": 0.0625, "depth": 0.1},
        "neck": {"name": "fpn", "channels": 8},
        "roi_heads": {"hidden": 16},
        "mask": {"channels": 4, "convolutions": 1},
    },
}


def write_checkpoint(path: Path, model: dict[str, Any], weights: dict[str, Tensor], classes: ClassTable) -> Path:
    """A checkpoint of a model with these settings; returns its path."""
    settings = config_from_dict({"model": model, "data": {"name": "shapes"}}, where="test").model_dump(mode="json")
    state = {f"model.{name}": value for name, value in weights.items()}
    save_atomically({ENTRY: model_entry(settings, classes), "state_dict": state, "epoch": 4}, path)
    return path


class TestLoading:
    @pytest.mark.parametrize("name", LOADED)
    def test_the_same_without_the_network(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Published weights are not fetched again for a model whose own follow."""
        create_model = timm.create_model

        def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
            assert not pretrained
            return create_model(name, pretrained, **options)

        monkeypatch.setattr(timm, "create_model", offline)
        config = config_from_dict({"model": LOADED[name], "data": {"name": "shapes"}}, "test")
        model: Any = build_model(config.model, CLASSES, load_pretrained=False).eval()
        path = write_checkpoint(tmp_path / "a.ckpt", LOADED[name], model.state_dict(), CLASSES)
        loaded, read, contents = load_model(path)
        assert type(loaded) is type(model)
        assert not loaded.training
        assert (read.model, contents.classes.names) == (config.model, ("a", "b", "c"))
        images = torch.rand(1, 3, 64, 96)
        want, got = model.predict(images)[0], loaded.predict(images)[0]
        assert len(want) > 0
        if name == "unet":
            assert torch.equal(want, got)
        else:
            assert torch.equal(want.boxes, got.boxes)
            assert torch.equal(want.scores, got.scores)
        assert name != "mask_rcnn" or torch.equal(want.grids.probabilities, got.grids.probabilities)

    @pytest.mark.parametrize("spoil", ["missing", "shape", "too many"])
    def test_weights_that_do_not_fit_are_one_line(self, tmp_path: Path, spoil: str) -> None:
        weights = build_detector(YoloConfig(backbone=NANO), 3).state_dict()
        name = "nobody.knows" if spoil == "too many" else next(iter(weights))
        weights[name] = torch.zeros(9)
        if spoil == "missing":
            del weights[name]
        path = write_checkpoint(tmp_path / "a.ckpt", {"backbone": {"width": 0.125}}, weights, CLASSES)
        with pytest.raises(CheckpointError, match=r"a\.ckpt: its weights do not fit its own settings") as caught:
            load_model(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
