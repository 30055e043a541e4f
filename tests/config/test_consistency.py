"""Settings that do not go together are refused in one line each, by the name of whatever set them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.config.load import load_config
from detseg.config.segmentation import UNetConfig
from detseg.errors import ConfigError

YOLO = "data: {name: voc, root: x, image_size: 64}\n"
UNET = "model: {name: unet}\ndata: {name: voc, root: x, image_size: 50}\n"
NO_CE = UNET.replace("unet}", "unet, loss: {cross_entropy: {weight: 0}, dice: {weight: 1}}}")
FOLDER = "model: {name: fcn}\ndata: {name: folder, root: x}\n"


@pytest.mark.parametrize(
    ("text", "override", "path", "message"),
    [
        (YOLO, "data.image_size=[64, 50]", "data.image_size", r"needs multiples of 32, got \[64, 50\]"),
        (YOLO, "data.mask_values=[0, 255]", "data.mask_values", "belongs to masks, model.name=yolo reads none"),
        (YOLO, "data.ignore_index=11", "data.ignore_index", "belongs to masks"),
        (YOLO, "data.augmentation.elastic.probability=0.1", "data.augmentation.elastic", "boxes cannot follow"),
        (YOLO, "evaluation.boundary_width=0.1", "evaluation.boundary_width", "belongs to masks"),
        (UNET, "data.augmentation.mixup=0.1", "data.augmentation.mixup", "is for boxes, model.name=unet has none"),
        (UNET, "data.augmentation.min_visibility=0.5", "data.augmentation.min_visibility", "is for boxes"),
        (UNET, "evaluation.max_detections=7", "evaluation.max_detections", "is for boxes"),
        (UNET, "evaluation.operating_iou=0.7", "evaluation.operating_iou", "is for boxes"),
        (UNET, "model.loss.focal.gamma=3", "model.loss.focal.gamma", "focal is off, its weight is 0; set focal.weight"),
        (UNET, "model.loss.tversky.alpha=0.1", "model.loss.tversky.alpha", "tversky is off, .*, or leave alpha out"),
        (UNET, "model.loss.tversky.beta=0.1", "model.loss.tversky.beta", "tversky is off, .*, or leave beta out"),
        (NO_CE, "model.loss.cross_entropy.label_smoothing=0.1", "model.loss.cross_entropy.label_smoothing", "is off"),
        (FOLDER, "data.ignore_colors=[[0, 0, 0]]", "data.ignore_colors", "give data.mask_colors, too"),
    ],
)
def test_it_is_one_line_that_names_the_override(
    tmp_path: Path, text: str, override: str, path: str, message: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    load_config(file)  # right without the override
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file, [override])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"override {override}: {path}: ")


def test_settings_of_terms_that_are_on_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(UNET, encoding="utf-8")
    terms = ["focal.weight=1", "focal.gamma=3", "tversky.weight=1", "tversky.alpha=0.1", "tversky.beta=0.2"]
    model = load_config(file, [f"model.loss.{x}" for x in (*terms, "cross_entropy.label_smoothing=0.1")]).model
    assert isinstance(model, UNetConfig)
    loss = model.loss
    assert (loss.focal.gamma, loss.tversky.alpha, loss.tversky.beta) == (3, 0.1, 0.2)


def test_what_the_file_sets_is_told_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(FOLDER, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"x\.yaml: data\.name: folder holds masks, model\.name=yolo finds boxes"):
        load_config(file, ["model.name=yolo"])


def test_colours_and_values_exclude_each_other(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    colors = "  mask_colors: [[0, 0, 0], [9, 9, 9]]\n"
    file.write_text(f"model: {{name: unet}}\ndata:\n  name: folder\n  root: x\n{colors}", encoding="utf-8")
    load_config(file)
    with pytest.raises(ConfigError, match=r"data\.mask_values: data\.mask_colors says that masks are colours"):
        load_config(file, ["data.mask_values=[0, 1]"])
