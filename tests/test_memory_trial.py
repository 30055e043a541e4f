"""The worst batch that a training may meet, and the trials that measure what it takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from detseg.config.load import config_to_dict
from detseg.data.loading.sampling import EpochBatchSampler
from detseg.errors import ConfigError
from detseg.experiment.memory_probe import MemoryProbe
from detseg.experiment.probe_process import Trial
from detseg.experiment.worst_batch import WorstImage
from tests.auto_setup import Setup, setup_of
from tests.tiny import write_ellipses, write_instance_config, write_segmentation_config


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return setup_of(tmp_path_factory.mktemp("yolo"))


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return setup_of(tmp_path_factory.mktemp("unet"), write_segmentation_config)


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return setup_of(tmp_path_factory.mktemp("mask_rcnn"), write_instance_config, write_ellipses)


@pytest.mark.parametrize(
    ("overrides", "num_objects"),
    [
        ((), 2),
        (("data.augmentation.mosaic=0.1",), 8),
        (("data.augmentation.mixup=0.1",), 4),
        (("data.augmentation.mosaic=0.1", "data.augmentation.mixup=0.1"), 16),
        (("data.augmentation.mosaic=0.1", "data.augmentation.no_mosaic_last_epochs=2"), 2),
    ],
)
def test_the_fullest_image_counts_with_all_that_is_put_into_it(
    yolo: Setup, overrides: tuple[str, ...], num_objects: int
) -> None:
    assert WorstImage.of(yolo.config(*overrides), yolo.train_set()) == WorstImage((64, 64), num_objects)


def test_a_two_stage_detector_gets_all_the_positives_that_it_samples(mask_rcnn: Setup) -> None:
    assert WorstImage.of(mask_rcnn.config(), mask_rcnn.train_set()).num_objects == 8  # a quarter of 32 samples


@pytest.mark.parametrize("multi_scale", [(0.4, 1.6), (0.5, 1.24), (0.3, 0.6)])
def test_no_batch_is_larger_than_the_worst(yolo: Setup, multi_scale: tuple[float, float]) -> None:
    config = yolo.config(f"data.augmentation.multi_scale={list(multi_scale)}", "data.image_size=[96, 160]")
    worst = WorstImage.of(config, yolo.train_set()).hw
    sampler = EpochBatchSampler(1000, 1, 0, (96, 160), multi_scale=multi_scale)
    sizes = {sampler.batch_hw(0, number) for number in range(1000)} | {(96, 160)}
    assert worst == (max(h for h, _ in sizes), max(w for _, w in sizes))


def test_the_batches_are_such_as_the_model_learns_from(yolo: Setup, unet: Setup, mask_rcnn: Setup) -> None:
    worst = WorstImage((64, 96), 5)
    boxes = worst.batch(3, yolo.config(), yolo.train_set().classes)
    assert boxes.images.shape == (3, 3, 64, 96)
    assert [len(target) for target in boxes.targets] == [5, 5, 5]
    sides = torch.cat([target.boxes[:, 2:] - target.boxes[:, :2] for target in boxes.targets])
    assert sides.min() >= 4
    assert all(target.boxes[:, [0, 2]].max() <= 96 and target.boxes[:, 1::2].max() <= 64 for target in boxes.targets)
    maps = WorstImage((64, 96), 0).batch(2, unet.config(), unet.train_set().classes)
    assert maps.semantic is not None
    assert set(maps.semantic.flatten().tolist()) == {0, 1, 2, 3}
    masks = worst.batch(2, mask_rcnn.config(), mask_rcnn.train_set().classes).targets[1].masks
    assert masks is not None
    assert masks.shape == (5, 64, 96)
    assert masks.flatten(1).any(dim=1).all()


def executable(path: Path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_trial_that_the_system_kills_did_not_fit(
    yolo: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = executable(tmp_path / "killed", "read order; echo '{\"room\": 7}'; read number; kill -9 $$")
    monkeypatch.setattr(sys, "executable", script)
    with MemoryProbe(yolo.config(), yolo.train_set().classes, WorstImage((64, 64), 1), "cpu") as probe:
        assert probe.room == 7
        assert probe.measure(1) is None
        assert probe.measure(2) is None


def test_a_trial_that_fails_says_why(yolo: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable(tmp_path / "failing", "echo 'ValueError: no way' >&2; exit 1"))
    with (
        pytest.raises(
            ConfigError, match="the trial that measures memory failed: ValueError: no way; mend that, or give"
        ),
        MemoryProbe(yolo.config(), yolo.train_set().classes, WorstImage((64, 64), 1), "cpu"),
    ):
        pass


def trial_of(setup: Setup, *overrides: str) -> Trial:
    train_set, config = setup.train_set(), setup.config("data.batch_size=1", *overrides)
    order = {"config": config_to_dict(config), "classes": train_set.classes.names, "device": "cpu"}
    return Trial(order | vars(WorstImage.of(config, train_set)))


@pytest.mark.parametrize("kind", ["unet", "mask_rcnn"])
def test_a_trial_trains_with_all_that_the_run_has(kind: str, request: pytest.FixtureRequest) -> None:
    trial = trial_of(request.getfixturevalue(kind), "trainer.precision=bfloat16")
    assert trial.task.average is not None
    before = [parameter.clone() for parameter in trial.task.average.model.parameters()]
    assert trial.measure(2) is not None
    steps = {int(moments["step"]) for moments in trial.optimizer.state.values()}
    assert steps == {2}  # one for the optimiser's own numbers to be there, one to be measured
    assert len(trial.optimizer.state) == len(before)
    assert any(not torch.equal(a, b) for a, b in zip(before, trial.task.average.model.parameters(), strict=True))


def test_a_trial_trains_what_the_run_will_train_later(yolo: Setup) -> None:
    frozen = ("model.backbone.freeze=backbone", "model.backbone.unfreeze_epoch=2")
    assert all(parameter.requires_grad for parameter in trial_of(yolo, *frozen).task.model.parameters())


def test_a_trial_survives_what_does_not_fit(yolo: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trial_of(yolo)
    losses = trial.task.model.losses

    def refused(images: torch.Tensor, targets: object) -> object:
        if len(images) == 3:
            torch.empty(2**48, dtype=torch.uint8)
        if len(images) == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        return losses(images, targets)

    monkeypatch.setattr(trial.task.model, "losses", refused)
    assert trial.measure(3) is None
    assert trial.measure(1) is not None  # as two
