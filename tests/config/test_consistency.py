"""Settings that do not go together are refused in one line each, by the name of whatever set them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detseg.errors import ConfigError
from tests.config.test_load import load

YOLO = "data: {name: voc, root: x, image_size: 64}\n"
UNET = "model: {name: unet}\ndata: {name: voc, root: x, image_size: 50}\n"
NO_CE = UNET.replace("unet}", "unet, loss: {cross_entropy: {weight: 0}, dice: {weight: 1}}}")
FASTER = "model: {name: faster_rcnn}\ndata: {name: voc, root: x, image_size: 64}\n"
HELD = FASTER.replace("faster_rcnn", "faster_rcnn, backbone: {freeze: stem, unfreeze_epoch: 2}")
FROZEN = FASTER.replace("faster_rcnn", "faster_rcnn, backbone: {freeze: backbone}")
MASK = "model: {name: mask_rcnn}\ndata: {name: coco, root: x, image_size: 64}\n"
PUBLISHED = FASTER.replace("faster_rcnn", "faster_rcnn, variant: resnet50_fpn, weights: coco")
FOLDER = "model: {name: fcn}\ndata: {name: mask_folder, root: x}\n"
COLORS = FOLDER.replace("x}", "x, mask_colors: [[0, 0, 0], [9, 9, 9]]}")
GIOU = FASTER.replace("faster_rcnn", "faster_rcnn, rpn: {box_loss: {name: giou}}")


@pytest.mark.parametrize(
    ("text", "override", "path", "message"),
    [
        (YOLO, "data.image_size=[64, 50]", "data.image_size", r"needs multiples of 32, got \[64, 50\]"),
        (
            YOLO,
            "trainer.early_stopping_min_delta=0.1",
            "trainer.early_stopping_min_delta",
            "nothing stops early",
        ),
        (YOLO, "data.mask_values=[0, 255]", "data.mask_values", "belongs to masks, model.name=yolo reads none"),
        (YOLO, "data.augmentation.elastic.probability=0.1", "data.augmentation.elastic", "boxes cannot follow"),
        (
            YOLO,
            "data.augmentation.copy_paste=0.1",
            "data.augmentation.copy_paste",
            "needs masks of objects, model.name=yolo",
        ),
        (
            UNET,
            "data.augmentation.copy_paste=0.1",
            "data.augmentation.copy_paste",
            "needs masks of objects",
        ),
        (YOLO, "evaluation.boundary_width=0.1", "evaluation.boundary_width", "belongs to semantic masks"),
        (UNET, "data.augmentation.mixup=0.1", "data.augmentation.mixup", "is for boxes, model.name=unet has none"),
        (UNET, "evaluation.max_detections=7", "evaluation.max_detections", "is for boxes"),
        (UNET, "model.loss.focal.gamma=3", "model.loss.focal.gamma", "focal is off, its weight is 0; set focal.weight"),
        (UNET, "model.loss.tversky.beta=0.1", "model.loss.tversky.beta", "tversky is off, .*, or leave this out"),
        (NO_CE, "model.loss.cross_entropy.label_smoothing=0.1", "model.loss.cross_entropy.label_smoothing", "is off"),
        (YOLO, "model.backbone.unfreeze_epoch=3", "model.backbone.unfreeze_epoch", "nothing is frozen"),
        (FASTER, "model.weights=coco", "model.weights", "are those of a published variant; set model.variant"),
        (FASTER, "model.neck.name=pan", "model.neck.name", "needs the equal channels of an fpn, got pan"),
        (HELD, "model.backbone.unfreeze_epoch=1", "model.backbone.unfreeze_epoch", "take 2 or more"),
        (PUBLISHED, "model.backbone.name=csp_nano", "model.backbone.name", "is decided by model.variant=resnet50_fpn"),
        (PUBLISHED, "model.rpn.aspect_ratios=[1]", "model.rpn.aspect_ratios", "is decided by model.variant"),
        (PUBLISHED, "model.strides=[8, 16]", "model.strides", "is decided by model.variant"),
        (MASK, "model.variant=resnet50_fpn_v2", "model.variant", "no mask_rcnn is published on resnet50_fpn_v2"),
        (HELD, "trainer.max_epochs=1", "model.backbone.unfreeze_epoch", "comes after the last epoch"),
        (FROZEN, "optimizer.backbone_lr_scale=0.1", "optimizer.backbone_lr_scale", "always frozen, so it has no"),
        (FASTER, "model.roi_heads.batch_size_per_image=3", "model.roi_heads.batch_size_per_image", "no positive"),
        (FASTER, "model.rpn.positive_fraction=0.0", "model.rpn.batch_size_per_image", "leave no positive at all"),
        (FASTER, "model.rpn.positive_iou=0.2", "model.rpn.positive_iou", "is below negative_iou"),
        (FASTER, "evaluation.max_detections=400", "evaluation.max_detections", "keeps model.max_detections=100"),
        (FASTER, "model.max_detections=50", "evaluation.max_detections", "keeps model.max_detections=50"),
        (FOLDER, "data.ignore_colors=[[0, 0, 0]]", "data.ignore_colors", "give data.mask_colors, too"),
        (COLORS, "data.mask_values=[0, 1]", "data.mask_values", "data.mask_colors says that masks are colours"),
        (FASTER, "model.name=mask_rcnn", "data.name", "model.name=mask_rcnn needs the mask of each object.*take coco"),
        (GIOU, "model.rpn.box_loss.beta=0.5", "model.rpn.box_loss.beta", "belongs to smooth_l1; .* instead of giou"),
    ],
)
def test_one_line_names_the_override(tmp_path: Path, text: str, override: str, path: str, message: str) -> None:
    load(tmp_path, text)  # right without the override
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text, override)
    assert "\n" not in str(caught.value)
    told = f"override {override}" if override.startswith(path) else str(tmp_path / "x.yaml")
    assert str(caught.value).startswith((f"override {override}: {path}: ", f"{told}: {path}: "))


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (UNET, ["model.loss.focal.weight=1", "model.loss.focal.gamma=3"]),
        (UNET, [f"model.loss.tversky.{setting}" for setting in ("weight=1", "alpha=0.1", "beta=0.2")]),
        (FOLDER, ["data.mask_colors=[[0, 0, 0], [9, 9, 9]]", "data.ignore_colors=[[1, 1, 1]]"]),
        (FASTER, ["model.rpn.box_loss.beta=0.5", "model.roi_heads.box_loss.beta=0.5"]),
        (PUBLISHED, ["model.backbone.freeze=stem", "model.rpn.batch_size_per_image=64", "model.nms_iou=0.6"]),
    ],
)
def test_settings_that_have_an_effect_are_taken(tmp_path: Path, text: str, overrides: list[str]) -> None:
    load(tmp_path, text, *overrides)


def test_what_the_file_sets_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: data\.name: mask_folder holds masks, model\.name=yolo finds"):
        load(tmp_path, FOLDER, "model.name=yolo")


@pytest.mark.parametrize(
    ("text", "name"), [(YOLO, "csp_nano"), (UNET, "unet"), (FOLDER, "csp_nano"), (FASTER, "resnet50")]
)
def test_a_backbone_keeps_its_name_when_something_of_it_is_set(tmp_path: Path, text: str, name: str) -> None:
    for overrides in ([], ["model.backbone.freeze=stem"]):
        model: Any = load(tmp_path, text, *overrides).model
        assert model.backbone.name == name
