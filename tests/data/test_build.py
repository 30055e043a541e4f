"""From settings to data sets: each layout, with boxes, instance masks and semantic masks; classes.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.config.schema.data import CocoConfig, MaskFolderConfig, ShapesConfig, VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import FasterRcnnConfig, MaskRcnnConfig, ModelConfig
from detseg.data.build import SHAPE_MASK_CLASSES, open_semantic_split, open_split
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.shapes import render_scene
from detseg.data.splits import class_counts, same_files
from detseg.errors import CheckpointError, ClassTableError, DataError
from detseg.evaluation.run import open_split_for
from detseg.structures import ClassTable
from detseg.tasks import kind_of
from tests.data.formats.layouts import BINARY, lines_of, rectangle, write_coco_masks, write_pairs, write_voc_masks
from tests.shared_data import shared_data


def test_voc(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[7, 9]], "b": [[9, 3]]}, {"one": "a", "two": "b", "three": "a\nb"})
    splits = {"train_split": "one", "val_split": "two", "test_split": "three"}
    config = VocConfig(name="voc", root=tmp_path, classes=BINARY, mask_values=(7, 9), ignore_index=3, **splits)
    train = open_semantic_split(config, "train")
    assert train.semantic(0).tolist() == [[0, 1]]
    assert train.classes == ClassTable(BINARY, (7, 9))
    assert len(open_semantic_split(config, "test", train.classes)) == 2
    # A training set of b alone is an error, an evaluation of it is not.
    val = open_semantic_split(config, "val", train.classes)
    assert val.semantic(0).tolist() == [[1, 255]]
    assert "masks that show one class and ignored pixels, and nothing else: 1 " in lines_of(val.report)
    with pytest.raises(DataError, match=r"is 3 the background\? set data\.mask_values=\[3, 9\]"):
        open_semantic_split(config.model_copy(update={"train_split": "two"}), "train")
    with pytest.raises(DataError, match=r"data\.name: voc has no instance masks; set data\.name=coco"):
        open_split(config, "train", masks=True)


def test_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "train", {"a": [[0, 1]]}, "_m")
    config = MaskFolderConfig(name="mask_folder", root=tmp_path, mask_suffix="_m")
    with pytest.raises(DataError, match=r"masks hold no class names; .*classes\.txt"):
        open_semantic_split(config, "train")
    (tmp_path / "classes.txt").write_text("x\ny")
    dataset = open_semantic_split(config, "train")
    assert dataset.classes.names == ("x", "y")
    assert dataset.semantic(0).tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"val.images: there is no such folder"):
        open_semantic_split(config, "val")
    with pytest.raises(DataError, match=r"data\.test_images, data\.test_masks: not set"):
        open_semantic_split(config, "test")
    colours = config.model_copy(update={"mask_colors": ((1, 1, 1), (0, 0, 0))})
    assert open_semantic_split(colours, "train").semantic(0).tolist() == [[1, 0]]
    with pytest.raises(DataError, match=r"data\.name: mask_folder has semantic masks but no boxes"):
        open_split(config, "train")


def test_coco(tmp_path: Path) -> None:
    entry = {"category_id": 3, "segmentation": rectangle(0, 0, 2, 2), "bbox": [0, 0, 2, 2]}
    images, file = write_coco_masks(tmp_path, [entry])
    config = CocoConfig(name="coco", root=tmp_path, train_images=Path(images.name), train_annotations=Path(file.name))
    assert open_semantic_split(config, "train").classes.names == ("background", "a", "b")
    chosen = config.model_copy(update={"classes": ("ground", "b")})
    assert open_semantic_split(chosen, "train").classes.names == ("ground", "b")
    with pytest.raises(DataError, match=r"data\.test_images, data\.test_annotations: not set"):
        open_semantic_split(config, "test")
    assert_the_model_decides_whether_masks_are_read(config)


def assert_the_model_decides_whether_masks_are_read(data: CocoConfig | ShapesConfig) -> None:
    models: tuple[ModelConfig, ...] = (MaskRcnnConfig(name="mask_rcnn"), FasterRcnnConfig(name="faster_rcnn"))
    with_masks, without = (kind_of(model).open_dataset(data, "train") for model in models)
    assert isinstance(with_masks, DetectionDataset)
    assert isinstance(without, DetectionDataset)
    assert with_masks[0].masks is not None
    assert without[0].masks is None
    assert with_masks.classes.names == without.classes.names
    np.testing.assert_array_equal(with_masks[0].image, without[0].image)


def test_shapes_are_the_scenes_that_were_drawn(tmp_path: Path) -> None:
    config = ShapesConfig(name="shapes", root=tmp_path / "s", num_train=2, num_val=2, size=64, data_seed=5)
    for split in ("train", "val"):
        semantic, instances = open_semantic_split(config, split), open_split(config, split, masks=True)
        assert semantic.classes.names == SHAPE_MASK_CLASSES == ("background", *instances.classes.names)
        scene = render_scene(5, split, 1, 64, 6)
        expected = (scene.masks * (scene.labels + 1)[:, None, None]).sum(axis=0)  # no two masks overlap
        np.testing.assert_array_equal(semantic.semantic(1), expected)
        truth = instances.annotations(1)
        assert truth.masks is not None
        np.testing.assert_array_equal(truth.masks.dense(), scene.masks)
        in_voc = open_split(config, split).annotations(1)
        assert (in_voc.boxes.tolist(), in_voc.truncated.tolist()) == (scene.boxes.tolist(), scene.truncated.tolist())
        assert (truth.boxes.tolist(), truth.labels.tolist()) == (scene.boxes.tolist(), scene.labels.tolist())
        assert np.abs(instances[1].image.astype(float) - scene.image).mean() < 4  # JPEG of noise
    assert open_semantic_split(config, "val", semantic.classes).classes is semantic.classes
    assert_the_model_decides_whether_masks_are_read(config)
    with pytest.raises(ClassTableError, match=r"ring, star, triangle, in this order; got background, star"):
        open_semantic_split(config.model_copy(update={"classes": ("background", "star")}), "train")
    with pytest.raises(DataError, match="the shapes set has no test split"):
        open_semantic_split(config, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\nsky\n", r"2 classes, road, sky; expected 2, sky, road \(label 0 is 'road', expected 'sky'\)"),
        ("sky\nroad\ntree\n", r"3 classes, sky, road, tree; expected 2, sky, road; values"),
        ("# two\nsky\nroad\n", ""),
    ],
)
def test_masks_of_other_classes_than_the_given_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 1]]}, {"val": "a"})
    (tmp_path / "classes.txt").write_text(text)
    config, trained = VocConfig(name="voc", root=tmp_path), ClassTable(("sky", "road"), (0, 1))
    renamed = config.model_copy(update={"classes": trained.names})  # goes before the file
    for allowed in [renamed] if message else [renamed, config]:
        assert open_semantic_split(allowed, "val", trained).classes == trained
    if message:
        with pytest.raises(ClassTableError, match=r"classes\.txt: " + message):
            open_semantic_split(config, "val", trained)
        settings = {"model": {"name": "unet"}, "data": config.model_dump(mode="json")}
        with pytest.raises(CheckpointError, match=r"classes\.txt: .*table is that of best\.ckpt: sky, road\)"):
            open_split_for(ExperimentConfig.model_validate(settings), "val", trained, Path("best.ckpt"))


def test_a_part_of_the_training_images_validates() -> None:
    """BCCD's trainval: sizes, classes in proportion, near duplicates together, the same parts at every opening."""
    bccd = shared_data("bccd")
    settings = {"name": "voc", "root": bccd, "train_split": "trainval", "val_fraction": 0.25}
    config = VocConfig.model_validate(settings)
    train = open_split(config, "train")
    val = open_split(config, "val", train.classes)
    assert (len(train), len(val)) == (219, 73)
    note = (
        "219 of 292 images to train on, 73 to validate on (data.val_fraction=0.25, seed 0, "
        "2 images with near duplicates kept together)"
    )
    assert train.report.lines()[0] == note == val.report.lines()[0]
    names = [{dataset.packed.path(i) for i in range(len(dataset))} for dataset in (train, val)]
    assert not names[0] & names[1]
    assert len({*names[0], *names[1]}) == 292
    pair = {f"JPEGImages/BloodImage_{number}.jpg" for number in ("00037", "00038")}
    assert pair <= names[0] or pair <= names[1]
    assert same_files(train, val) == []
    whole = open_split(VocConfig.model_validate({**settings, "val_fraction": None}), "train")
    shown = [(class_counts(dataset) > 0).sum(axis=0) for dataset in (val, whole)]
    assert np.abs(shown[0] / shown[1] - 0.25).max() < 0.01
    again = open_split(config, "val", train.classes)
    assert again.packed.path_bytes == val.packed.path_bytes
    other = open_split(config.model_copy(update={"split_seed": 1}), "val", train.classes)
    assert other.packed.path_bytes != val.packed.path_bytes
    some = open_split(config.model_copy(update={"fraction": 0.1}), "train")
    assert len(some) == 22
    assert set(some.packed.image_ids.tolist()) < set(train.packed.image_ids.tolist())
    assert some.report.lines()[1] == "22 of 219 training images are used (data.fraction=0.1, seed 0)"
    assert len(open_split(config.model_copy(update={"fraction": 0.1}), "val", train.classes)) == 73
    assert len(open_split(config.model_copy(update={"fraction": 0.1}), "test", train.classes)) == 72


def test_parts_of_masks_and_groups_by_name() -> None:
    camvid = shared_data("camvid_small")
    settings = {"name": "voc", "root": camvid, "val_fraction": 0.2, "split_group": r"/(\w+)_f?\d+\.jpg"}
    config = VocConfig.model_validate(settings)
    train = open_semantic_split(config, "train")
    val = open_semantic_split(config, "val", train.classes)
    assert (len(train), len(val)) == (305, 62)  # videos whole
    videos = [{dataset.packed.path(i)[11:17] for i in range(len(dataset))} for dataset in (train, val)]
    assert not videos[0] & videos[1]
    alone = config.model_copy(update={"split_group": "none"})
    assert len(open_semantic_split(alone, "train")) == 294
    assert len(open_semantic_split(alone, "val", train.classes)) == 73
    message = r"data.val_fraction: voc train: 367 images in 1 group, .* cannot be divided; set data.split_group=none"
    with pytest.raises(DataError, match=message):
        open_semantic_split(config.model_copy(update={"split_group": "JPEG"}), "train")
