"""Which checkpoints a run may go on from."""

from __future__ import annotations

from typing import Any

import pytest

from detseg.checkpoint import ENTRY, model_entry
from detseg.config.load import config_from_dict, config_to_dict
from detseg.errors import CheckpointError
from detseg.structures import ClassTable
from detseg.training.resume.compatible import check_resumable

TABLE = ClassTable(("cat", "dog"))


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "seed": 0,
        "model": {"backbone": {"name": "csp_nano", "width": None}, "neck": {"name": "pan"}, "head": {"name": "grid"}},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "trainer": {"ema_decay": 0.9, "max_epochs": 5},
        **changes,
    }


def checkpoint(epoch: int = 1) -> dict[str, Any]:
    return {ENTRY: model_entry(settings(), TABLE), "epoch": epoch}


def test_the_run_itself_goes_on() -> None:
    check_resumable(checkpoint(), TABLE, settings(), max_epochs=5)


def test_what_the_checkpoint_does_not_decide_may_change() -> None:
    now = settings(trainer={"ema_decay": 0.9, "max_epochs": 9}, data={"num_workers": 8})
    check_resumable(checkpoint(epoch=6), TABLE, now, max_epochs=9)


def test_without_settings_there_is_nothing_to_compare() -> None:
    check_resumable(checkpoint(), TABLE, {}, max_epochs=None)


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat",), ("cat", "dog", "cow")])
def test_other_classes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_resumable(checkpoint(), ClassTable(names), settings(), 5)
    assert str(caught.value) == (
        f"the checkpoint's classes are ['cat', 'dog'], the data's are {list(names)}; resume with the data that the run "
        "began with, or start a new run"
    )


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"optimizer": {"name": "sgd", "lr": 0.02}}, "optimizer.lr was 0.01 and is 0.02"),
        (
            {"optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.99]}},
            "optimizer.name was sgd and is adam; optimizer.betas was None and is [0.9, 0.99]",
        ),
        ({"trainer": {"ema_decay": 0.0}}, "trainer.ema_decay was 0.9 and is 0.0"),
        (
            {"model": {**settings()["model"], "backbone": {"name": "csp_nano", "width": 0.5}}},
            "model.backbone.width was None and is 0.5",
        ),
    ],
)
def test_other_settings_of_what_it_holds_are_refused(changes: dict[str, Any], difference: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_resumable(checkpoint(), TABLE, settings(**changes), 5)
    assert str(caught.value) == (
        f"the run cannot be resumed with other settings than it began with: {difference}; set them as they were, or "
        "start a new run"
    )


@pytest.mark.parametrize(("batch_size", "world_size"), [(16, 1), (4, 4), (2, 8)])
def test_another_layout_of_the_same_global_batch_goes_on(batch_size: int, world_size: int) -> None:
    then = {ENTRY: {**model_entry(settings(data={"batch_size": 8}), TABLE), "world_size": 2}, "epoch": 1}
    check_resumable(then, TABLE, settings(data={"batch_size": batch_size}), 5, world_size)


def test_another_global_batch_is_refused() -> None:
    then = {ENTRY: {**model_entry(settings(data={"batch_size": 8}), TABLE), "world_size": 2}, "epoch": 1}
    wrong = r"with: data\.batch_size was 8 in each of 2 processes and is 8 in each of 1; set"
    with pytest.raises(CheckpointError, match=wrong):
        check_resumable(then, TABLE, settings(data={"batch_size": 8}), 5, 1)
    older = {ENTRY: model_entry(settings(data={"batch_size": 8}), TABLE), "epoch": 1}
    with pytest.raises(CheckpointError, match=r"with: data\.batch_size was 8 and is 4; set"):
        check_resumable(older, TABLE, settings(data={"batch_size": 4}), 5, 2)


UNET: dict[str, Any] = {
    "model": {"name": "unet", "loss": {"dice": {"weight": 0.0}, "class_weights": [1.0, 2.0]}},
    "data": {"name": "mask_folder", "mask_values": None, "ignore_index": 255, "mask_colors": None, "ignore_colors": []},
}


@pytest.mark.parametrize(
    ("section", "changes", "difference"),
    [
        ("model", {"loss": {"dice": {"weight": 1.0}, "class_weights": [1.0, 2.0]}}, "model.loss.dice.weight was 0.0 "),
        (
            "model",
            {"loss": {"dice": {"weight": 0.0}, "class_weights": None}},
            "model.loss.class_weights was [1.0, 2.0]",
        ),
        ("data", {"mask_values": [0, 255]}, "data.mask_values was None and is [0, 255]"),
        ("data", {"ignore_index": None}, "data.ignore_index was 255 and is None"),
        ("data", {"mask_colors": [[0, 0, 0], [9, 9, 9]]}, "data.mask_colors was None and is [[0, 0, 0], [9, 9, 9]]"),
        ("data", {"ignore_colors": [[1, 1, 1]]}, "data.ignore_colors was [] and is [[1, 1, 1]]"),
    ],
)
def test_what_masks_mean_and_losses_weigh_stays(section: str, changes: dict[str, Any], difference: str) -> None:
    then = {ENTRY: model_entry(settings(**UNET), TABLE), "epoch": 1}
    check_resumable(then, TABLE, settings(**UNET), 5)
    now = settings(**{**UNET, section: {**UNET[section], **changes}})
    with pytest.raises(CheckpointError) as caught:
        check_resumable(then, TABLE, now, 5)
    assert f"than it began with: {difference}" in str(caught.value)


def test_another_layout_may_write_the_same_classes_in_another_way() -> None:
    then = {ENTRY: model_entry(settings(**UNET), TABLE), "epoch": 1}
    check_resumable(then, TABLE, settings(**{**UNET, "data": {"name": "coco"}}), 5)
    values = {"name": "voc", "mask_values": [0, 7], "ignore_index": None}
    check_resumable(then, TABLE, settings(**{**UNET, "data": values}), 5)


def test_a_finished_run_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"^nothing is left to train: the checkpoint has 5 epochs and trainer\."):
        check_resumable(checkpoint(epoch=4), TABLE, settings(), max_epochs=5)


def whole(**backbone: Any) -> dict[str, Any]:
    settings = {"model": {"name": "yolo", "backbone": backbone}, "data": {"name": "voc", "root": "x"}}
    return config_to_dict(config_from_dict(settings))


def test_what_an_older_version_did_not_know_had_its_default() -> None:
    then = whole()
    del then["model"]["backbone"]["freeze"], then["optimizer"]["backbone_lr_scale"]
    older = {ENTRY: model_entry(then, TABLE), "epoch": 1}
    check_resumable(older, TABLE, whole(), max_epochs=5)
    with pytest.raises(CheckpointError, match=r"with: model\.backbone\.freeze was none and is stem; set"):
        check_resumable(older, TABLE, whole(freeze="stem"), max_epochs=5)
