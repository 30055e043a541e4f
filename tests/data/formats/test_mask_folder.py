"""Pairs of images and masks in folders; image files below folders: every folder once, whatever links lead to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from detseg.config.schema.data import DataConfig, MaskFolderConfig
from detseg.data.annotations.issues import DataIssue
from detseg.data.annotations.mask_names import names_of_masks
from detseg.data.annotations.report import DataReport
from detseg.data.build import open_semantic_split
from detseg.data.datasets.segmentation import without_wrong_maps
from detseg.data.formats.mask_folder import Affixes, read_mask_folder, write_mask_folder
from detseg.data.images.find import find_images
from detseg.errors import DataError
from detseg.predict.files import find_sources
from detseg.structures import ClassTable
from tests.data.formats.layouts import BINARY, save_image, save_mask, write_pairs
from tests.shared_data import shared_data


def test_pairs_by_name_in_folders_of_folders(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"b": [[0, 1]], "town/x.1": [[1]], "town/a": [[1, 0]], "field/a": [[0]]})
    dataset = read_mask_folder(*folders, BINARY)
    found = {dataset.packed.path(index): dataset.semantic(index).tolist() for index in range(len(dataset))}
    assert found == {"b.jpg": [[0, 1]], "field/a.jpg": [[0]], "town/a.jpg": [[1, 0]], "town/x.1.jpg": [[1]]}
    assert [dataset.image_id(index) for index in range(4)] == [1, 2, 3, 4]
    assert dataset[2].path == str(tmp_path / "images" / "town" / "a.jpg")
    assert dataset.report.lines() == []


def test_suffix_and_masks_without_an_image(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"a": [[0, 1]], "b": [[1, 1]]}, suffix="_mask")
    save_mask(masks / "c_mask.png", [[0, 1]])
    save_mask(masks / "._a_mask.png", [[0, 1]])  # what some systems leave in archives
    dataset = read_mask_folder(images, masks, BINARY, "_mask")
    assert len(dataset) == 2
    assert dataset.report.lines() == ["label files and masks without an image (not read): 1 (c_mask.png)"]


def test_one_folder_for_both(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / f"{stem}.png", (1, 2))
        save_mask(tmp_path / f"{stem}_m.png", [[0, 1]])
    dataset = read_mask_folder(tmp_path, tmp_path, BINARY, "_m")
    assert [dataset.path(index).name for index in range(len(dataset))] == ["a.png", "b.png"]
    assert dataset.report.lines() == []
    with pytest.raises(DataError, match=r"images and masks lie in one folder; set data\.mask_suffix"):
        read_mask_folder(tmp_path, tmp_path, BINARY)
    for stem in ("a", "b", "a_m", "b_m"):
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0, 1]])
    assert len(read_mask_folder(tmp_path, tmp_path / "masks", BINARY)) == 4  # the masks are no images


def test_missing_folders_and_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; set data\.root and the masks folder"):
        read_mask_folder(tmp_path, tmp_path / "nowhere", BINARY)
    root = shared_data("formats", "common_semantic_segmentation_dataset", "non_standard_dataset")
    with pytest.raises(DataError, match=r"2 of 2 images have no mask: image_0001\.png, image_0002\.png"):
        read_mask_folder(root / "images", root / "masks", BINARY)


def test_palettes_in_another_order_are_named(tmp_path: Path) -> None:
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    palettes = {"a": (red, green), "b": (red, green, blue), "c": (green, red), "d": (blue, blue)}
    for stem, colors in palettes.items():
        save_image(tmp_path / "images" / f"{stem}.png", (1, 2))
        mask = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
        mask.putpalette([part for color in colors for part in color])
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{stem}.png")
    report = read_mask_folder(tmp_path / "images", tmp_path / "masks", BINARY).report
    what = "c.png: the colour [0, 255, 0] is background, in a.png it is thing"
    assert (report.count(DataIssue.OTHER_PALETTE), report.examples(DataIssue.OTHER_PALETTE)) == (1, [what])
    by_color = read_mask_folder(
        tmp_path / "images", tmp_path / "masks", BINARY, colors=[red, green], ignore_colors=[blue]
    )
    assert by_color.report.count(DataIssue.OTHER_PALETTE) == 0
    assert [by_color.semantic(index).tolist() for index in (0, 2)] == [[[0, 1]], [[1, 0]]]


def test_real_colour_masks() -> None:
    root = shared_data("formats", "common_semantic_segmentation_dataset", "dataset")
    meta = json.loads((root / "dataset_meta.json").read_text())
    names = list(meta["label_map"].values())
    colors = [tuple(color) for color in meta["segmentation_colors"]]
    dataset = read_mask_folder(root / "images", root / "masks", names, colors=colors)
    assert dataset.semantic(0).tolist() == [[3, 3, 5, 3, 3]]  # (0, 128, 192) is the fourth, (128, 64, 128) the sixth
    assert dataset.semantic(1).tolist() == [[1, 1, 1, 4, 4]]
    assert dataset.report.examples(DataIssue.ABSENT) == ["Void", "Archway"]
    with pytest.raises(DataError, match=r"0001\.png: the mask is RGB, .*data\.mask_colors"):
        read_mask_folder(root / "images", root / "masks", names)
    with pytest.raises(
        DataError, match=r"0001\.png: 1 colour.*: \(128, 64, 128\) \(1 px\), nearest Archway \(192, 0, "
    ):
        read_mask_folder(root / "images", root / "masks", names[:5], colors=colors[:5])


def test_names_and_colours_of_a_set_that_lists_them() -> None:
    root = shared_data("formats", "common_semantic_segmentation_dataset")
    folder = root / "dataset"
    dataset = read_mask_folder(folder / "images", folder / "masks", None, root=folder)
    assert dataset.classes.names == ("Void", "Animal", "Archway", "Bicyclist", "Child", "Road")
    assert dataset.semantic(0).tolist() == [[3, 3, 5, 3, 3]]
    folder = root / "non_standard_dataset"
    names = Affixes(image_prefix="image", mask_prefix="gt")
    chosen = [{"moving": ["Animal", "Bicyclist"]}, "Road"]
    dataset = read_mask_folder(folder / "images", folder / "masks", chosen, names=names, root=folder)
    assert dataset.classes == ClassTable(("moving", "Road"), (1, 5))
    assert [dataset.semantic(index).tolist() for index in range(2)] == [[[0, 0, 1, 0, 0]], [[0, 0, 1, 255, 255]]]
    assert dataset.report.lines()[0] == "pixels of classes that data.classes leaves out (ignored): SignSymbol 20.0 %"


def test_prefixes_and_suffixes_on_both_sides(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "sub" / f"im_{stem}_rgb.png", (1, 2))
        save_mask(tmp_path / "sub" / f"gt_{stem}_ids.png", [[0, 1]])
        save_mask(tmp_path / "sub" / f"gt_{stem}_color.png", [[0, 9]])
    names = Affixes("im_", "_rgb", "gt_", "_ids")
    dataset = read_mask_folder(tmp_path, tmp_path, BINARY, names=names)
    assert [dataset.packed.path(index) for index in range(2)] == ["sub/im_a_rgb.png", "sub/im_b_rgb.png"]
    line = "files whose names do not have the prefix and suffix that the settings state (not read): 2"
    assert dataset.report.lines() == [f"{line} ({tmp_path})"]
    with pytest.raises(
        DataError, match=r"none of its 6 images fits; data\.image_prefix and data\.image_suffix say what"
    ):
        read_mask_folder(tmp_path, tmp_path, BINARY, names=Affixes("im", "rgb.", "gt_"))


def test_lists_of_images(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"x/a": [[0, 1]], "x/b": [[1, 0]], "#c": [[0, 0]], "d": [[1, 1]]})
    (tmp_path / "train.txt").write_text("# two of four\nimages/x/b.jpg\n\nimages/d.jpg\n")
    dataset = read_mask_folder(tmp_path / "train.txt", masks, BINARY)
    assert [Path(dataset[k].path).relative_to(images).as_posix() for k in range(2)] == ["d.jpg", "x/b.jpg"]
    assert [dataset.semantic(index).tolist() for index in range(2)] == [[[1, 1]], [[1, 0]]]
    assert dataset.report.lines() == []
    for text, message in (
        ("images/x/z.jpg", r"train\.txt: 1 of 1 images missing: images/x/z\.jpg"),
        ("# none", r"train\.txt: it lists no images"),
        ("../a.jpg", r"train\.txt:1: expected a path below"),
    ):
        (tmp_path / "train.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            read_mask_folder(tmp_path / "train.txt", masks, BINARY)
    save_image(tmp_path / "other" / "d.jpg", (1, 2))
    (tmp_path / "train.txt").write_text("images/d.jpg\nother/d.jpg\n")
    with pytest.raises(DataError, match=r"masks: d\.png fits several images"):
        read_mask_folder(tmp_path / "train.txt", masks, BINARY)


CAT, DOG = [[9, 9, 0, 0]], [[0, 9, 9, 9]]
LAYERS = {
    "folders": {"cat/a": CAT, "dog/a": DOG},
    "suffixes": {"a_cat": CAT, "a-dog": DOG},
    "Label Studio": {
        "task-7-annotation-1-by-1-tag-cat-0": [[9, 0, 0, 0]],
        "task-7-annotation-1-by-1-tag-cat-1": [[0, 9, 0, 0]],
        "task-7-annotation-1-by-1-tag-dog-0": DOG,
    },
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=list(LAYERS))
def test_one_mask_for_each_class(layers: dict[str, list[list[int]]], tmp_path: Path) -> None:
    name = "task-7" if len(layers) == 3 else "a"
    for stem in (name, "empty"):
        save_image(tmp_path / "images" / f"{stem}.jpg", (1, 4))
    for stem, rows in layers.items():
        save_mask(tmp_path / "masks" / f"{stem}.png", rows)
    folders = tmp_path / "images", tmp_path / "masks"
    dataset = read_mask_folder(*folders, None, per_class=True)
    assert dataset.classes == ClassTable(("background", "cat", "dog"), (0, 1, 2))
    found = {Path(dataset[k].path).stem: dataset.semantic(k).tolist() for k in range(2)}
    assert found == {name: [[1, 1, 2, 2]], "empty": [[0, 0, 0, 0]]}  # the cat has fewer pixels
    assert dataset.report.lines() == ["images without a mask of any class, read as background: 1 (empty.jpg)"]
    assert dataset.subset([1, 0]).semantic(0).tolist() == dataset.semantic(1).tolist()
    pets = read_mask_folder(*folders, ["ground", {"pet": ["cat", "dog"]}], per_class=True)
    assert (pets.classes.names, pets.semantic(1 - (name == "a")).tolist()) == (("ground", "pet"), [[1, 1, 1, 1]])
    dogs = read_mask_folder(*folders, ["ground", "dog"], per_class=True)
    assert dogs.semantic(1 - (name == "a")).tolist() == [[0, 1, 1, 1]]
    assert dogs.report.examples(DataIssue.LEFT_OUT) == ["cat"]


def test_masks_of_one_class_that_are_wrong(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    save_image(images / "a.jpg", (1, 4))
    save_mask(masks / "b_cat.png", CAT)
    with pytest.raises(
        DataError, match=r"masks: no mask of one class has the name of an image \(b_cat\.png\); expected"
    ):
        read_mask_folder(images, masks, None, per_class=True)
    save_mask(masks / "a_cat_1.png", [[0, 3, 200, 255]])
    with pytest.raises(
        DataError, match=r"the values \{0, 3, 200, 255\}, expected 0 and another; .*data\.mask_threshold"
    ):
        read_mask_folder(images, masks, ["background", "cat"], per_class=True)
    dataset = read_mask_folder(images, masks, ["background", "cat"], per_class=True, threshold=128)
    assert dataset.semantic(0).tolist() == [[0, 0, 1, 1]]
    assert dataset.report.lines() == ["label files and masks without an image (not read): 1 (b_cat.png)"]
    save_mask(masks / "a_cat_1.png", [[0, 3, 3, 0]])
    save_mask(masks / "a_cat_2.png", [[0, 3, 0]])
    with pytest.raises(
        DataError, match=r"a_cat_2\.png: the mask is 3 x 1 pixels .*, but another of its image is 4 x 1"
    ):
        read_mask_folder(images, masks, ["background", "cat"], per_class=True)


def test_a_tolerant_report_leaves_out_what_has_no_mask(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"a": [[0, 1]], "b": [[0, 1]], "c": [[0, 77]]})
    (folders[1] / "b.png").unlink()
    report = DataReport(True)
    dataset = read_mask_folder(*folders, BINARY, report=report)
    assert (len(dataset), report.count(DataIssue.NO_MASK)) == (2, 1)
    assert report.count(DataIssue.WRONG_MASK) == 1
    assert write_mask_folder({"val": without_wrong_maps(dataset)}, tmp_path / "copy") == []
    assert report.examples(DataIssue.WRONG_MASK) == ["c.jpg"]
    assert len(read_mask_folder(tmp_path / "copy/val/images", tmp_path / "copy/val/masks", BINARY)) == 1


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    maps = {"a": [[0, 7, 255]], "x/a": [[7, 7, 0]], "x/ü 1": [[255, 7, 0]], ".h": [[0, 0, 7]]}
    masks = {stem: rows for stem, rows in maps.items() if stem != ".h"}
    folders = write_pairs(tmp_path, masks)
    save_image(folders[0] / "x" / "b.png", (1, 3))
    save_mask(folders[1] / "x" / "b.tif", [[7, 7, 7]])
    dataset = read_mask_folder(*folders, ("sky", "road #1"), values=(0, 7), report=DataReport(True))
    lost = write_mask_folder({"train": dataset, "val": dataset.subset([1])}, tmp_path / "copy", link=True)
    assert lost == ["values of the classes, [0, 7]: written as 0 to 1"]
    config = MaskFolderConfig(name="mask_folder", root=tmp_path / "copy")
    train, val = open_semantic_split(config, "train"), open_semantic_split(config, "val")
    assert train.classes.names == dataset.classes.names
    assert [train.packed.path(k) for k in range(4)] == [dataset.packed.path(k) for k in range(4)]
    for index in range(4):
        np.testing.assert_array_equal(train.semantic(index), dataset.semantic(index))
        assert Path(train[index].path).is_symlink()
    np.testing.assert_array_equal(val.semantic(0), dataset.semantic(1))
    named = read_mask_folder(*folders, ("# sky", "road"), values=(0, 7))
    write_mask_folder({"train": named}, tmp_path / "other")
    found = names_of_masks(tmp_path / "other")
    assert found is not None
    assert (found.file.name, found.names) == ("dataset_meta.json", ("# sky", "road"))


@pytest.mark.parametrize(
    ("chosen", "expected", "names"),
    [
        (["road", {"vehicle": ["bus", "car"]}], [[255, 0, 1, 1, 255]], ("road", "vehicle")),
        (["sky", "road", "car", "bus"], [[0, 1, 2, 3, 255]], ("sky", "road", "car", "bus")),
        (["car", "sky"], [[1, 255, 0, 255, 255]], ("car", "sky")),
        ([{"heaven": ["sky"]}, {"bus": ["road"]}], [[0, 1, 255, 255, 255]], ("heaven", "bus")),
    ],
)
def test_classes_are_chosen_and_merged(
    chosen: list[Any], expected: list[list[int]], names: tuple[str, ...], tmp_path: Path
) -> None:
    write_pairs(tmp_path / "train", {"a": [[0, 1, 2, 3, 255]]})
    write_pairs(tmp_path / "val", {"a": [[0, 1, 2, 3, 255]]})
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\nbus\n")
    config = MaskFolderConfig.model_validate({"name": "mask_folder", "root": tmp_path, "classes": chosen})
    train = open_semantic_split(config, "train")
    val = open_semantic_split(config, "val", train.classes)
    assert (train.classes.names, val.classes) == (names, train.classes)
    assert train.semantic(0).tolist() == val.semantic(0).tolist() == expected


NAMED = {
    "_classes.csv": ("Pixel Value, Class\n0, sky\n3, car\n5, bus\n", [[0, 3, 5]]),
    "labelmap.txt": ("# label:color_rgb:parts:actions\nsky:0,0,0::\ncar:3,3,3::\nbus:5,6,7::\n", [[0, 1, 2]]),
    "class_dict.csv": ("name,r,g,b\nsky,0,0,0\ncar,3,3,3\nbus,5,6,7\n", [[[0] * 3, [3] * 3, [5, 6, 7]]]),
    "dataset.json": ('{"labels": {"sky": 0, "car": 3, "bus": 5}}', [[0, 3, 5]]),
    "dataset_meta.json": ('{"label_map": {"0": "sky", "1": "car", "2": "bus"}}', [[0, 1, 2]]),
}
"""Files that name classes, and values or colours of masks."""


@pytest.mark.parametrize("layout", ["mask_folder", "voc"])
@pytest.mark.parametrize("file", NAMED)
def test_classes_are_chosen_by_the_names_in_any_file(file: str, layout: str, tmp_path: Path) -> None:
    text, codes = NAMED[file]
    folders = ("JPEGImages", "SegmentationClass") if layout == "voc" else ("train/images", "train/masks")
    save_image(tmp_path / folders[0] / "a.jpg", (1, 3))
    (tmp_path / folders[1]).mkdir(parents=True)
    Image.fromarray(np.array(codes, np.uint8)).save(tmp_path / folders[1] / "a.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / ("train" if file == "_classes.csv" else "") / file).parent.mkdir(exist_ok=True)
    (tmp_path / ("train" if file == "_classes.csv" else "") / file).write_text(text)

    def opened(classes: list[Any] | None) -> tuple[tuple[str, ...], Any]:
        data = {"name": layout, "root": tmp_path, "classes": classes}
        found = open_semantic_split(TypeAdapter[DataConfig](DataConfig).validate_python(data), "train")
        return found.classes.names, found.semantic(0).tolist()

    assert opened(None) == (("sky", "car", "bus"), [[0, 1, 2]])
    assert opened(["bus", {"x": ["car", "sky"]}]) == (("bus", "x"), [[1, 1, 0]])
    assert opened(["bus", "sky"]) == (("bus", "sky"), [[1, 255, 0]])
    with pytest.raises(DataError, match=rf"{file}: the class 'bsu' is not among its classes \(did you mean 'bus'\?\)"):
        opened(["bsu", "sky"])


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"a": [[0, 1, 2, 3]], "b": [[0, 0, 2, 255]]})
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\nbus\n")
    dataset = read_mask_folder(*folders, ["sky", "road"], root=tmp_path)
    assert dataset.report.lines() == [
        "pixels of classes that data.classes leaves out (ignored): car 25.0 %, bus 12.5 %",
        "ignored pixels of the masks: 50.0 %",
        "masks that show one class and ignored pixels, and nothing else: 1 (b.jpg)",
    ]
    message = r"only 'sky' and ignored pixels occur, never bus, .*: data\.classes leaves out the others; choose one of"
    (folders[1] / "a.png").unlink()
    report = DataReport(True)  # a check goes on
    assert len(read_mask_folder(*folders, ["sky", "bus"], root=tmp_path, report=report)) == 1
    (useless,) = [found for found in report.findings() if found.issue == DataIssue.NOTHING_TO_LEARN]
    assert re.search(message, useless.examples[0].detail)
    (folders[0] / "a.jpg").unlink()
    with pytest.raises(DataError, match=message):
        read_mask_folder(*folders, ["sky", "bus"], root=tmp_path)


LINKS: dict[str, tuple[dict[str, str], list[str]]] = {
    "to the folder itself": ({"images/loop": "images"}, []),
    "to a parent": ({"images/a/up": "images", "images/a/top": ".", "images/a/root": "/"}, []),
    "to a real sub-folder": ({"images/_first": "images/a", "images/z": "images/a"}, []),
    "one to an outside folder": ({"images/more": "far"}, ["more/1.png", "more/deep/2.png"]),
    "two to one outside folder": ({"images/m": "far", "images/n": "far"}, ["m/1.png", "m/deep/2.png"]),
    "to a folder in another linked one": ({"images/m": "far/deep", "images/n": "far"}, ["m/2.png", "n/1.png"]),
    "to itself": ({"images/x": "images/x"}, []),
    "two folders in a circle": ({"images/a/x": "images/b", "images/b/y": "images/a"}, []),
    "two outside folders in a circle": (
        {"images/m": "far", "far/to": "near", "near/fro": "far"},
        ["m/1.png", "m/deep/2.png", "m/to/3.png"],
    ),
}
"""Links in a folder ``images`` (link → target); the images that they add."""

OWN = ["0.png", "a/1.png", "b/1.png"]


def write(root: Path, links: Mapping[str, str]) -> Path:
    """A folder ``images`` with the images ``OWN`` and the links, ``masks`` for all, and two folders outside."""
    for name in [*(f"images/{own}" for own in OWN), "far/1.png", "far/deep/2.png", "near/3.png"]:
        save_image(root / name, (1, 2))
    for link, target in links.items():
        (root / link).symlink_to(root / target, target_is_directory=True)
    return root / "images"


@pytest.mark.parametrize(("links", "added"), LINKS.values(), ids=list(LINKS))
def test_links_to_folders_are_followed_once(links: Mapping[str, str], added: list[str], tmp_path: Path) -> None:
    images = write(tmp_path, links)
    expected = sorted(OWN + added)
    assert [path.as_posix() for path in find_images(images)] == expected
    assert [relative.as_posix() for _, relative in find_sources([images])] == expected
    for name in expected:
        save_mask(tmp_path / "masks" / name, [[0, 1]])
    dataset = read_mask_folder(images, tmp_path / "masks", BINARY)
    assert [dataset.packed.path(index) for index in range(len(dataset))] == expected


def test_links_between_masks_and_images_are_not_followed(tmp_path: Path) -> None:
    """Each of the two folders has a link to the other, and to the one that holds both."""
    images = write(tmp_path, {"images/masks": "masks", "images/all": "."})
    for name in OWN:
        save_mask(tmp_path / "masks" / name, [[0, 1]])
    (tmp_path / "masks" / "images").symlink_to(images, target_is_directory=True)
    dataset = read_mask_folder(images, tmp_path / "masks", BINARY)
    assert len(dataset) == 3
    assert all(np.array_equal(dataset.semantic(index), [[0, 1]]) for index in range(3))


def test_names_alone_decide(tmp_path: Path) -> None:
    (tmp_path / "folder.PNG").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    for name in ("a.PNG", "notes.txt", "._a.PNG", "__MACOSX/a.PNG"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")  # an error once it is read, not overlooked
    assert [path.name for path in find_images(tmp_path)] == ["a.PNG", "gone.jpg"]
