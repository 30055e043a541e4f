"""What folders are: all shared sets, layouts made here, folders that are several sets or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detseg.config.load import config_from_dict
from detseg.data.build import open_split
from detseg.data.formats.recognise import recognise
from detseg.data.formats.recognise.layout import Need
from detseg.data.formats.voc import read_voc
from detseg.data.formats.yolo import read_yolo
from detseg.errors import DataError
from tests.data.formats.layouts import save_image, save_images, write_file
from tests.shared_data import shared_data

VOC, COCO, YOLO = "Pascal VOC with lists", "COCO JSON", "YOLO text"
TV = {"train_split": "train", "val_split": "val"}
REAL: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "bccd": (VOC, {"train": 205, "val": 87, "test": 72}, {**TV, "test_split": "test"}),
    "camvid_small": ("Pascal VOC with masks of classes", {"train": 367, "val": 101}, TV),
    "coco_mini": (COCO, {"train": 25, "val": 8}, {"train_images": "images"}),
    "dsb2018_nuclei": (COCO, {"train": 90, "val": 30}, {"val_images": "images"}),
    "oracles/coco_val2014_fake100": (COCO, {"train": 100}, {"train_annotations": "instances_val2014_100.json"}),
    "formats/coco_dataset/coco": (COCO, {"train": 1, "val": 1}, {"train_images": "images/train"}),
    "formats/coco_dataset/coco_instances": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_person_keypoints": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_stuff": (COCO, {"train": 1, "val": 1}, {"val_images": "images/val"}),
    "formats/coco_dataset/coco_roboflow": (COCO, {"train": 1, "val": 1}, {"val_images": "val"}),
    "formats/coco_dataset/mmdet_coco": (COCO, {"train": 1, "val": 1}, {"train_images": "train"}),
    "formats/roboflow_dataset/coco": (COCO, {"train": 2, "val": 1}, {"train_images": "train"}),
    "formats/roboflow_dataset/voc": ("Pascal VOC's XML without lists", {"train": 2, "val": 1}, TV),
    "formats/roboflow_dataset/yolo": (YOLO, {"train": 2, "val": 1}, TV),
    "formats/yolo_dataset/labels": (YOLO, {"train": 1, "val": 1}, TV),
    "formats/yolo_dataset/strict": (YOLO, {"train": 1}, {"train_split": "train"}),
    "formats/yolo_dataset/annotations": (YOLO, {"train": 1}, {"train_split": "."}),
    "formats/voc_dataset/voc_dataset1": (VOC, {"train": 1}, {"train_split": "train"}),
    "formats/voc_dataset/voc_dataset2": (VOC, {"train": 5}, {"train_split": "trainval", "val_fraction": 0.2}),
    "formats/voc_dataset/voc_dataset3": (VOC, {"train": 1}, {"train_split": "train"}),
    "formats/cvat_dataset/for_images/export_task": ("CVAT XML for images", {"train": 2}, {"train_split": "train.xml"}),
    "formats/cvat_dataset/for_images/export_project": (
        "CVAT XML for images",
        {"train": 2, "val": 2, "test": 2},
        {"train_split": "Train", "val_split": "Validation", "test_split": "Test"},
    ),
    "formats/common_semantic_segmentation_dataset/dataset": (
        "folders of images and masks",
        {"train": 2},
        {"train_images": "images", "train_masks": "masks"},
    ),
    "formats/common_semantic_segmentation_dataset/non_standard_dataset": (
        "folders of images and masks",
        {"train": 2},
        {"image_prefix": "image", "mask_prefix": "gt"},
    ),
}
NONE = {
    "formats/labelme_dataset": "there are 5 .png, 1 .xml; .* the XML of the old LabelMe, which is not read",
    "formats/coco_dataset/coco_captions": "there are 2 .json, 2 .jpg; .* COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_labels": "COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_image_info": "COCO JSON without boxes and outlines",
    "formats/coco_dataset/coco_panoptic": "COCO JSON without boxes and outlines",
    "formats/roboflow_dataset": r"several data sets: coco \(COCO JSON\), voc \(.*\), yolo \(YOLO text\); name one of",
    "formats/yolo_dataset": r"several data sets: annotations \(YOLO text\), labels \(.*\), strict \(",
    "formats/cvat_dataset": "several data sets: for_images/export_project .*, for_images/export_task ",
    "malformed/orientation": "there are 15 .jpg; .* there are images without annotations",
    "nowhere": "there is no such folder",
}


@pytest.mark.parametrize("folder", REAL)
def test_real_sets_are_recognised(folder: str) -> None:
    what, counts, some = REAL[folder]
    found = recognise(shared_data(folder))
    assert (found.layout.what, found.layout.counts) == (what, counts)
    assert some.items() <= found.settings.items()
    assert (found.settings.get("val_fraction") == 0.2) == ("val" not in counts)
    assert found.lines[0].startswith(f"{what} in {shared_data(folder)}: train {counts['train']} image")


@pytest.mark.parametrize("folder", NONE)
def test_what_is_none_or_several_is_said(folder: str) -> None:
    with pytest.raises(DataError, match=f"{folder}: .*{NONE[folder]}"):
        recognise(shared_data() / folder)


def test_the_model_decides_between_sets_in_one_folder() -> None:
    voc1, dsb = (shared_data(name) for name in ("formats/voc_dataset/voc_dataset1", "dsb2018_nuclei"))
    assert recognise(voc1, "boxes").layout.has == {"boxes"}
    assert recognise(voc1, "maps").layout.has == {"maps"}
    assert recognise(voc1, "maps").lines[-1] == "also there, not taken: Pascal VOC with lists"
    # The masks of these nuclei do not name their classes, the outlines do.
    needs: tuple[Need, ...] = ("boxes", "outlines", "maps")
    assert [recognise(dsb, need).layout.name for need in needs] == ["coco"] * 3
    with pytest.raises(
        DataError, match="bccd: found Pascal VOC with lists, which has not outlines of objects; take an"
    ):
        recognise(shared_data("bccd"), "outlines")


def test_labelme_in_many_folders_and_unpacked_twice(tmp_path: Path) -> None:
    for name in ("mine/mine/day 1/a", "mine/mine/day 2/b"):
        save_images(tmp_path, f"{name}.png")
        write_file(tmp_path, f"{name}.json", {"shapes": [{"shape_type": "polygon"}], "imagePath": "x"})
    found = recognise(tmp_path)
    assert (found.layout.name, found.settings["train_split"], found.layout.counts) == ("labelme", ".", {"train": 2})
    assert found.root == tmp_path / "mine" / "mine"
    assert found.layout.has == {"boxes", "outlines", "maps"}


def test_roboflow_calls_the_validation_split_valid(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        save_images(tmp_path, f"{split}/images/{split}.jpg")
        write_file(tmp_path, f"{split}/labels/{split}.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3\n")
    write_file(
        tmp_path,
        "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: [no]\n",
    )
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1, "val": 1, "test": 1}
    assert found.layout.classes == ("no",)
    assert found.layout.has == {"boxes", "outlines", "maps"}
    for split in ("train", "valid", "test"):  # wrong, and the reader says so, with file and line
        write_file(tmp_path, f"{split}/labels/{split}.txt", "no 0.5 0.5 0.1 0.1\n")
    assert recognise(tmp_path).layout.counts == {"train": 1, "val": 1, "test": 1}
    for split in ("train", "valid", "test"):
        write_file(tmp_path, f"{split}/labels/{split}.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3\n")
    (tmp_path / "data.yaml").unlink()
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1, "val": 1, "test": 1}
    assert found.layout.notes[0].startswith("no file names the classes: write data.yaml")


def test_images_of_another_suffix_than_the_names_of_coco(tmp_path: Path) -> None:
    save_images(tmp_path, "pictures/day 1/a.png", "masks/b.png")
    content = {"images": [{"file_name": "day 1/a.jpg"}], "annotations": [], "categories": [{"name": "no"}]}
    write_file(tmp_path, "instances.json", content)
    assert recognise(tmp_path).settings["train_images"] == "pictures"


def test_years_of_voc(tmp_path: Path) -> None:
    for year, lists in {"2007": ("trainval", "test"), "2012": ("train", "val")}.items():
        for name in lists:
            write_file(tmp_path, f"VOCdevkit/VOC{year}/ImageSets/Main/{name}.txt", "a\n")
        write_file(tmp_path, f"VOCdevkit/VOC{year}/Annotations/a.xml", "<annotation></annotation>")
    found = recognise(tmp_path)
    assert found.settings == {
        "name": "voc",
        "root": str(tmp_path),
        "train_split": "2007:trainval+2012:train",
        "val_split": "2012:val",
        "test_split": "2007:test",
    }


def test_an_empty_folder_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty"):
        recognise(tmp_path)
    write_file(tmp_path, "export.json", [{"id": 1, "data": {"image": "x"}, "annotations": []}])
    with pytest.raises(DataError, match="Label Studio's own JSON: export COCO, YOLO or Pascal VOC"):
        recognise(tmp_path)


def test_what_lies_above_or_is_hidden_is_of_no_set(tmp_path: Path) -> None:
    """A link leads to the folder that holds the set; macOS has written a hidden file for each."""
    _coco(tmp_path, "annotations.json", "a.png")
    save_images(tmp_path, "a.png", "mine/images/a.png", "mine/images/._a.png")
    for name in ("mine/labels/a.txt", "mine/labels/._a.txt"):
        write_file(tmp_path, name, "0 0.5 0.5 0.5 0.5")
    write_file(tmp_path, "mine/classes.txt", "cell")
    (tmp_path / "mine/loop").symlink_to(tmp_path)
    found = recognise(tmp_path / "mine")
    assert (found.layout.what, found.layout.counts) == (YOLO, {"train": 1})
    dataset = read_yolo(found.root, found.settings["train_split"])
    assert (len(dataset), dataset.report.lines()) == (1, [])


def test_what_is_wrong_with_data_yaml_is_said(tmp_path: Path) -> None:
    save_images(tmp_path, "images/1.png")
    write_file(tmp_path, "labels/1.txt", "0 0.5 0.5 0.5 0.5")
    write_file(tmp_path, "data.yaml", "names: [a\n")
    with pytest.raises(DataError, match=r"data\.yaml: not a readable YAML file"):
        recognise(tmp_path)


def test_other_sets_in_folders_are_named(tmp_path: Path) -> None:
    save_images(tmp_path, "a/1.png", "b/images/1.png", "c/1.png", "c/1_mask.png", "d/1.png", "d/1_mask.png")
    _coco(tmp_path, "a/annotations.json", "1.png")
    write_file(tmp_path, "b/labels/1.txt", "0 0.5 0.5 0.5 0.5")
    found = recognise(tmp_path, "boxes")
    assert found.lines[-2].startswith(
        "other sets in folders, not taken: b (YOLO text), d (folders of images and masks); "
    )
    assert found.lines[-1] == "also there, not taken: folders of images and masks"


def test_labelme_whose_image_comes_first(tmp_path: Path) -> None:
    save_images(tmp_path, "1.png")
    write_file(tmp_path, "1.json", '{"imageData": "' + "A" * (1 << 20) + '", "imagePath": "1.png", "shapes": []}')
    assert recognise(tmp_path, "outlines").layout.name == "labelme"


def test_sets_without_any_object(tmp_path: Path) -> None:
    """YOLO's label files are all empty; a list of VOC has no name but one that looks like a comment."""
    for path in ("yolo/train/images/a.png", "voc/JPEGImages/#1.png"):
        save_image(tmp_path / path, (2, 3))
    texts = {
        "yolo/data.yaml": "names: {0: cat}\ntrain: train/images\n",
        "yolo/train/labels/a.txt": "",
        "voc/ImageSets/Main/train.txt": "#1\n",
        "voc/Annotations/#1.xml": "<annotation><filename>#1.png</filename></annotation>",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = {name: recognise(tmp_path / name).layout for name in ("yolo", "voc")}
    assert [(found[name].what, found[name].counts) for name in found] == [(YOLO, {"train": 1}), (VOC, {"train": 1})]


def test_splits_that_data_yaml_states_and_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    save_images(tmp_path, "train/images/a.jpg")
    write_file(tmp_path, "train/labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "valid/images").mkdir(parents=True)  # empty
    stated = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cell]\n"
    write_file(tmp_path, "data.yaml", stated)
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 1}
    assert {"val_split", "test_split"}.isdisjoint(found.settings)
    assert found.settings["val_fraction"] == 0.2
    assert "left out, since there are no images of it: val (../valid/images), test (../test/images) of data.yaml" in (
        found.lines
    )


def test_lists_of_voc_that_are_empty_or_of_classes_or_name_files(tmp_path: Path) -> None:
    write_file(tmp_path, "Annotations/a.xml", "<annotation></annotation>")
    save_images(tmp_path, "JPEGImages/a.jpg")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    found = recognise(tmp_path)
    assert (found.root, found.settings["train_split"]) == (tmp_path, ".")
    assert len(read_voc(tmp_path, ".", classes=["cell"])) == 1
    for name in ("box", "tri"):
        write_file(tmp_path, f"ImageSets/Main/{name}_train.txt", "a.jpg 1\nb.jpg 1\n")
        write_file(tmp_path, f"ImageSets/Main/{name}_val.txt", "c.jpg -1\n")
    found = recognise(tmp_path)
    assert (found.settings["train_split"], found.settings["val_split"]) == (
        "box_train+tri_train",
        "box_val+tri_val",
    )
    assert found.layout.counts == {"train": 2, "val": 1}


def test_voc_in_sub_folders(tmp_path: Path) -> None:
    """Loose files whose images lie elsewhere; lists that name paths, with and without suffix; a test list alone."""
    for split in ("train", "val"):
        write_file(tmp_path, f"loose/annotations/{split}/1.xml", "<annotation></annotation>")
        write_file(tmp_path, f"lists/Annotations/{split}/1.xml", "<annotation></annotation>")
        save_images(tmp_path, f"loose/images/{split}/1.jpg", f"lists/JPEGImages/{split}/1.jpg")
    write_file(tmp_path, "lists/ImageSets/Main/train.txt", "train/1.jpg\n")
    write_file(tmp_path, "lists/ImageSets/Main/val.txt", "val/1\n")
    for name, splits in {
        "loose": ("annotations/train", "annotations/val"),
        "lists": ("train", "val"),
    }.items():
        found = recognise(tmp_path / name)
        assert (found.root, found.layout.counts) == (tmp_path / name, {"train": 1, "val": 1})
        assert (found.settings["train_split"], found.settings["val_split"]) == splits
        for split, own in zip(("train", "val"), splits, strict=True):
            path = read_voc(found.root, own, classes=["cell"]).path(0)
            assert path.parts[-2:] == (split, "1.jpg")
    (tmp_path / "lists/ImageSets/Main/train.txt").rename(tmp_path / "lists/ImageSets/Main/test.txt")
    (tmp_path / "lists/ImageSets/Main/val.txt").unlink()
    with pytest.raises(DataError, match=r"holds several data sets: lists \(Pascal VOC with lists\), loose \("):
        recognise(tmp_path)


def _coco(root: Path, path: str, *names: str, category: str = "cell") -> None:
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4}
    images = [{"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(names)]
    categories = [{"id": 1, "name": category}]
    write_file(root, path, {"images": images, "annotations": [annotation], "categories": categories})


def test_batches_of_coco_are_joined(tmp_path: Path) -> None:
    for batch in ("a", "b"):
        save_images(tmp_path, f"{batch}/1.png", f"{batch}/2.png")
        _coco(tmp_path, f"{batch}/annotations.json", "1.png", "2.png")
    _coco(tmp_path, "b/again.json", "1.png")  # images that are there already
    save_images(tmp_path, "c/1.png")
    _coco(tmp_path, "c/annotations.json", "1.png", category="car")
    found = recognise(tmp_path)
    assert found.layout.counts == {"train": 4}
    assert found.settings["train_annotations"] == ["a/annotations.json", "b/annotations.json"]
    assert found.settings["train_images"] == ["a", "b"]
    assert found.layout.notes == (
        "other files, not taken: b/again.json, c/annotations.json; lists as data.train_annotations and "
        "data.train_images join those that have other images",
    )


@pytest.mark.parametrize(
    ("files", "folders", "also"),
    [
        (["train/a.json", "val/a.json"], {"train": "train/images", "val": "val/images"}, ""),
        (["train/a.json", "valid/a.json"], {"train": "train/data", "val": "valid/data"}, ""),
        (["x/trn.json", "x/dev.json"], {"train": "trn", "val": "dev"}, ""),
        (["train.json", "val.json"], {"train": "images/train", "val": "images/val"}, ""),
        (["sub/a.json"], {"train": "sub/images", "other": "."}, ""),
        (["x/y/train2017.json", "x/y/val2017.json"], {"train": "train2017", "val": "val2017"}, ""),
        (["a.json"], {"train": "data", "other": "blurred"}, "taken from data; blurred holds images of all these names"),
    ],
)
def test_images_of_coco_are_those_near_the_file(
    files: list[str], folders: dict[str, str], also: str, tmp_path: Path
) -> None:
    """Several folders hold images of the same names, that of the training one less."""
    for folder in folders.values():
        save_images(
            tmp_path, *(f"{folder}/{k}.png" for k in range(3 if folder == folders["train"] and not also else 4))
        )
    for file in files:
        _coco(tmp_path, file, "0.png", "1.png", "2.png", "3.png")
    found = recognise(tmp_path)
    splits = [split for split in folders if split != "other"]
    assert [found.settings[f"{split}_images"] for split in splits] == [folders[split] for split in splits]
    assert [also in note for note in found.layout.notes] == ([True] if also else [])


@pytest.mark.parametrize("end", ['{"id": NaN}], "categories": [{"id": 1, "name": "a"}]}', '{"id": 1, "image'])
def test_coco_that_is_no_json_is_said(end: str, tmp_path: Path) -> None:
    save_images(tmp_path, "1.png")
    write_file(tmp_path, "a.json", '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [' + end)
    with pytest.raises(DataError, match=r"a\.json: not a readable JSON file: .*(NaN and no|truncated)"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("files", "names", "folder"),
    [
        (["images/a/1.png", "images/b/2.png"], ["1.png", "2.png"], "images"),
        (["images/1.PNG"], ["1.png"], "images"),
        (["images/1.png", "images/2.png"], ["C:\\x\\1.png", "C:\\x\\2.png"], "images"),
        (["images/a/1.png"], ["a\\1.png"], "images"),
        (["images/gr\u00f6\u00dfe.png"], ["gro\u0308\u00dfe.png"], "images"),
        (["1.png", "a/2.png"], ["1.png", "2.png"], "."),
        # Exact names stay: one image is missing, and others have the names of these.
        (["t/1.png", "t/2.png", "u/1.png", "u/2.png", "v/3.png"], ["1.png", "2.png", "3.png"], None),
    ],
)
def test_names_of_coco_that_are_not_those_of_files(
    files: list[str], names: list[str], folder: str | None, tmp_path: Path
) -> None:
    save_images(tmp_path, *files)
    _coco(tmp_path, "annotations.json", *names)
    found = recognise(tmp_path)
    if folder is None:
        assert "file_names" not in found.settings
        return
    assert (found.settings["train_images"], found.settings["file_names"]) == (folder, "relaxed")
    assert found.lines[2].startswith("not all images are at the names that the annotations give them")
    config = config_from_dict({"model": {"name": "yolo"}, "data": found.settings}, "here", [])
    assert len(open_split(config.data.model_copy(update={"val_fraction": None}), "train")) == len(names)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        (
            "annotations.xml",
            "<annotations><track id='0'></track></annotations>",
            "CVAT for video, which is",
        ),
        ("labelTxt/a.txt", "1.0 2.0 3.0 4.0 5.0 6.0 7.0 8.0 small-car 0", "labelTxt/a.txt looks like DOTA's oriented"),
        ("labels/a.txt", "0.0 0.5 0.5 0.1 0.1", "labels/a.txt looks like YOLO text: a line begins with the whole"),
        ("labels/a.txt", "0 0,5 0,5 0,1 0,1", "labels/a.txt has numbers with commas; of text files"),
        ("labels_mine/a.txt", "0 0.5 0.5 0.1 0.1", "the files lie in a folder labels beside the folder images"),
        (
            "masks/b.png",
            "",
            "there are images without annotations; masks in folders of other names are read by data: ",
        ),
    ],
)
def test_hints_at_what_is_not_read(name: str, text: str, hint: str, tmp_path: Path) -> None:
    save_images(tmp_path, "photos/a.png")
    write_file(tmp_path, name, text)
    with pytest.raises(DataError, match=hint):
        recognise(tmp_path)
