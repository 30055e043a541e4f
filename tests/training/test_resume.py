"""Which checkpoints a run may resume from, and with which settings and data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from detseg.checkpoint import ENTRY, model_entry
from detseg.config.load import config_from_dict, config_to_dict
from detseg.data.datasets.fingerprint import Fingerprint
from detseg.errors import CheckpointError
from detseg.structures import ClassTable
from detseg.training.resume import MAY_CHANGE, DataGuard, check_resumable, why_over
from tests.heard import heard

TABLE = ClassTable(("cat", "dog"))
SETTINGS: dict[str, dict[str, Any]] = {
    "yolo": {"model": {"name": "yolo"}, "data": {"name": "voc", "root": "x"}, "trainer": {"max_epochs": 5}},
    "unet": {"model": {"name": "unet"}, "data": {"name": "mask_folder", "root": "x"}, "trainer": {"max_epochs": 5}},
    "faster_rcnn": {"model": {"name": "faster_rcnn"}, "data": {"name": "coco", "root": "x"}},
}


def settings(name: str = "yolo", *overrides: str) -> dict[str, Any]:
    return config_to_dict(config_from_dict(SETTINGS[name], "settings", overrides))


def checkpoint(config: dict[str, Any] | None = None, epochs: int = 2, **entry: Any) -> dict[str, Any]:
    whole = model_entry(settings() if config is None else config, TABLE)
    return {ENTRY: {**whole, "place": {"epoch": epochs, "batch": 0}, **entry}, "epoch": epochs}


def refused(now: dict[str, Any], then: dict[str, Any] | None = None, world_size: int = 1) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_resumable(then or checkpoint(), TABLE, now, 5, world_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "override", "difference"),
    [
        ("yolo", "optimizer.lr=0.02", "optimizer.lr was 0.001 and is 0.02"),
        ("yolo", "data.value_range=[0, 4095]", "data.value_range was null and is [0.0, 4095.0]"),
        ("yolo", "optimizer.name=sgd", "optimizer.name was 'adamw' and is 'sgd'"),  # and nothing of its other settings
        ("yolo", "seed=1", "seed was 0 and is 1"),
        ("yolo", "trainer.ema_decay=0", "trainer.ema_decay was 0.999 and is 0.0"),
        ("yolo", "trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches was 1 and is 2"),
        ("yolo", "evaluation.f1_iou=0.75", "evaluation.f1_iou was 0.5 and is 0.75"),
        ("yolo", "data.image_size=320", "data.image_size was 640 and is 320"),
        ("yolo", "data.augmentation.mosaic=1", "data.augmentation.mosaic was 0.0 and is 1.0"),
        ("yolo", "model.backbone.width=0.5", "model.backbone.width was null and is 0.5"),
        ("yolo", "model.backbone.name=resnet18", "model.backbone.name was 'csp_nano' and is 'resnet18'"),
        ("unet", "model.loss.dice.weight=1", "model.loss.dice.weight was 0.0 and is 1.0"),
        ("unet", "model.loss.class_weights=[1, 2]", "model.loss.class_weights was null and is [1.0, 2.0]"),
        ("unet", "data.mask_values=[0, 255]", "data.mask_values was null and is [0, 255]"),
        ("unet", "data.ignore_index=null", "data.ignore_index was 255 and is null"),
        ("faster_rcnn", "model.roi_heads.positive_fraction=0.5", "model.roi_heads.positive_fraction was 0.25 and is 0"),
        ("faster_rcnn", "model.rpn.post_nms_top_n_train=9", "model.rpn.post_nms_top_n_train was 2000 and is 9"),
    ],
)
def test_a_setting_that_may_not_change_is_named_with_both_values(name: str, override: str, difference: str) -> None:
    then = checkpoint(settings(name))
    check_resumable(then, TABLE, settings(name), 5)
    message = refused(settings(name, override), then)
    assert message.startswith(f"the run cannot be resumed with other settings than it began with: {difference}")
    assert message.endswith("; set them as they were, or start a new run from its weights: model.weights=CHECKPOINT")
    assert " was " not in message.partition(" was ")[2]


@pytest.mark.parametrize(
    ("model", "data", "advice"),
    [
        (
            {"name": "yolo", "backbone": {"name": "resnet18", "pretrained": True}},
            {"name": "voc", "root": "x"},
            "start a new run from its weights: model.weights=CHECKPOINT model.backbone.pretrained=false",
        ),
        (
            {"name": "yolo", "backbone": {"name": "resnet18", "weights": "a.pth"}},
            {"name": "custom"},
            "start a new run from its weights: model.weights=CHECKPOINT model.backbone.weights=null, or "
            "detseg.build_model(..., weights=CHECKPOINT) of a model built in Python",
        ),
        (
            {"name": "custom", "task": "detection"},
            {"name": "custom"},
            "start a new run of a module that has loaded its weights (docs/training.md, Checkpoints)",
        ),
    ],
)
def test_the_advice_of_a_refusal_can_be_followed(model: dict[str, Any], data: dict[str, Any], advice: str) -> None:
    then = config_to_dict(config_from_dict({"model": model, "data": data}, "settings"))
    now = config_to_dict(config_from_dict({"model": model, "data": data}, "settings", {"seed": 1}))
    assert refused(now, checkpoint(then)).endswith(f"seed was 0 and is 1; set them as they were, or {advice}")


def test_a_setting_of_a_later_version_is_refused_unless_it_is_as_before() -> None:
    older, now = settings(), settings("yolo", "model.backbone.freeze=stem")
    del older["model"]["backbone"]["freeze"], older["optimizer"]["backbone_lr_scale"]
    check_resumable(checkpoint(older), TABLE, settings(), 5)
    assert "with: model.backbone.freeze was 'none' and is 'stem'; set" in refused(now, checkpoint(older))
    unknown = {**settings(), "invented": {"strength": 3}}
    assert "with: invented was null and is a mapping with strength; set" in refused(unknown)


def test_what_may_change_does() -> None:
    """Every entry of the list is a setting; some of them at once."""
    known = {path for name in SETTINGS for path in _leaves(settings(name), ())}
    assert known >= MAY_CHANGE
    now = settings(
        "yolo",
        *("trainer.max_epochs=9", "trainer.precision=bfloat16", "trainer.gradient_clip_norm=1", "trainer.on_nan=skip"),
        *("data.num_workers=8", "data.root=elsewhere", "model.score_threshold=0.1", "run_dir=moved"),
    )
    check_resumable(checkpoint(), TABLE, now, max_epochs=9)
    check_resumable(checkpoint(), TABLE, {}, max_epochs=None)  # a task made in Python, without settings


def test_the_documentation_lists_what_may_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    listed = set(
        re.findall(r"`(\w+)`", page.partition("These settings may change:")[2].partition("Any other setting")[0])
    )
    where = re.compile(r"data\.(root|years|classes|\w+_(split|images|annotations|masks))")  # the data lies
    assert {name.rpartition(".")[2] for name in MAY_CHANGE if not where.fullmatch(name)} == listed - {
        "data",
        "trainer",
        "model",
    }


def _leaves(value: Any, path: tuple[str, ...]) -> list[str]:
    if not isinstance(value, dict):
        return [".".join(path)]
    return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]


def test_other_classes_are_refused() -> None:
    message = r"^the checkpoint's classes are \['cat', 'dog'\], the data's are \[.*\]; "
    for names in (("dog", "cat"), ("cat",), ("cat", "dog", "cow")):
        with pytest.raises(CheckpointError, match=message):
            check_resumable(checkpoint(), ClassTable(names), settings(), 5)


def test_the_images_of_all_processes_stay_as_many() -> None:
    then = checkpoint(settings("yolo", "data.batch_size=8"), world_size=2)
    for batch_size, world_size in [(16, 1), (4, 4), (2, 8)]:
        check_resumable(then, TABLE, settings("yolo", f"data.batch_size={batch_size}"), 5, world_size)
    wrong = "with: data.batch_size was 8 in each of 2 processes and is 8 in each of 1; set"
    assert wrong in refused(settings("yolo", "data.batch_size=8"), then)


@pytest.mark.parametrize(
    ("patience", "min_delta", "is_over"),
    [
        ("3", 0.01, True),
        ("2", 0.01, True),
        ("3", 0.02, True),
        ("4", 0.01, False),
        ("null", 0, False),
        ("3", 0, False),
    ],
)
def test_early_stopping_ends_a_run_until_its_settings_are_milder(
    patience: str, min_delta: float, is_over: bool
) -> None:
    patience_, min_delta_ = "trainer.early_stopping_patience=", "trainer.early_stopping_min_delta="
    stopped = checkpoint(settings("yolo", f"{patience_}3", f"{min_delta_}0.01"), over=True)
    today = settings("yolo", f"{patience_}{patience}", f"{min_delta_}{min_delta}")
    reason = (
        "nothing is left to train: early stopping ended the run after epoch 2; raise trainer.early_stopping_patience, "
        "or lower trainer.early_stopping_min_delta, to resume"
    )
    assert (why_over(stopped, today, 5) or "").startswith(reason) == is_over
    assert "the checkpoint has 5 epochs and trainer.max_epochs is 5; raise it to resume" in refused(
        settings(), checkpoint(epochs=5)
    )


def fingerprint(images: int = 205, **changed: str) -> Fingerprint:
    digests = {"names": "a1", "annotations": "b2", "files": "c3", "masks": "", "pipeline": ""} | changed
    return cast(Fingerprint, {"version": 2, "images": images, **digests})


BEFORE = {"train": fingerprint(), "val": fingerprint(20)}
SIZES = "files changed (sizes)"
CHANGED = "the data is not what the run began with: "


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (fingerprint(204, names="z", annotations="z", files="z"), ["train: 205 images, now 204"]),
        (fingerprint(names="z"), ["train: the names of the images, or their order, changed"]),
        (fingerprint(masks="z"), [f"train: the mask {SIZES}"]),
        (fingerprint(pipeline="z"), ["train: the pipeline of data.augmentation.albumentations changed"]),
        (fingerprint(annotations="z", files="z"), ["train: the annotations changed", f"train: the image {SIZES}"]),
    ],
)
def test_other_data_is_named(now: Fingerprint, words: Sequence[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        guard(now, "error").check(BEFORE)
    how = "bring the data back, or resume with what it is now: data.on_change=warn"
    assert str(caught.value) == f"{CHANGED}{'; '.join(words)}; {how}"
    with heard() as lines:
        guard(now, "warn").check(BEFORE)
    assert lines == [f"{CHANGED}{'; '.join(words)}; the run resumes with what it is now (data.on_change=warn)"]


def guard(train: Fingerprint, on_change: Literal["error", "warn"]) -> DataGuard:
    return DataGuard({"train": train, "val": fingerprint(20)}, on_change)


def test_the_same_data_says_nothing_and_that_of_another_version_is_not_compared() -> None:
    with heard() as lines:
        guard(fingerprint(), "error").check(BEFORE)
        guard(fingerprint(), "error").check(None)  # of a version that kept none
    assert lines == []
    with heard() as lines:
        older = {"images": 205, "annotations": "b2", "version": 1}
        guard(fingerprint(204, annotations="z"), "error").check({"train": older})
    assert lines == ["the data was not compared with that of the run's start: another version of detseg wrote it down"]
