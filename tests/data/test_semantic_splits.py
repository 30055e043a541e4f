"""From settings to data sets with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.config.schema.data import CocoConfig, MaskFolderConfig, ShapesConfig, VocConfig
from detseg.data.build import SHAPE_MASK_CLASSES, open_semantic_split, open_split
from detseg.data.synthetic.scenes import render_scene
from detseg.errors import ClassTableError, DataError
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import BINARY, lines_of, rectangle, write_coco_masks, write_pairs, write_voc_masks


def test_voc(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[7, 9]], "b": [[9, 3]]}, {"one": "a", "two": "b", "three": "a\nb"})
    config = VocConfig(
        name="voc", root=tmp_path, classes=BINARY, train_split="one", val_split="two", test_split="three",
        mask_values=(7, 9), ignore_index=3,
    )  # fmt: skip
    train = open_semantic_split(config, "train")
    assert train.semantic(0).tolist() == [[0, 1]]
    assert train.classes == ClassTable(BINARY, (7, 9))
    assert len(open_semantic_split(config, "test", train.classes)) == 2
    # Nothing can be learned from b, but it may well be evaluated on.
    val = open_semantic_split(config, "val", train.classes)
    assert val.semantic(0).tolist() == [[1, 255]]
    assert "the masks show 'thing' and what counts nowhere" in lines_of(val.report)
    with pytest.raises(DataError, match=r"is 3 the background\? set data\.mask_values=\[3, 9\]"):
        open_semantic_split(config.model_copy(update={"train_split": "two"}), "train")


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
    colours = config.model_copy(update={"mask_colors": ((0, 0, 0), (1, 1, 1)), "ignore_colors": ((2, 2, 2),)})
    assert open_semantic_split(colours, "train").semantic(0).tolist() == [[0, 1]]
    with pytest.raises(DataError, match="folder holds masks, not boxes"):
        open_split(config, "train")


def test_coco(tmp_path: Path) -> None:
    entry = {"category_id": 3, "segmentation": rectangle(0, 0, 2, 2)}
    images, file = write_coco_masks(tmp_path, [entry])
    config = CocoConfig(name="coco", root=tmp_path, train_images=Path(images.name), train_annotations=Path(file.name))
    dataset = open_semantic_split(config, "train")
    assert dataset.classes.names == ("background", "a", "b")
    chosen = config.model_copy(update={"classes": ("ground", "b")})
    assert open_semantic_split(chosen, "train").classes.names == ("ground", "b")
    with pytest.raises(DataError, match=r"data\.test_images, data\.test_annotations: not set"):
        open_semantic_split(config, "test")


def test_shapes_are_the_scenes_that_were_drawn(tmp_path: Path) -> None:
    config = ShapesConfig(
        name="shapes", root=tmp_path / "s", num_train=2, num_val=2, size=64, max_objects=3, data_seed=5
    )
    for split in ("train", "val"):
        dataset = open_semantic_split(config, split)
        assert (
            dataset.classes.names
            == SHAPE_MASK_CLASSES
            == ("background", "ellipse", "rectangle", "ring", "star", "triangle")
        )
        for index in range(2):
            scene = render_scene(5, split, index, 64, 3)
            expected = np.zeros(scene.image.shape[:2])
            for label, mask in zip(scene.labels, scene.masks, strict=True):
                expected[mask] = label + 1
            assert np.array_equal(dataset.semantic(index), expected)
    assert open_semantic_split(config, "val", dataset.classes).classes is dataset.classes
    wrong = config.model_copy(update={"classes": ("background", "star")})
    with pytest.raises(
        ClassTableError, match="hold background, ellipse, rectangle, ring, star, triangle, in this order"
    ):
        open_semantic_split(wrong, "train")
    with pytest.raises(DataError, match="the shapes set has no test split"):
        open_semantic_split(config, "test")
