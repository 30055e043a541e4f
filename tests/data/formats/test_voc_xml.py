"""One VOC annotation file, as exports really write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.data.formats.voc import VocAnnotation, read_voc_xml
from detseg.data.formats.voc_writer import write_voc_xml
from tests.data.formats.voc_layout import annotation_xml, object_xml


def parse(tmp_path: Path, text: str) -> VocAnnotation:
    (tmp_path / "a.xml").write_text(text)
    return read_voc_xml(tmp_path / "a.xml")


def test_corners_become_zero_based_and_half_open(tmp_path: Path) -> None:
    found = parse(tmp_path, annotation_xml(object_xml(("cat", 1, 1, 20, 10)) + object_xml(("dog", 5.5, 6, 5.5, 6))))
    # A box over the whole 20 x 10 image, and one of a single pixel.
    assert found.boxes.tolist() == [[0, 0, 20, 10], [4.5, 5, 5.5, 6]]
    assert found.names == ("cat", "dog")
    assert found.hw == (10, 20)


def test_flags(tmp_path: Path) -> None:
    flags = [
        "<difficult>1</difficult><truncated>0</truncated>",
        "<difficult>0</difficult><truncated>1</truncated>",
        "<difficult/><truncated>Unspecified</truncated>",
        "",
    ]
    found = parse(tmp_path, annotation_xml("".join(object_xml(("cat", 1, 1, 2, 2), extra) for extra in flags)))
    assert found.difficult.tolist() == [True, False, False, False]
    assert found.truncated.tolist() == [False, True, False, False]


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    before = parse(tmp_path, annotation_xml(object_xml(("person", 4, 5, 6, 7), part)))
    assert before.names == ("person",)
    assert before.boxes.tolist() == [[3, 4, 6, 7]]


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0.4</width><height>40</height></size>"])
def test_missing_or_zero_sizes_are_not_stated(tmp_path: Path, size: str) -> None:
    assert parse(tmp_path, f"<annotation>{size}</annotation>").hw is None


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    written = VocAnnotation(
        filename="a & b.jpg",
        hw=(10, 20),
        names=("cat", "größe <1>"),
        boxes=np.array([[0, 0, 20, 10], [0.1234, 2.5, 3.9996, 4]]),
        difficult=np.array([True, False]),
        truncated=np.array([False, True]),
    )
    write_voc_xml(tmp_path / "a.xml", written, folder="pictures", segmented=True, scores=[0.5, 1.0])
    read = read_voc_xml(tmp_path / "a.xml")
    assert (read.filename, read.hw, read.names) == (written.filename, written.hw, written.names)
    assert read.difficult.tolist() == [True, False]
    assert read.truncated.tolist() == [False, True]
    np.testing.assert_allclose(read.boxes, [[0, 0, 20, 10], [0.123, 2.5, 4, 4]], atol=1e-9)
    text = (tmp_path / "a.xml").read_text(encoding="utf-8")
    for element in ("xmin>1.123", "xmax>20<", "folder>pictures", "segmented>1", "score>0.500000", "score>1.000000"):
        assert f"<{element}" in text


def test_a_box_thinner_than_a_pixel_is_written_one_pixel_wide(tmp_path: Path) -> None:
    boxes = [[4.0, 2, 4.5, 7], [0, 0.2, 20, 0.4], [19.9, 9.5, 20, 10], [3.3, 3, 3.3, 4]]
    flags = np.zeros(4, dtype=np.bool_)
    write_voc_xml(tmp_path / "a.xml", VocAnnotation("a.jpg", (10, 20), ("cat",) * 4, np.array(boxes), flags, flags))
    # A pixel about the centre, 4.25 +- 0.5; at the border the first and the last pixel of the image.
    expected = [[3.75, 2, 4.75, 7], [0, 0, 20, 1], [19, 9, 20, 10], [2.8, 3, 3.8, 4]]
    np.testing.assert_allclose(read_voc_xml(tmp_path / "a.xml").boxes, expected, atol=1e-9)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    flag = np.zeros(1, dtype=np.bool_)
    with pytest.raises(ValueError, match="written with the size of its image"):
        write_voc_xml(tmp_path / "a.xml", VocAnnotation("a.jpg", None, ("cat",), np.ones((1, 4)), flag, flag))
    annotation = VocAnnotation("a", (1, 1), ("cat",), np.ones((1, 4)), flag, flag)
    with pytest.raises(ValueError, match="a score for each of 1 objects, got 2"):
        write_voc_xml(tmp_path / "a.xml", annotation, scores=[0.1, 0.2])
    assert not (tmp_path / "a.xml").exists()
