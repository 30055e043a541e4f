"""Annotation files expand nothing, exhaust nothing, and name no file outside of their images' folder."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detseg.data.annotations.classes import mask_class_table
from detseg.data.formats.coco import read_coco
from detseg.data.formats.instances_to_labels import read_coco_masks
from detseg.data.formats.voc import read_voc, read_voc_masks
from detseg.data.formats.voc_xml import read_voc_xml
from detseg.errors import DataError
from tests.data.formats.voc_layout import annotation_xml, object_xml, simple_voc

MEGABYTE = 1 << 20


@contextmanager
def no_more_than(num_bytes: int) -> Iterator[None]:
    """Measures what Python and numpy allocate."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < num_bytes
    finally:
        tracemalloc.stop()


def refused(path: Path, reason: str) -> Any:
    """Expects one printable line that names the file."""
    return pytest.raises(DataError, match=rf"^{path}: .*{reason}")


BILLION = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10))
XML = {
    "a billion laughs": f"<!DOCTYPE annotation [{BILLION}]>{annotation_xml('&l9;')}",
    "a quadratic blow-up": f'<!DOCTYPE a [<!ENTITY a "{"a" * 50_000}">]>{annotation_xml("&a;" * 50_000)}',
    "a file from outside": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + annotation_xml("&x;"),
    "an address": '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">' + annotation_xml(""),
    "parameter entities": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]>' + annotation_xml(""),
}


@pytest.mark.parametrize("text", XML.values(), ids=list(XML))
def test_no_entity_is_expanded(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with no_more_than(MEGABYTE), refused(path, "document types and entities are not read; remove <!DOCTYPE"):
        read_voc_xml(path)


def test_an_unknown_entity_and_a_nul_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for text in ("&l9;", "\0", "\x1b[31m", "&#0;", "&#27;"):
        path.write_text(annotation_xml(object_xml((text, 1, 1, 2, 2))))
        with refused(path, "not a readable XML file"):
            read_voc_xml(path)


def test_elements_of_any_depth_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(annotation_xml("<part>" * 100_000 + "</part>" * 100_000 + object_xml(("cat", 1, 1, 2, 2))))
    assert read_voc_xml(path).names == ("cat",)


@pytest.mark.parametrize("number", ["nan", "inf", "-1e999", "9" * 5000, "1e16"])
def test_numbers_that_are_no_pixels_are_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(annotation_xml(f"<object><name>cat</name><bndbox><xmin>{number}</xmin></bndbox></object>"))
    with refused(path, "xmin of the object 'cat': expected a number, got"):
        read_voc_xml(path)


def coco(folder: Path, **changes: Any) -> Path:
    """A COCO file of one picture of 4 x 4 with one object, and the picture; entries of the lists may be changed."""
    (folder / "images").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "images" / "a.png")
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 4} | changes.get("image", {})],
        "categories": [{"id": 1, "name": "cat"} | changes.get("category", {})],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2]]}
            | changes.get("annotation", {})
        ],
    }
    path = folder / "a.json"
    path.write_text(json.dumps(content))
    return path


def test_what_the_tests_below_change_is_right(tmp_path: Path) -> None:
    file = coco(tmp_path)
    assert len(read_coco(tmp_path / "images", file, masks=True)) == 1
    assert len(read_coco_masks(tmp_path / "images", file)) == 1


READERS = {"boxes": read_coco, "masks": lambda *paths: read_coco(*paths, masks=True), "maps": read_coco_masks}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "expected a list of objects under 'images'"),
        ('{"images":' * 100_000, "not a readable JSON file|expected a list of objects under 'images'"),
        ('{"x":' * 100_000, "not a readable JSON file"),
        ('{"images": [{"id": ' + "9" * 100_000 + "}]}", "image number 0: id: expected a whole number, got '9999"),
        ("NaN", "not a readable JSON file: .*; JSON has no NaN and no Infinity"),
        ("\0", "not a readable JSON file"),
    ],
    ids=["depth of lists", "depth of a list", "depth of objects", "digits", "NaN", "NUL"],
)
def test_hostile_json_is_one_line(text: str, reason: str, tmp_path: Path) -> None:
    file = coco(tmp_path)
    file.write_text(text)
    with no_more_than(20 * MEGABYTE), refused(file, reason) as caught:
        read_coco(tmp_path / "images", file)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"annotation": {"bbox": [float("nan"), 0, 2, 2]}},
        {"annotation": {"bbox": [0, 0, float("inf"), 2]}},
        {"annotation": {"bbox": [True, False, True, True]}},
        {"annotation": {"area": True}},
        {"image": {"width": True}},
        {"image": {"height": False}},
        {"annotation": {"bbox": [0, 0, 10**400, 2]}},
        {"annotation": {"area": float("-inf")}},
        {"annotation": {"iscrowd": float("nan")}},
        {"annotation": {"image_id": float("nan")}},
        {"annotation": {"id": 2**63}},
        {"image": {"width": float("inf")}},
        {"image": {"id": 10**100}},
        {"category": {"id": float("nan")}},
    ],
    ids=str,
)
def test_numbers_that_mean_nothing_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    file = coco(tmp_path, **changes)
    with refused(file, "(expected|there is no|JSON has no NaN and no Infinity)"):
        read_coco(tmp_path / "images", file)


@each_reader
def test_a_size_of_four_gigapixels_is_refused(read: Any, tmp_path: Path) -> None:
    counts = {"size": [65536, 65536], "counts": [0, 65536 * 65536]}
    file = coco(tmp_path, image={"width": 65536, "height": 65536}, annotation={"segmentation": counts, "iscrowd": 1})
    with no_more_than(MEGABYTE), refused(file, "image 1: width, height: 65536 x 65536 pixels are more than the"):
        read(tmp_path / "images", file)
    shutil.rmtree(tmp_path / "images")
    file = coco(tmp_path, image={"width": 1e14, "height": 0})  # of which the height is not stated
    with refused(file, "image 1: width, height: 100000000000000 x 0 pixels are more than the"):
        read(tmp_path / "images", file)
    shutil.rmtree(tmp_path / "images")
    file = coco(tmp_path, image={"width": 10**9, "height": 10**10})  # whose product is beyond 64 bits
    with refused(file, "image 1: width, height: 1000000000 x 10000000000 pixels"):
        read(tmp_path / "images", file)


OUTSIDE = [
    "../secret.png",
    "b/../../secret.png",
    "./../secret.png",
    "..\\secret.png",
    "b\\..\\..\\secret.png",
    "/etc/passwd",
    "\\\\server\\share\\a.png",
    "C:\\secret.png",
    "C:secret.png",
]


@each_reader
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_picture_outside_the_folder_is_read(name: str, read: Any, tmp_path: Path) -> None:
    file = coco(tmp_path, image={"file_name": name})
    with refused(file, "image 1: file_name: expected a path inside the image folder"):
        read(tmp_path / "images", file)


def test_an_absolute_name_of_a_picture_that_exists(tmp_path: Path) -> None:
    file = coco(tmp_path, image={"file_name": str(tmp_path / "secret.png")})
    with refused(file, "expected a path inside the image folder"):
        read_coco(tmp_path / "images", file)


@each_reader
@pytest.mark.parametrize("name", ["a\0.png", "\0", "b\0/a.png", "\x1b[2J.png", "a.png\n", "x" * 5000])
def test_names_that_no_picture_has_are_one_line(name: str, read: Any, tmp_path: Path) -> None:
    file = coco(tmp_path, image={"file_name": name})
    with pytest.raises(DataError, match=r"missing|file_name") as caught:
        read(tmp_path / "images", file)
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_half_a_pair_of_surrogates_is_no_text(tmp_path: Path) -> None:
    for number, change in enumerate(({"image": {"file_name": "\ud800.png"}}, {"category": {"name": "\ud800"}})):
        (tmp_path / str(number)).mkdir()
        file = coco(tmp_path / str(number), **change)
        with refused(file, "not a readable JSON file"):
            read_coco(tmp_path / str(number) / "images", file)


def test_a_link_that_a_user_made_is_followed(tmp_path: Path) -> None:
    """Data sets are often folders of links; who can write links into the folder can write pictures, too."""
    file = coco(tmp_path)
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "secret.png")
    assert read_coco(tmp_path / "images", file)[0].image.shape == (4, 4, 3)


@pytest.mark.parametrize("name", ["../a", "..\\a", "/etc/passwd", "b/a", "../../JPEGImages/a"])
def test_lists_of_voc_name_no_folder(name: str, tmp_path: Path) -> None:
    simple_voc(tmp_path / "voc")
    (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match=r"train\.txt:1: expected the name of an image without folder and suffix"):
        read_voc(tmp_path / "voc", "train")


@pytest.mark.parametrize("name", ["..", "a\0", "\x1b[2J", "x" * 5000])
def test_names_of_voc_that_no_picture_has_are_one_line(name: str, tmp_path: Path) -> None:
    folder = simple_voc(tmp_path / "voc")
    (folder / "SegmentationClass").mkdir()
    (folder / "ImageSets" / "Segmentation").mkdir()
    for task in ("Main", "Segmentation"):
        (folder / "ImageSets" / task / "train.txt").write_text(f"{name}\n")
    for read in (lambda: read_voc(folder, "train"), lambda: read_voc_masks(folder, "train", classes=("a", "b"))):
        with pytest.raises(DataError, match=r"1 image\(s\) of the list missing") as caught:
            read()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "\\\\server\\a"])
def test_a_filename_in_xml_opens_no_file(name: str, tmp_path: Path) -> None:
    folder = simple_voc(tmp_path / "voc")
    Image.new("RGB", (99, 99)).save(tmp_path / "secret.png")
    xml = annotation_xml(object_xml(("cat", 1, 1, 2, 2)), name)
    (folder / "Annotations" / "a.xml").write_text(xml)
    dataset = read_voc(folder, "train")
    assert dataset.path(0) == folder / "JPEGImages" / "a.jpg"
    assert dataset[0].image.shape == (10, 20, 3)


@pytest.mark.parametrize("name", ["\x1b[31mcat", "two\nlines", "\u202etac", "nul\0", "a\u2028b", "\x9b2J"])
def test_labels_that_are_no_text_are_refused(name: str, tmp_path: Path) -> None:
    file = coco(tmp_path, category={"name": name})
    for read in READERS.values():
        with refused(file, "category 1: the class name .* holds control characters; rename") as caught:
            read(tmp_path / "images", file)
        assert str(caught.value).isprintable()
    with refused(file, "the class name .* holds control characters"):
        read_coco_masks(tmp_path / "images", file, (name, "cat"))


def test_labels_of_voc_and_of_masks_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    for name in ("two\nlines", "\u202etac", "\x9b2J", "a\u2028b"):  # others are no XML
        path.write_text(annotation_xml(object_xml((name, 1, 1, 2, 2))), encoding="utf-8")
        with refused(path, "the class name .* holds control characters"):
            read_voc_xml(path)
    classes = tmp_path / "classes.txt"
    classes.write_text("ground\n\x1b[31mcat\n", encoding="utf-8")
    with refused(classes, r"the class name '\\x1b\[31mcat' holds control characters"):
        mask_class_table(tmp_path, None)
    with pytest.raises(DataError, match=r"data\.classes: the class name"):
        mask_class_table(tmp_path, ("ground", "\x1b[31mcat"))
