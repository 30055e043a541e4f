"""What the two kinds of tasks add to the common one: targets, pictures, and the metric that decides."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detseg.config.load import config_from_dict
from detseg.draw import class_colors
from detseg.errors import DetsegError
from detseg.evaluation.evaluate import build_evaluator
from detseg.factory import build_model
from detseg.metrics.segmentation.evaluator import SegmentationEvaluator
from detseg.models.interface import LossTerms
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoxTargets, ClassTable
from detseg.tasks.detection import DetectionTask
from detseg.tasks.semantic import SegmentationTask
from detseg.training.task import Task
from tests.training.stub import CLASSES, OneWeight, batch_of


class LeftIsOne(nn.Module):
    """A segmenter that calls the left half of an image class 1 and the right half class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def predict(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 2, *images.shape[2:])
        half = images.shape[3] // 2
        logits[:, 1, :, :half] = 1
        logits[:, 1, :, half:] = -1
        return logits

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        return {"seen": self.weight.sum() * (semantic != 255).sum()}


def semantic_batch() -> Batch:
    """One grey 4 x 8 image; the truth is 1 on the left, 0 on the right, and nothing in the last column."""
    semantic = torch.zeros(1, 4, 8, dtype=torch.uint8)
    semantic[:, :, :4] = 1
    semantic[:, :, 7] = 255
    images = torch.full((1, 3, 4, 8), 100, dtype=torch.uint8)
    letterbox = Letterbox.fit((4, 8), (4, 8))
    return Batch(
        images, [BoxTargets.empty()], [0], [letterbox], [1], semantic=semantic, semantic_truths=[semantic[0].numpy()]
    )


def segmentation_task() -> SegmentationTask:
    return SegmentationTask(LeftIsOne(), ClassTable(("ground", "thing")))


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_the_criterion_heads_the_results(kind: str) -> None:
    if kind == "detection":
        task: DetectionTask | SegmentationTask = DetectionTask(OneWeight(), CLASSES)
        task.evaluator.update_batch(batch_of(0), OneWeight().predict(batch_of(0).images))
    else:
        task = segmentation_task()
        task.evaluator.update_batch(semantic_batch(), LeftIsOne().predict(semantic_batch().images))
    headline = task.evaluator.compute().headline
    assert next(iter(headline)) == task.criterion
    assert set(task.shown) <= headline.keys()


def test_the_evaluator_has_the_settings_that_evaluation_gives_it() -> None:
    overrides = {"evaluation": {"boundary_width": 0.07}, "data": {"name": "voc", "root": "x"}}
    config = config_from_dict({"model": {"name": "unet"}, **overrides}, "settings")
    task = SegmentationTask(LeftIsOne(), CLASSES, evaluation=config.evaluation)
    for evaluator in (task.evaluator, build_evaluator(config, CLASSES)):
        assert isinstance(evaluator, SegmentationEvaluator)
        assert evaluator.boundary_width == 0.07


@pytest.mark.parametrize("model", ["fcn", "unet", "yolo"])
def test_a_batch_too_small_for_batch_normalisation_is_one_line(model: str) -> None:
    backbone = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}
    settings = {"model": {"name": model, "backbone": backbone}, "data": {"name": "voc", "root": "x"}}
    config = config_from_dict(settings, "settings")
    network = build_model(config.model, CLASSES)
    task = DetectionTask(network, CLASSES) if model == "yolo" else SegmentationTask(network, CLASSES)
    images, semantic = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=torch.uint8)
    with pytest.raises(DetsegError) as caught:
        task.train().training_step(Batch(images, [BoxTargets.empty()], [0], semantic=semantic), 0)
    assert str(caught.value) == (
        "a training batch of 1 image of 32 x 32 pixels leaves a single value a channel, which batch normalisation "
        "cannot train on; raise data.batch_size or data.image_size"
    )


def test_other_errors_of_a_step_stay_what_they_are() -> None:
    class Wrong(LeftIsOne):
        def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
            raise ValueError("something else")

    with pytest.raises(ValueError, match=r"^something else$") as caught:
        SegmentationTask(Wrong(), CLASSES).training_step(semantic_batch(), 0)
    assert not isinstance(caught.value, DetsegError)


def test_a_segmenter_learns_from_the_map_and_a_detector_from_the_boxes() -> None:
    batch = semantic_batch()
    assert segmentation_task().targets(batch) is batch.semantic
    boxes = batch_of(0)
    assert DetectionTask(OneWeight(), CLASSES).eval().targets(boxes) is boxes.targets
    with pytest.raises(ValueError, match="the batch has no semantic maps"):
        segmentation_task().targets(batch_of(0))


def test_what_a_model_draws_for_an_image_follows_from_seed_epoch_and_image() -> None:
    def seeds(indices: list[int], epoch: int = 0, seed: int = 0) -> list[int | None]:
        task = DetectionTask(OneWeight(), CLASSES, config={"seed": seed})
        trainer: Any = SimpleNamespace(current_epoch=epoch)
        task._trainer = trainer
        batch = replace(batch_of(0), targets=batch_of(0).targets * len(indices), indices=indices)
        return [target.draw_seed for target in task.targets(batch)]

    four = seeds([3, 1, 4, 5])
    assert seeds([4, 5]) == four[2:]  # wherever in a batch, and whoever has it
    assert len({*four, *seeds([3], epoch=1), *seeds([3], seed=1)}) == 6
    assert all(seed is not None and 0 <= seed < 2**63 - 1 for seed in four)


def test_a_perfect_map_scores_one_whatever_is_ignored() -> None:
    task = segmentation_task()
    task.evaluator.update_batch(semantic_batch(), LeftIsOne().predict(semantic_batch().images))
    assert task.evaluator.compute().headline["mIoU"] == 1


def test_targets_are_drawn_on_a_copy() -> None:
    batch = batch_of(100)
    task = DetectionTask(OneWeight(), CLASSES)
    (picture,) = task.draw_targets(batch, limit=4)
    assert picture.shape == (128, 128, 3)  # small images are enlarged
    assert (picture != 100).any()
    assert (batch.images == 100).all()
    assert task.draw_targets(batch, limit=0) == []


def test_maps_are_drawn_in_the_colours_of_the_classes() -> None:
    batch, task = semantic_batch(), segmentation_task()
    (truth,) = task.draw_targets(batch, limit=4)
    (found,) = task.draw_predictions(batch, limit=4)
    for picture in (truth, found):
        inside = picture[32:40, 16].astype(int)  # away from the border between the classes
        toward = np.sign(np.array(class_colors(task.classes.names)[1]) - 100)
        assert (np.sign(inside - 100) == toward).all()
    assert (truth[:, 120:] == 100).all(), "what is ignored stays as it is"
    assert (found[:, 120:] != 100).any()
    assert (batch.images == 100).all()


def test_a_kind_of_task_that_does_not_say_its_part_cannot_be_made() -> None:
    class Unfinished(Task):
        criterion = "x"

    with pytest.raises(TypeError, match="abstract"):
        Unfinished(OneWeight(), CLASSES)  # type: ignore[abstract]  # that is what is tested
