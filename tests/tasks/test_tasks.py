"""The kinds of task: targets, pictures, the metric that decides, and the settings that follow from the data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detseg.config.load import config_from_dict
from detseg.config.schema.experiment import EvaluationConfig, ExperimentConfig
from detseg.config.schema.model import UNetConfig
from detseg.data.formats.coco import read_coco
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.draw import class_colors
from detseg.draw.classes import ERROR_COLORS
from detseg.errors import ConfigError, DetsegError
from detseg.factory import build_model
from detseg.models.interface import LossTerms
from detseg.ops.letterbox import Letterbox
from detseg.structures import Batch, BoxTargets, ClassTable, DetectorOutput
from detseg.tasks import Detection, InstanceSegmentation, SemanticSegmentation, TaskKind, kind_of
from detseg.tasks.detection import outcomes
from detseg.training.task import Task
from tests.data.formats.layouts import write_pairs
from tests.heard import heard
from tests.training.stub import CLASSES, OneWeight, batch_of

TWO = ClassTable(("ground", "thing"))


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
        raise ValueError("something else")


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


@pytest.mark.parametrize(
    ("kind", "model", "batch", "classes"),
    [(Detection(), OneWeight(), batch_of(0), CLASSES), (SemanticSegmentation(), LeftIsOne(), semantic_batch(), TWO)],
)
def test_the_criterion_heads_the_results(kind: TaskKind, model: Any, batch: Batch, classes: ClassTable) -> None:
    evaluator = kind.evaluator(classes, EvaluationConfig())
    evaluator.update_batch(batch, model.predict(batch.images))
    headline = evaluator.compute().headline
    assert tuple(headline) == kind.metrics
    assert set(kind.shown) <= headline.keys()
    assert headline[kind.metrics[0]] == pytest.approx(1)  # whatever is ignored


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"name": "yolo"}, Detection),
        ({"name": "faster_rcnn"}, Detection),
        ({"name": "mask_rcnn"}, InstanceSegmentation),
        ({"name": "unet"}, SemanticSegmentation),
        ({"name": "custom"}, Detection),
        ({"name": "custom", "task": "instance"}, InstanceSegmentation),
        ({"name": "custom", "task": "semantic"}, SemanticSegmentation),
    ],
)
def test_each_model_is_of_one_kind(model: dict[str, str], kind: type[TaskKind]) -> None:
    config = config_from_dict({"model": model, "data": {"name": "custom"}})
    assert type(kind_of(config.model)) is kind


@pytest.mark.parametrize("model", ["fcn", "unet", "yolo"])
def test_a_batch_too_small_for_batch_normalisation_is_one_line(model: str) -> None:
    backbone = {"name": "csp_nano", "width": 0.0625, "depth": 0.1}
    settings = {"model": {"name": model, "backbone": backbone}, "data": {"name": "voc", "root": "x"}}
    config = config_from_dict(settings, "settings")
    task = Task(kind_of(config.model), build_model(config.model, CLASSES), CLASSES)
    images, semantic = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, dtype=torch.uint8)
    with pytest.raises(DetsegError) as caught:
        task.train().training_step(Batch(images, [BoxTargets.empty()], [0], semantic=semantic), 0)
    assert str(caught.value) == (
        "a training batch of 1 image of 32 x 32 pixels leaves a single value a channel, which batch normalisation "
        "cannot train on; raise data.batch_size or data.image_size"
    )


def test_other_errors_of_a_step_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match=r"^something else$") as caught:
        Task(SemanticSegmentation(), LeftIsOne(), CLASSES).training_step(semantic_batch(), 0)
    assert not isinstance(caught.value, DetsegError)


def test_a_segmenter_learns_from_the_map_and_a_detector_from_the_boxes() -> None:
    batch, boxes = semantic_batch(), batch_of(0)
    assert SemanticSegmentation().targets(batch) is batch.semantic
    assert Detection().targets(boxes) is boxes.targets
    with pytest.raises(ValueError, match="the batch has no semantic maps"):
        SemanticSegmentation().targets(boxes)


def test_what_a_model_draws_for_an_image_follows_from_seed_epoch_and_image() -> None:
    def seeds(indices: list[int], epoch: int = 0, seed: int = 0) -> list[int | None]:
        task = Task(Detection(), OneWeight(), CLASSES, config={"seed": seed})
        trainer: Any = SimpleNamespace(current_epoch=epoch)
        task._trainer = trainer
        batch = replace(batch_of(0), targets=batch_of(0).targets * len(indices), indices=indices)
        return [target.draw_seed for target in task.targets(batch)]

    four = seeds([3, 1, 4, 5])
    assert seeds([4, 5]) == four[2:]  # wherever in a batch, and whoever has it
    assert len({*four, *seeds([3], epoch=1), *seeds([3], seed=1)}) == 6
    assert all(seed is not None and 0 <= seed < 2**63 - 1 for seed in four)


def test_targets_are_drawn_on_a_copy() -> None:
    batch = batch_of(100)
    (picture,) = Detection().draw_targets(batch, CLASSES, limit=4)
    assert picture.shape == (128, 128, 3)  # small images are enlarged
    assert (picture != 100).any()
    assert (batch.images == 100).all()
    assert Detection().draw_targets(batch, CLASSES, limit=0) == []


def test_maps_are_drawn_in_the_colours_of_the_classes() -> None:
    batch, kind = semantic_batch(), SemanticSegmentation()
    (truth,) = kind.draw_targets(batch, TWO, limit=4)
    (found,) = kind.draw_predictions(batch, LeftIsOne(), TWO, limit=4)
    for picture in (truth, found):
        inside = picture[32:40, 16].astype(int)  # away from the border between the classes
        toward = np.sign(np.array(class_colors(TWO.names)[1]) - 100)
        assert (np.sign(inside - 100) == toward).all()
    assert (truth[:, 120:] == 100).all(), "what is ignored stays as it is"
    assert (found[:, 120:] != 100).any()
    assert (batch.images == 100).all()


def test_the_weight_of_a_class_that_fills_nearly_all_stays_above_zero(tmp_path: Path) -> None:
    mask = np.zeros((400, 400), dtype=np.uint8)
    mask[0, :2] = 1, 2
    dataset = read_mask_folder(*write_pairs(tmp_path, {"a": mask.tolist()}), ("ground", "bolt", "nut"))
    settings: dict[str, Any] = {"model": {"name": "unet", "loss": {"class_weights": "median_frequency"}}}
    config = ExperimentConfig.model_validate(settings | {"data": {"name": "mask_folder", "root": str(tmp_path)}})
    with heard() as lines:
        found = kind_of(config.model).settings_from_data(config, dataset).model
    assert isinstance(found, UNetConfig)
    # Frequencies 159998, 1 and 1 of 160000; their median is that of the rare ones.
    assert found.loss.class_weights == (6.25e-06, 1.0, 1.0)
    assert "ground 6.25e-06, bolt 1, nut 1" in lines[0]


@pytest.mark.parametrize("model", ["yolo", "faster_rcnn"])
def test_the_weights_of_classes_follow_from_the_numbers_of_their_objects(tmp_path: Path, model: str) -> None:
    # 9 objects of the first class, 1 of the second, none of the third; the crowd does not count. 1/3 and 1 to one, over
    # their mean over the objects, (9 / 3 + 1) / 10 = 0.4.
    annotations: list[dict[str, Any]] = [
        {"id": k, "image_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0} for k in range(11)
    ]
    for annotation, category in zip(annotations, [1] * 9 + [2, 2], strict=True):
        annotation["category_id"] = category
    annotations[-1]["iscrowd"] = 1
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 32}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("cell", "mite", "none"), start=1)],
        "annotations": annotations,
    }
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    dataset = read_coco(tmp_path, tmp_path / "a.json")
    settings = {"model": {"name": model, "class_weights": "inverse_sqrt_frequency"}, "data": {"name": "custom"}}
    config = config_from_dict(settings)
    with heard() as lines:
        found: Any = kind_of(config.model).settings_from_data(config, dataset).model
    assert found.class_weights == (0.8333, 2.5, 1.0)
    assert lines == ["class weights by inverse square root of frequency: cell 0.833, mite 2.5, none 1"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "yolo", "class_weights": "inverse_sqrt_frequency"},
            "model.class_weights: cannot be found from a list; set numbers, or null",
        ),
        ({"name": "yolo", "head": {"name": "anchor"}}, "model.head.anchors: cannot be fitted to a list; set them"),
        (
            {"name": "fcn", "loss": {"class_weights": "median_frequency"}},
            "model.loss.class_weights: cannot be found from a list; set numbers, or null",
        ),
    ],
)
def test_settings_do_not_follow_from_data_of_the_users_own(model: dict[str, Any], message: str) -> None:
    config = config_from_dict({"model": model, "data": {"name": "custom"}})
    data: Any = []
    with pytest.raises(ConfigError) as caught:
        kind_of(config.model).settings_from_data(config, data)
    assert str(caught.value) == message


def test_outcomes_of_detections_by_hand() -> None:
    """Objects: 0 a, 1 a, 2 b, 3 a to ignore. Detections by their scores: the better one of two on 0 is right; on 1, the
    label is wrong; on 3, neither; one overlaps nothing. IoU of the second with 0 is 0.8."""
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    truth = BoxTargets(objects, torch.tensor([0, 0, 1, 0]), torch.tensor([False, False, False, True]))
    boxes = torch.stack(
        [objects[0], torch.tensor([0.0, 0, 10, 8]), objects[1], objects[3], torch.tensor([90.0, 0, 99, 9])]
    )
    found = DetectorOutput(boxes, torch.tensor([0.5, 0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 0, 0]))
    is_right, is_false, is_missed = outcomes(found, truth)
    assert is_right.tolist() == [False, True, False, False, False]
    assert is_false.tolist() == [True, False, True, False, True]
    assert is_missed.tolist() == [False, True, True, False]
    nothing = outcomes(found[:0], truth)[2], outcomes(found, BoxTargets.empty())[1]
    assert nothing[0].tolist() == [True, True, True, False]
    assert nothing[1].all()


class TooSmall(OneWeight):
    """Finds the lower half of each image, of class 0."""

    def predict(self, images: Tensor) -> list[DetectorOutput]:
        box = torch.tensor([[0.0, 5, 8, 8]])
        return [DetectorOutput(box, torch.tensor([0.5]), torch.zeros(1, dtype=torch.int64)) for _ in images]


def test_errors_of_a_validation_are_drawn() -> None:
    (drawn,) = Detection().draw_errors(batch_of(90), TooSmall(), CLASSES, 4)
    scale = len(drawn) // 8
    assert drawn[3 * scale, -1].tolist() == list(ERROR_COLORS["missed"])
    assert drawn[-1, 4 * scale].tolist() == list(ERROR_COLORS["false"])  # on top of the other
    batch = semantic_batch()
    assert batch.semantic is not None
    batch.semantic[0, 0] = torch.tensor([0, 0, 1, 1, 1, 1, 0, 255])
    (drawn,) = SemanticSegmentation().draw_errors(batch, LeftIsOne(), TWO, 4)
    first = drawn[len(drawn) // 8, len(drawn) // 8 :: len(drawn) // 4].astype(int)
    assert np.rint((first[:, 0] - first[:, 2]) / 171).tolist() == [1, 1, 0, 0, -1, -1, 0, 0]  # orange, blue: missed
