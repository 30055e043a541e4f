"""What the look at the masks refuses in a training set, and what it only says of a set that is evaluated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc_masks
from detseg.data.images.read import read_orientation
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import BINARY, Rows, lines_of, save_mask, write_pairs, write_voc_masks

ABC = ("x", "y", "z")


def test_masks_of_0_and_255_with_more_classes_cannot_be_trained_on(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 255]], "b": [[0, 0]]})
    with pytest.raises(DataError) as caught:
        read_voc_masks(tmp_path, "train", classes=ABC)
    text = str(caught.value)
    assert "a.png and 1 more: values {0, 255} with 3 classes, and 255 counts nowhere (data.ignore_index)" in text
    assert "so that only 'x' occurs, never y, z" in text
    assert "found: 0 (75.0 %), 255 (25.0 %)" in text
    assert "set data.mask_values" not in text, "of three classes nobody knows which one 255 is"


def test_two_classes_are_asked_not_told(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 0, 0, 255]]})
    with pytest.raises(DataError) as caught:
        read_voc_masks(tmp_path, "train", classes=BINARY)
    assert "is 255 the foreground? set data.mask_values=[0, 255] data.ignore_index=null; or is it void? add" in str(
        caught.value
    )
    assert "found: 0 (75.0 %), 255 (25.0 %)" in str(caught.value)


def test_colours_that_leave_one_class(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"a": [[0, 9]]})
    colors = ((0, 0, 0), (1, 1, 1))
    with pytest.raises(DataError, match=r"only 'background' occurs beside colours .*found: background \(50.0 %\), ign"):
        read_mask_folder(*folders, BINARY, colors=colors, ignore_colors=((9, 9, 9),))


@pytest.mark.parametrize("names", [BINARY, ABC])
def test_negatives_with_a_void_border_can_be_evaluated_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    masks: dict[str, Rows] = {"a": [[0, 0, 0, 255]], "b": [[0, 0, 0, 255]]}
    table = ClassTable(names, tuple(range(len(names))))
    by_list = read_voc_masks(write_voc_masks(tmp_path / "voc", masks), "train", classes=table)
    by_folder = read_mask_folder(*write_pairs(tmp_path / "folder", masks), table)
    for dataset in (by_list, by_folder):
        text = lines_of(dataset.report)
        assert f"the masks show {names[0]!r} and what counts nowhere, and no other class (0 (75.0 %), 255 (25" in text
        assert "set data" not in text
        assert dataset.report.examples(DataIssue.ABSENT) == list(names[1:])


def test_where_no_pixel_counts_there_is_nothing_to_score(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[255, 255]]})
    with pytest.raises(DataError, match="all pixels are 255, which counts nowhere"):
        read_voc_masks(tmp_path, "train", classes=ClassTable(BINARY, (0, 1)))


def test_some_masks_of_0_and_255_among_good_ones_are_named(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 255]], "b": [[0, 1]], "c": [[255, 0]], "d": [[0, 0]], "e": [[255, 255]]})
    found = read_voc_masks(tmp_path, "train", classes=BINARY)
    assert (
        "masks in which only 'background' and void occur: 2 of 5 (JPEGImages/a.jpg, JPEGImages/c.jpg)"
        in found.report.lines()
    )


def save_turned(path: Path, hw: tuple[int, int], orientation: int) -> None:
    """A black picture whose EXIF block states an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros(hw, dtype=np.uint8)).save(path, exif=exif)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_orientation_that_a_file_states(tmp_path: Path, kind: str, orientation: int) -> None:
    save_turned(tmp_path / f"a.{kind}", (2, 3), orientation)
    assert read_orientation(tmp_path / f"a.{kind}") == orientation
    with pytest.raises(DataError, match="there is no such image"):
        read_orientation(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("image", "mask", "side", "noted"),
    [(3, 1, 3, True), (2, 1, 3, True), (3, 3, 3, False), (6, 1, 2, True), (6, 6, 2, False), (1, 1, 3, False)],
)
def test_an_image_that_is_turned_without_its_mask(
    tmp_path: Path, image: int, mask: int, side: int, noted: bool
) -> None:
    images, masks = write_pairs(tmp_path, {"a": [[0, 1]] * 2, "b": [[0, 1]]})
    save_turned(images / "a.jpg", (2, side), image)
    save_turned(masks / "a.png", (2, side), mask)
    found = read_mask_folder(images, masks, BINARY)
    assert found.report.examples(DataIssue.TURNED) == (["a.jpg"] if noted else [])
    assert (
        "if the masks were drawn on the unturned images, they do not fit): 1 (a.jpg)" in lines_of(found.report)
    ) is (noted)


def test_sides_that_fit_only_the_turned_image_show_that_the_mask_is_upright(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"a": [[0, 1, 1]]})
    save_turned(images / "a.jpg", (3, 1), 6)  # stored 3 high and 1 wide, upright 1 high and 3 wide
    save_mask(masks / "a.png", [[0, 1, 1]])
    assert read_mask_folder(images, masks, BINARY).report.lines() == []
