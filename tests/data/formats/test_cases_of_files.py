"""Cases from the field: what users' data looked like, and what detseg says or does now. One test a case; the messages
are tested as they are, so that a change of them is seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detseg.config.schema.data import CocoConfig, DataConfig, VocConfig
from detseg.data.build import open_split
from detseg.data.datasets.detection import DetectionDataset
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, save_image, write_voc

XML = annotation_xml(object_xml(("cat", 2, 3, 8, 9)))


def message(config: DataConfig) -> str:
    """What opening the training split is refused with, without the folder that the test made."""
    with pytest.raises(DataError) as caught:
        open_split(config, "train")
    return str(caught.value).replace(f"{config.root}", "ROOT")


def found_lines(dataset: DetectionDataset) -> list[str]:
    return dataset.report.lines()


def write_coco(
    file: Path, images: Sequence[str], categories: Sequence[str], objects: Sequence[tuple[int, str]]
) -> None:
    """A COCO file of 20 x 10 images, its categories with the ids 1, 2, ..., and a box for each (image, category)."""
    content: dict[str, Any] = {
        "images": [{"id": k, "file_name": name, "width": 20, "height": 10} for k, name in enumerate(images)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(categories, start=1)],
        "annotations": [
            {"id": k, "image_id": image, "category_id": categories.index(name) + 1, "bbox": [1, 1, 5, 5], "area": 25}
            for k, (image, name) in enumerate(objects)
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def coco_config(root: Path, **settings: Any) -> CocoConfig:
    paths = {"train_images": "images", "train_annotations": "train.json", "val_images": "images"}
    data = {"name": "coco", "root": root, "val_annotations": "val.json"} | paths | settings
    return CocoConfig.model_validate(data)


def test_d5_validation_lists_only_the_categories_that_it_uses(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        save_image(tmp_path / "images" / name, (10, 20))
    write_coco(tmp_path / "train.json", ["a.jpg"], ["person", "car", "dog"], [(0, "person"), (0, "car"), (0, "dog")])
    write_coco(tmp_path / "val.json", ["b.jpg"], ["car"], [(0, "car")])
    for settings in ({}, {"classes": ["person", "car", "dog"]}, {"classes": ["dog", {"vehicle": ["car"]}]}):
        config = coco_config(tmp_path, **settings)
        train = open_split(config, "train")
        val = open_split(config, "val", train.classes)
        assert val.classes == train.classes
        absent = [name for name in train.classes.names if name not in ("car", "vehicle")]
        assert f"classes without any object: {len(absent)} ({', '.join(absent)})" in found_lines(val)


def test_d6_voc_training_on_some_of_the_classes(tmp_path: Path) -> None:
    xml = annotation_xml("".join(object_xml((name, 2, 3, 8, 9)) for name in ("cat", "dog", "cow", "lorry", "van")))
    write_voc(tmp_path, {"train": "a", "val": "a"}, {"a": xml})
    config = VocConfig(name="voc", root=tmp_path, classes=("dog", {"truck": ("lorry", "van")}))
    train = open_split(config, "train")
    assert (train.classes.names, train.packed.labels.tolist()) == (("dog", "truck"), [0, 1, 1])
    assert found_lines(train)[-1] == "objects of classes that data.classes leaves out: 2 (cat, cow)"
    assert len(open_split(config, "val", train.classes).packed.labels) == 3


def test_d7_xml_files_beside_their_images(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        save_image(tmp_path / folder / "a b.jpg", (10, 20))
        (tmp_path / folder / "a b.xml").write_text(XML)
    config = VocConfig(name="voc", root=tmp_path)
    train = open_split(config, "train")
    assert len(train) == len(open_split(config, "val", train.classes)) == 1
    assert message(config.model_copy(update={"train_split": "trian"})) == (
        "ROOT: there is no ImageSets/Main in it, and no folder or list 'trian'; its XML files lie in train, valid: "
        "name their folder as split, or . for all of them (data.train_split=. data.val_fraction=0.2)"
    )


def test_d8_backslashes_in_file_names(tmp_path: Path) -> None:
    names = ["x.jpg", "y 1.jpg"]
    for name in names:
        save_image(tmp_path / "images" / name, (10, 20))
    write_coco(tmp_path / "result.json", [f"images\\{name}" for name in names], ["cat"], [(0, "cat"), (1, "cat")])
    config = coco_config(tmp_path, train_images=".", train_annotations="result.json")
    assert message(config) == (
        "ROOT: 2 of 2 images missing: images\\x.jpg, images\\y 1.jpg; all of them are found with slashes for "
        "backslashes (images\\x.jpg is images/x.jpg): set data.file_names=relaxed, or correct the names"
    )
    dataset = open_split(config.model_copy(update={"file_names": "relaxed"}), "train")
    assert [dataset[index].path for index in range(2)] == [str(tmp_path / "images" / name) for name in names]
    assert found_lines(dataset) == [
        "images that were found under another spelling of their name: 2 (images\\x.jpg is images/x.jpg)"
    ]


def test_d9_images_of_phones(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.HEIC"):
        save_image(tmp_path / "images" / "x.png", (10, 20)).rename(tmp_path / "images" / name)
    write_coco(tmp_path / "train.json", ["a.jpg", "b.HEIC"], ["cat"], [(0, "cat"), (1, "cat")])
    assert message(coco_config(tmp_path)) == (
        "ROOT/images: 1 of 2 images (b.HEIC) are HEIF images, which need the package pi-heif: "
        'pip install "detseg[heic]"; or convert them to JPEG'
    )


def test_d11_one_image_is_missing(tmp_path: Path) -> None:
    for number in range(7):
        save_image(tmp_path / "images" / f"{number}.jpg", (10, 20))
    write_coco(tmp_path / "train.json", [f"{k}.jpg" for k in range(8)], ["cat"], [(k, "cat") for k in range(8)])
    config = coco_config(tmp_path)
    assert message(config) == (
        "ROOT/images: 1 of 8 images missing: 7.jpg; add the files, take them out of the annotations, or leave them out "
        "with data.on_missing=skip"
    )
    dataset = open_split(config.model_copy(update={"on_missing": "skip"}), "train")
    assert (len(dataset), len(dataset.packed.labels)) == (7, 7)
    assert found_lines(dataset) == ["images that are missing (left out): 1 (7.jpg)"]
    listed = ", ".join(f"{k}.jpg" for k in range(8))
    assert message(coco_config(tmp_path, train_images="nowhere")) == (
        f"ROOT/nowhere: 8 of 8 images missing: {listed}; is this the image folder of the annotations?"
    )


def test_d14_an_image_whose_name_looks_like_a_comment(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": "# a comment\n#12\na\n"}, {"#12": XML, "a": XML})
    dataset = open_split(VocConfig(name="voc", root=tmp_path), "train")
    assert [Path(dataset[index].path).name for index in range(2)] == ["#12.jpg", "a.jpg"]
