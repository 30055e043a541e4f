"""Cases from the field: what users' data looked like, and what detseg says or does now. One test a case; the messages
are tested as they are, so that a change of them is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from detseg.config.schema.data import CocoConfig, DataConfig, MaskFolderConfig, VocConfig
from detseg.data.build import open_semantic_split, open_split
from detseg.data.datasets.detection import DetectionDataset
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, save_image, save_mask, write_voc, write_voc_masks
from tests.shared_data import shared_data

XML = annotation_xml(object_xml(("cat", 2, 3, 8, 9)))


def message(config: DataConfig) -> str:
    """What opening the training split is refused with, without the folder that the test made."""
    read: Callable[..., object] = open_semantic_split if isinstance(config, MaskFolderConfig) else open_split
    with pytest.raises(DataError) as caught:
        read(config, "train")
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
    twice = "boxes that repeat another of the same class in the image exactly: 1 (JPEGImages/a.jpg)"  # lorry, van
    assert found_lines(train) == [twice, "objects of classes that data.classes leaves out: 2 (cat, cow)"]
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


@pytest.mark.parametrize("name", ["/home/me/x 1.jpg", "http://localhost:8080/data/upload/3/x%201.jpg?d=7"])
def test_places_on_another_machine_count_once(name: str, tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "x 1.jpg", (10, 20))
    write_coco(tmp_path / "result.json", [name], ["cat"], [(0, "cat")])
    config = coco_config(tmp_path, train_images=".", train_annotations="result.json", file_names="relaxed")
    (line,) = found_lines(open_split(config, "train"))
    assert line.startswith("images that were found under another spelling of their name: 1 (")
    assert line.endswith(" is images/x 1.jpg)")


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
        "images that were found under another spelling of their name: 2 (images\\x.jpg is images/x.jpg, "
        "images\\y 1.jpg is images/y 1.jpg)"
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


def mask_config(root: Path, **settings: Any) -> MaskFolderConfig:
    paths = {"train_images": "images", "train_masks": "masks", "classes": ["background", "cell"]}
    return MaskFolderConfig.model_validate({"name": "mask_folder", "root": root} | paths | settings)


def test_d14_an_image_whose_name_looks_like_a_comment(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": "# a comment\n#12\na\n"}, {"#12": XML, "a": XML})
    dataset = open_split(VocConfig(name="voc", root=tmp_path), "train")
    assert [Path(dataset[index].path).name for index in range(2)] == ["#12.jpg", "a.jpg"]


def test_d17_names_of_images_and_masks_have_suffixes(tmp_path: Path) -> None:
    stems = [f"city_00000{k}_0000{k}9" for k in range(6)]
    for stem in stems:
        save_image(tmp_path / "images" / f"{stem}_leftImg8bit.png", (1, 3))
        save_mask(tmp_path / "masks" / f"{stem}_gtFine_labelTrainIds.png", [[0, 1, 255]])
    names = ", ".join(f"{stem}_leftImg8bit.png" for stem in stems)
    assert message(mask_config(tmp_path)) == (
        f"ROOT/masks: 6 of 6 images have no mask: {names}; expected city_000000_000009_leftImg8bit.png, .tif, .tiff or "
        ".bmp (data.mask_suffix is what comes before the file type); 6 of 6 images would have one with "
        "data.image_suffix=_leftImg8bit data.mask_suffix=_gtFine_labelTrainIds"
    )
    config = mask_config(tmp_path, image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelTrainIds")
    assert len(open_semantic_split(config, "train")) == 6
    root = shared_data("formats", "common_semantic_segmentation_dataset", "non_standard_dataset")
    config = mask_config(root, classes=None)
    assert message(config).endswith("2 of 2 images would have one with data.image_prefix=image_ data.mask_prefix=gt_")
    config = mask_config(root, classes=None, image_prefix="image_", mask_prefix="gt_")
    assert open_semantic_split(config, "train").semantic(1).tolist() == [[1, 1, 5, 7, 7]]


def test_d18_masks_with_soft_edges(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "images" / f"{stem}.png", (1, 12))
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0, 0, 12, 40, 90, 127, 128, 160, 200, 240, 255, 255]])
    assert message(mask_config(tmp_path)) == (
        "ROOT/masks/a.png: values {0, 12, 40, 90, 127, 128, 160, 200, ..., 255} with 2 classes: are the edges of two "
        "classes soft? data.mask_threshold=128 reads values from 128 on as 'cell'; or, if each value is a class, name "
        "every class in data.classes (expected: 0, 1, and 255 for pixels to ignore; 8 px have others)"
    )
    dataset = open_semantic_split(mask_config(tmp_path, mask_threshold=128), "train")
    assert dataset.semantic(0).tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]]
    write_voc_masks(tmp_path / "voc", {"a": [[0, 99, 129, 255]]})
    voc = VocConfig(name="voc", root=tmp_path / "voc", classes=("background", "cell"), mask_threshold=128)
    assert open_semantic_split(voc, "train").semantic(0).tolist() == [[0, 0, 1, 1]]
    with pytest.raises(DataError, match=r"data\.mask_threshold: expected two classes, and neither .* got 3 classes"):
        open_semantic_split(mask_config(tmp_path, mask_threshold=128, classes=["a", "b", "c"]), "train")


def test_d19_one_mask_for_each_class(tmp_path: Path) -> None:
    for task in (1, 2):
        save_image(tmp_path / "images" / f"{task}.jpg", (1, 3))
        save_mask(tmp_path / "masks" / f"task-{task}-annotation-3-by-1-tag-cell-0.png", [[0, 0, 255]])
        save_mask(tmp_path / "masks" / f"task-{task}-annotation-3-by-1-tag-wall-0.png", [[255, 0, 0]])
    assert message(mask_config(tmp_path)) == (
        "ROOT/masks: 2 of 2 images have no mask: 1.jpg, 2.jpg; expected 1.png, .tif, .tiff or .bmp (data.mask_suffix "
        "is what comes before the file type); these are masks of one class each: data.mask_per_class=true reads them, "
        "detseg convert merges them; Label Studio names them by task, so the images must be 1.jpg or task-1.jpg, ..."
    )
    dataset = open_semantic_split(mask_config(tmp_path, mask_per_class=True, classes=None), "train")
    assert dataset.classes.names == ("background", "cell", "wall")
    assert [dataset.semantic(index).tolist() for index in range(2)] == [[[2, 0, 1]]] * 2
    for name, stems in (("folders", ("cell/1", "wall/1")), ("suffixes", ("1_cell", "1_wall"))):
        root = tmp_path / name
        save_image(root / "images" / "1.jpg", (1, 3))
        for stem in stems:
            save_mask(root / "masks" / f"{stem}.png", [[0, 0, 255]])
        assert "data.mask_per_class=true reads them" in message(mask_config(root))
