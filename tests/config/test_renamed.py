"""Old names of settings: an error that names the new one wherever a user writes them; checkpoints with them load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoint import ENTRY, ModelCheckpoint, model_entry, read_model_checkpoint, save_atomically, write_weights
from detseg.config.load import config_from_dict, config_to_dict, load_config
from detseg.config.schema.section import NEW_KEYS, rename_settings
from detseg.errors import ConfigError
from detseg.structures import ClassTable

VOC = {"name": "voc", "root": "x"}
STAGE = {"samples": 32, "positive_share": 0.3}
OLD: list[dict[str, Any]] = [
    {
        "data": VOC | {"max_bad_share": 0.5, "augmentation": {"plain_last_epochs": 1, "affine": {"shift": 0.2}}},
        "model": {"name": "yolo", "backbone": {"frozen_stages": 2}, "head": {"bins": 4, "top_candidates": 5}},
        "trainer": {"accumulate_batches": 2, "num_pictures": 3},
    },
    {
        "data": VOC,
        "model": {
            "name": "faster_rcnn",
            "backbone": {"frozen_norm": True},
            "proposals": {"candidates": 5, "candidates_train": 6, "proposals": 7, "proposals_train": 8, **STAGE},
            "regions": STAGE,
        },
        "evaluation": {"operating_iou": 0.7},
    },
    {
        "data": {"name": "folder", "root": "x"},
        "model": {"name": "unet", "backbone": {"frozen_stages": 0}, "loss": {"dice": {"weight": 1.0}, "left_out": [0]}},
        "schedule": {"name": "one_cycle", "rise_share": 0.2, "initial_share": 0.1, "final_share": 0.3},
    },
]
"""Configurations of the old version; together they have every setting that has another name today."""
OLD_SECTIONS = {"model.rpn": "model.proposals", "model.roi_heads": "model.regions"}
RENAMED = {
    f"{OLD_SECTIONS.get(section, section)}.{old}": f"{section}.{new}"
    for section, keys in NEW_KEYS.items()
    for old, new in keys.items()
}
"""Old path → new path."""


def flat(data: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Path → value of every setting."""
    values: dict[str, Any] = {}
    for key, value in data.items():
        values |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return values


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("old", OLD)
def test_files_of_older_versions_load(old: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path, classes = tmp_path / f"old{suffix}", ClassTable(("a", "b"))
    if suffix == ".ckpt":
        saved = {ENTRY: model_entry(old, classes), "state_dict": {"model.w": torch.ones(2)}, "epoch": 0}
        save_atomically(saved, path)
    else:
        write_weights(path, ModelCheckpoint(old, classes, {"w": torch.ones(2)}, 1))
    loaded = flat(config_to_dict(config_from_dict(read_model_checkpoint(path).config)))
    expected = {RENAMED.get(path, path): value for path, value in flat(old).items()}
    if old["data"]["name"] == "folder":
        expected |= {"data.name": "mask_folder", "model.backbone.freeze": "none"}
    assert expected.items() <= loaded.items()


def test_every_old_name_is_tried_here() -> None:
    assert RENAMED.keys() - {"model.proposals", "model.regions"} <= {path for old in OLD for path in flat(old)}


@pytest.mark.parametrize("old", OLD)
def test_old_names_in_a_dict_are_a_line_each(old: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(old, "x")
    lines = [f"x: {path}: is called {RENAMED[path]} now" for path in flat(old) if path in RENAMED]
    if old["data"]["name"] == "folder":
        lines.insert(0, "x: data.name: 'folder' is called 'mask_folder' now")
    assert str(caught.value).split("\n") == lines


@pytest.mark.parametrize(
    ("text", "override", "path", "new"),
    [
        ("", "trainer.num_pictures=0", "trainer.num_pictures", "trainer.num_previews"),
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


def test_a_checkpoint_with_both_names_keeps_both_so_that_it_is_an_error() -> None:
    settings = {"data": VOC, "trainer": {"num_pictures": 1, "num_previews": 2}}
    assert rename_settings(settings)[0] == settings
