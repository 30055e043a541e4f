"""Settings that are chosen from the data: the rules on real sets, that what is stated counts, that a resumed run keeps
its own, and that a new file and a bare one train alike."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from detseg.checkpoint import ModelCheckpoint, read_model_checkpoint, write_weights
from detseg.cli import main
from detseg.config.load import config_from_dict, config_to_dict, is_stated, load_config, printed
from detseg.config.schema.experiment import CHOSEN_SETTINGS, ExperimentConfig
from detseg.config.schema.model import BackboneConfig, UNetConfig
from detseg.data.build import resolve_data
from detseg.factory import build_model
from detseg.structures import ClassTable
from detseg.tasks import kind_of
from detseg.training.run import train
from detseg.training.setup import recipe
from detseg.training.setup.build import open_data
from detseg.training.setup.facts import DataFacts, Machine
from detseg.training.setup.recipe import recommend, taken_from, with_choices
from tests.shared_data import shared_data
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")

CPU, GPU = Machine(on_gpu=False, num_cores=4), Machine(on_gpu=True, num_cores=4)
PHOTOS = DataFacts(
    num_images=400,
    hw=(480, 640),
    same_size=True,
    same_proportions=True,
    small_object=0.1,
    most_objects=20,
    most_of_class=15,
    class_names=("cat", "dog"),
)


def bare(model_name: str, root: Path | str = "nowhere", **sections: dict[str, Any]) -> ExperimentConfig:
    """A configuration that says what is learned where, and what ``sections`` add."""
    settings: dict[str, Any] = {"model": {"name": model_name}, "data": {"name": "auto", "root": str(root)}}
    for name, section in sections.items():
        settings[name] = settings.get(name, {}) | section
    return config_from_dict(settings)


def completed(config: ExperimentConfig, facts: DataFacts, machine: Machine) -> ExperimentConfig:
    return with_choices(config, chosen(config, facts, machine))


def chosen(config: ExperimentConfig, facts: DataFacts = PHOTOS, machine: Machine = CPU) -> dict[str, Any]:
    return {choice.path: choice.value for choice in recommend(config, facts, machine)}


@pytest.mark.parametrize(
    ("folder", "model", "expected"),
    [
        (
            "bccd",
            "yolo",
            {
                "data.image_size": [256, 320],
                "data.batch_size": 8,
                "trainer.max_epochs": 77,
                "trainer.validate_every": 5,
            },
        ),
        ("camvid_small", "unet", {"data.image_size": [180, 240], "model.output_stride": 2, "trainer.max_epochs": 43}),
        ("dsb2018_nuclei", "mask_rcnn", {"model.max_detections": 400, "evaluation.max_detections": 400}),
        ("coco_mini", "yolo", {"data.image_size": 640, "trainer.max_epochs": 300}),
    ],
)
def test_the_rules_on_real_sets(folder: str, model: str, expected: dict[str, Any]) -> None:
    config = resolve_data(bare(model, shared_data(folder)))
    dataset: Any = kind_of(config.model).open_dataset(config.data, "train")
    found = chosen(config, DataFacts.of(dataset))
    assert {path: found.get(path) for path in expected} == expected
    if model == "mask_rcnn":
        assert found["model.rpn"]["anchor_sizes"][0] == [16]


@pytest.mark.parametrize("model", ["yolo", "faster_rcnn", "mask_rcnn", "fcn", "unet"])
@pytest.mark.parametrize("machine", [CPU, GPU])
def test_what_is_chosen_is_a_valid_configuration_and_is_chosen_once(model: str, machine: Machine) -> None:
    facts = replace(PHOTOS, num_images=30, small_object=0.01, most_objects=700, most_of_class=600)
    config = completed(bare(model), facts, machine)
    assert chosen(config, facts, machine) == {}
    assert config_from_dict(config_to_dict(config)) == config
    assert set(chosen(bare(model), facts, machine)) <= set(CHOSEN_SETTINGS)


STATED: dict[str, Any] = {
    "data.image_size": 64,
    "data.batch_size": 3,
    "data.num_workers": 0,
    "data.augmentation": {"horizontal_flip": 0.25},
    "model.backbone": {"name": "csp_large"},
    "model.neck": {"channels": 16},
    "model.rpn": {"nms_iou": 0.6},
    "model.roi_heads": {"pool_size": 5},
    "model.mask": {"convolutions": 2},
    "model.max_detections": 50,
    "trainer.max_epochs": 5,
    "trainer.validate_every": 2,
    "evaluation.max_detections": 20,
}


def test_what_is_stated_is_never_changed() -> None:
    sections: dict[str, dict[str, Any]] = {}
    for path, value in STATED.items():
        section, key = path.split(".")
        sections.setdefault(section, {})[key] = value
    config = bare("mask_rcnn", **sections)
    facts = replace(PHOTOS, small_object=0.01, most_objects=700, most_of_class=600)
    assert all(is_stated(config, path) for path in STATED)
    assert completed(config, facts, CPU) == config
    for path, value in STATED.items():  # each of them alone
        section, key = path.split(".")
        if not path.endswith("max_detections"):  # as many must be kept as are counted
            one = bare("mask_rcnn", **{section: {key: value}})
            assert path not in chosen(one, facts)
            completed(one, facts, CPU)


def test_the_rules_go_by_what_is_stated() -> None:
    assert chosen(bare("yolo"))["trainer.max_epochs"] == 40  # 50 steps an epoch
    assert chosen(bare("yolo", data={"batch_size": 40}))["trainer.max_epochs"] == 200
    assert chosen(bare("yolo", trainer={"max_epochs": 150}))["trainer.validate_every"] == 10
    fitting = replace(PHOTOS, small_object=0.04)
    assert "anchor_sizes" not in chosen(bare("faster_rcnn"), fitting)["model.rpn"]
    assert chosen(bare("faster_rcnn", data={"image_size": 320}), fitting)["model.rpn"]["anchor_sizes"][0] == [16]
    own = bare("faster_rcnn", model={"backbone": {"name": "resnet18"}})
    assert not {"model.neck", "model.roi_heads", "model.rpn"} & set(chosen(own))
    begun = bare("faster_rcnn", model={"weights": "somewhere.ckpt"})
    assert not [path for path in chosen(begun) if path.startswith("model.")]
    assert "data.batch_size" in chosen(begun)
    assert not [path for path in chosen(bare("unet", model={"strides": [1, 2, 4]})) if path.startswith("model.")]
    assert chosen(bare("yolo", model={"backbone": {"freeze": 1, "unfreeze_epoch": 90}}))["trainer.max_epochs"] == 90
    assert "trainer.validate_every" not in chosen(bare("yolo", trainer={"early_stopping_patience": 5}))
    assert chosen(bare("mask_rcnn"), replace(PHOTOS, most_objects=150))["model.max_detections"] == 300
    few = bare("mask_rcnn", model={"max_detections": 120})
    crowded = replace(PHOTOS, most_objects=500, most_of_class=500)
    assert chosen(few, crowded)["evaluation.max_detections"] == 120


@pytest.mark.parametrize(
    ("small", "hw", "size"),
    [
        (0.1, (480, 640), [256, 320]),  # 32 pixels are enough
        (0.04, (480, 640), [320, 416]),  # 16 pixels at 400
        (0.005, (480, 640), [480, 640]),  # never larger than the images
        (0.005, (1080, 1920), [384, 640]),  # nor than this
        (0.01, (96, 128), [192, 256]),  # but small ones to twice their size
        (0.2, (96, 128), [96, 128]),
        (0.001, (300, 300), 384),  # and up to this
        (0.1, (500, 500), 320),
    ],
)
def test_the_input_is_as_large_as_small_objects_need(small: float, hw: tuple[int, int], size: Any) -> None:
    facts = replace(PHOTOS, small_object=small, hw=hw)
    assert chosen(bare("yolo"), facts)["data.image_size"] == size
    of_all_kinds = chosen(bare("yolo"), replace(facts, same_proportions=False))["data.image_size"]
    assert of_all_kinds == (size if isinstance(size, int) else max(size))


@pytest.mark.parametrize(
    ("hw", "same_size", "same_proportions", "size"),
    [
        ((180, 240), True, True, [180, 240]),
        ((500, 375), False, True, [320, 256]),
        ((500, 375), False, False, 320),
        ((250, 260), False, False, 256),
    ],
)
def test_the_input_of_maps_has_the_proportions_of_the_images(
    hw: tuple[int, int], same_size: bool, same_proportions: bool, size: Any
) -> None:
    facts = replace(PHOTOS, hw=hw, same_size=same_size, same_proportions=same_proportions, small_object=None)
    assert chosen(bare("unet"), facts)["data.image_size"] == size


@pytest.mark.parametrize(
    ("names", "flips"),
    [
        (("cat", "dog", "light", "alright", "rl", "l'avion", "r2d2", "class_7", "7up"), True),
        (("LeftHand",), False),
        (("leftEye",), False),
        (("left_hand", "hand"), False),
        (("arrow-right",), False),
        (("arm R",), False),
        (("0", "1", "7"), False),
        (("10",), False),
        (("a", "b"), False),
    ],
)
def test_what_is_another_class_in_a_mirror_is_not_flipped(names: tuple[str, ...], flips: bool) -> None:
    facts = replace(PHOTOS, class_names=names)
    assert ("horizontal_flip" not in chosen(bare("yolo"), facts)["data.augmentation"]) is flips
    partly = bare("yolo", data={"augmentation": {"vertical_flip": 0.5}})
    assert completed(partly, facts, CPU).data.augmentation.horizontal_flip == (0.5 if flips else 0.0)
    stated = bare("yolo", data={"augmentation": {"horizontal_flip": 0.3}})
    assert completed(stated, facts, CPU).data.augmentation.horizontal_flip == 0.3


def test_nothing_is_chosen_for_shapes_and_for_modules_of_ones_own() -> None:
    assert recommend(load_config("yolo_shapes"), PHOTOS, CPU) == []
    own = config_from_dict({"model": {"name": "custom"}, "data": {"name": "custom"}})
    assert recommend(own, PHOTOS, CPU) == []


def test_a_new_file_and_a_bare_one_train_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data("bccd")
    assert main(["config", "new", str(folder)]) == 0
    (file := tmp_path / "mine.yaml").write_text(text := capsys.readouterr().out, encoding="utf-8")
    assert "  # images are about 640 x 480, small objects are 21 pixels there\n  image_size: [256, 320]\n" in text
    written = open_data(load_config(file)).config
    left_out = open_data(resolve_data(bare("yolo", folder))).config
    assert written == left_out
    assert left_out.data.num_workers == Machine.of(left_out.trainer).num_cores - 1 or left_out.data.num_workers in (
        1,
        8,
    )


def test_a_resumed_run_keeps_what_was_chosen(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"data": {"name": "auto", "root": str(tiny_run.data_root), "num_workers": 0}}
    model = {"model": config_to_dict(load_config(tiny_run.config_path))["model"]}
    ends = {"trainer": {"max_epochs": 1, "num_previews": 0}, "run_dir": str(tmp_path / "run")}
    with caplog.at_level(logging.INFO, "detseg"):
        train(config_from_dict(settings | model | ends), tmp_path / "x.yaml")
    assert "data.image_size=96: images are about" in caplog.text
    monkeypatch.setattr(recipe, "_LEAST_SIDE", 32)
    monkeypatch.setattr(recipe, "_FEW_IMAGES", 0)
    ends["trainer"] = {"max_epochs": 2, "num_previews": 0}
    train(config_from_dict(settings | model | ends), tmp_path / "x.yaml", resume="last")
    held = read_model_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").config
    assert (held["data"]["image_size"], held["data"]["batch_size"], held["trainer"]["max_epochs"]) == (96, 8, 2)


def test_what_a_run_had_is_taken_only_where_nothing_is_stated() -> None:
    stored = {"data": {"image_size": 96, "batch_size": 5}, "trainer": {"max_epochs": 7, "max_time": "1:00:00"}}
    config = taken_from(bare("yolo", data={"batch_size": 2}), stored)
    assert (config.data.image_size, config.data.batch_size, config.trainer.max_epochs) == (96, 2, 7)
    assert config.trainer.max_time is None


FILES = sorted(
    path for path in (Path(__file__).parents[3] / "configs").glob("*.yaml") if not path.stem.endswith("_shapes")
)


@pytest.mark.parametrize("machine", [CPU, GPU])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_of_configs_say_all_that_would_be_chosen(file: Path, machine: Machine) -> None:
    """But for loader processes: their figures in docs/benchmarks.md are theirs."""
    facts = replace(PHOTOS, num_images=100_000, small_object=0.02, most_objects=93, most_of_class=90)
    assert set(chosen(load_config(file), facts, machine)) <= {"data.num_workers"}


@pytest.mark.parametrize("model", ["unet", "faster_rcnn"])
def test_a_model_that_begins_with_a_checkpoint_has_its_network(model: str, tmp_path: Path) -> None:
    config = completed(bare(model), PHOTOS, CPU)
    settings = config_to_dict(config) | {"data": {"name": "custom"}}
    weights = tmp_path / "begun.safetensors"
    network = build_model(config.model, classes := ClassTable(("cat", "dog")), load_pretrained=False)
    write_weights(weights, ModelCheckpoint(settings, classes, network.state_dict(), epoch=1))
    begun = completed(bare(model, model={"weights": str(weights)}), PHOTOS, GPU)
    parts = ["backbone", *(["neck", "rpn", "roi_heads"] if model == "faster_rcnn" else ["output_stride", "upsampling"])]
    assert [getattr(begun.model, part) for part in parts] == [getattr(config.model, part) for part in parts]


def test_unset_names_of_python_objects_stay() -> None:
    model = UNetConfig(name="unet", backbone=BackboneConfig(freeze_bn=True))
    data = config_from_dict({"data": {"name": "custom"}}).data
    config = ExperimentConfig(data=data, model=model)
    found: Any = completed(config, PHOTOS, CPU).model
    assert found.backbone.name == BackboneConfig().name


def test_settings_of_another_model_are_not_taken() -> None:
    stored = config_to_dict(completed(bare("faster_rcnn"), PHOTOS, CPU))
    assert taken_from(bare("yolo"), stored).model == bare("yolo").model


def test_what_print_config_prints_is_completed_as_the_file_is() -> None:
    config = bare("faster_rcnn", data={"image_size": 256})
    printed_config = config_from_dict(yaml.safe_load(text := printed(config)))
    assert "data.batch_size" in text.split("data:")[0]
    assert completed(printed_config, PHOTOS, CPU) == completed(config, PHOTOS, CPU)
    partly = bare("yolo", data={"augmentation": {"vertical_flip": 0.5}})
    hands = replace(PHOTOS, class_names=("left hand",))
    found = completed(config_from_dict(yaml.safe_load(printed(partly))), hands, CPU)
    assert found.data.augmentation.horizontal_flip == 0.0
