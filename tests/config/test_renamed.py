"""Old names of settings: an error with the new name wherever a user writes them, taken in files that we wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import ENTRY, ModelCheckpoint, model_entry, read_model_checkpoint, save_atomically
from detseg.config.load import config_from_dict, config_to_dict, load_config
from detseg.config.renamed import RENAMED, rename_settings
from detseg.config.schema.data import AugmentationConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.rcnn import RcnnConfig, RpnConfig
from detseg.errors import ConfigError
from detseg.safe_weights import write_weights
from detseg.structures import ClassTable

DATA = {"name": "voc", "root": "x"}
AUGMENTATION = {"plain_last_epochs": 1, "affine": {"shift": 0.2}}
STAGE = {"samples": 32, "positive_share": 0.3}
OLD: list[dict[str, Any]] = [
    {
        "data": {"name": "folder", "root": "x", "max_bad_share": 0.5, "augmentation": AUGMENTATION},
        "model": {"name": "unet", "backbone": {"frozen_stages": 0}, "loss": {"dice": {"weight": 1}, "left_out": [0]}},
        "schedule": {"name": "one_cycle", "rise_share": 0.2, "initial_share": 0.1, "final_share": 0.3},
    },
    {
        "data": DATA,
        "model": {
            "name": "faster_rcnn",
            "backbone": {"frozen_stages": 2, "frozen_norm": True},
            "proposals": {"candidates": 5, "candidates_train": 6, "proposals": 7, "proposals_train": 8, **STAGE},
            "regions": STAGE,
        },
        "evaluation": {"operating_iou": 0.7},
    },
    {
        "data": DATA,
        "model": {"name": "yolo", "head": {"bins": 4, "top_candidates": 5}},
        "trainer": {"accumulate_batches": 2, "num_pictures": 3},
    },
]
"""Configurations of the old version; together they have every setting that has another name today."""


def leaves(data: dict[str, Any], path: str = "") -> list[str]:
    return [
        leaf
        for key, value in data.items()
        for leaf in (leaves(value, f"{path}{key}.") if isinstance(value, dict) else [path + key])
    ]


def test_every_old_name_is_tried_here_and_is_no_name_of_today() -> None:
    tried = {leaf for config in OLD for leaf in leaves(config)}
    sections = {"model.proposals", "model.regions"}
    assert set(RENAMED) - sections <= tried
    new = {leaf for config in OLD for leaf in leaves(config_to_dict(config_from_dict(rename_settings(config))))}
    assert set(RENAMED.values()) - {"model.rpn", "model.roi_heads"} <= new
    assert not new & set(RENAMED)


@pytest.mark.parametrize("kind", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("old", OLD)
def test_files_of_older_versions_load(old: dict[str, Any], kind: str, tmp_path: Path) -> None:
    path, classes = tmp_path / f"old{kind}", ClassTable(("a", "b"))
    weights = {"w": torch.ones(2)}
    if kind == ".ckpt":
        state = {f"model.{name}": value for name, value in weights.items()}
        save_atomically({ENTRY: model_entry(old, classes), "state_dict": state, "epoch": 0}, path)
    else:
        write_weights(path, ModelCheckpoint(old, classes, weights, 1))
    config = config_from_dict(read_model_checkpoint(path).config)
    kept = dict(zip(leaves(rename_settings(old)), leaf_values(old), strict=True))
    resolved = config_to_dict(config)
    values = dict(zip(leaves(resolved), leaf_values(resolved), strict=True))
    expected = {"data.name": "mask_folder"} if old["data"]["name"] == "folder" else {}
    if old["model"]["name"] == "unet":
        expected["model.backbone.freeze"] = "none"
    assert {path: values[path] for path in kept} == kept | expected


def leaf_values(data: dict[str, Any]) -> list[Any]:
    return [leaf for value in data.values() for leaf in (leaf_values(value) if isinstance(value, dict) else [value])]


@pytest.mark.parametrize("old", OLD)
def test_old_names_in_a_dict_are_a_line_each(old: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(old, "x.yaml")
    lines = str(caught.value).split("\n")
    for path in leaves(old):
        if path in RENAMED:
            assert f"x.yaml: {path}: is called {RENAMED[path]} now" in lines
    assert ("x.yaml: data.name: 'folder' is called 'mask_folder' now" in lines) == (old["data"]["name"] == "folder")


@pytest.mark.parametrize(
    ("text", "override", "path", "new"),
    [
        ("", "trainer.num_pictures=0", "trainer.num_pictures", "trainer.num_previews"),
        ("", "model.regions.samples=3", "model.regions.samples", "model.roi_heads.batch_size_per_image"),
        ("", "model.rpn.samples=3", "model.rpn.samples", "model.rpn.batch_size_per_image"),
        ("trainer: {num_pictures: 1, num_previews: 2}", None, "trainer.num_pictures", "trainer.num_previews"),
        ("model: {proposals: {nms_iou: 0.5}}", None, "model.proposals.nms_iou", "model.rpn.nms_iou"),
        ("model: {proposals: }", None, "model.proposals", "model.rpn"),
    ],
)
def test_old_names_in_files_and_overrides(tmp_path: Path, text: str, override: str | None, path: str, new: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"data: {{name: voc, root: x}}\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override] if override else [])
    where = f"override {override}" if override else file
    assert str(caught.value) == f"{where}: {path}: is called {new} now"


def test_old_names_in_python() -> None:
    arguments: dict[str, Any] = {"plain_last_epochs": 1, "proposals": 3, "regions": {}}
    for section, old, new in (
        (AugmentationConfig, "plain_last_epochs", "no_mosaic_last_epochs"),
        (RpnConfig, "proposals", "post_nms_top_n"),
        (RcnnConfig, "regions", "roi_heads"),
    ):
        with pytest.raises(ConfigError, match=f"^{section.__name__}: {old} is called {new} now$"):
            section(**{old: arguments[old]})


def test_both_names_in_a_checkpoint_are_an_error() -> None:
    settings = {"data": DATA, "trainer": {"num_pictures": 1, "num_previews": 2}}
    assert rename_settings(settings) == settings
    assert ExperimentConfig.model_fields.keys() >= settings.keys()
