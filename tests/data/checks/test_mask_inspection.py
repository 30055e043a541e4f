"""What inspecting the masks refuses in a training set, and what it only reports of a set that is evaluated on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import BINARY, Rows, lines_of, save_mask, write_pairs, write_voc_masks

ABC = ("x", "y", "z")


def test_masks_of_0_and_255_are_asked_about(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 255]], "b": [[0, 0]]})
    with pytest.raises(DataError) as two:
        read_voc_masks(tmp_path, "train", classes=BINARY)
    assert str(two.value).endswith(
        "a.png and 1 more: only 'background' and ignored pixels occur, never thing, and one class alone cannot be "
        "learned: is 255 the foreground? set data.mask_values=[0, 255] data.ignore_index=null; or is it void? add "
        "images that show thing (found: 0 (75.0 %), 255 (25.0 %))"
    )
    with pytest.raises(DataError, match="only 'x' and ignored pixels occur, never y, z, and one class alone") as three:
        read_voc_masks(tmp_path, "train", classes=ABC)
    assert "set data.mask_values" not in str(three.value), "of three classes nobody knows which one 255 is"


def test_colours_that_leave_one_class(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"a": [[0, 9]]})
    colors = ((0, 0, 0), (1, 1, 1))
    with pytest.raises(DataError, match=r"only 'background' and ignored .*found: background \(50.0 %\), ignored \(50"):
        read_mask_folder(*folders, BINARY, colors=colors, ignore_colors=((9, 9, 9),))


@pytest.mark.parametrize("names", [BINARY, ABC])
def test_negatives_with_a_void_border_can_be_evaluated_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    masks: dict[str, Rows] = {"a": [[0, 0, 0, 255]], "b": [[0, 0, 0, 255]]}
    table = ClassTable(names, tuple(range(len(names))))
    by_list = read_voc_masks(write_voc_masks(tmp_path / "voc", masks), "train", classes=table)
    by_folder = read_mask_folder(*write_pairs(tmp_path / "folder", masks), table)
    for dataset in (by_list, by_folder):
        assert "ignored pixels of the masks: 25.0 %" in dataset.report.lines()
        assert "set data" not in lines_of(dataset.report)
        assert dataset.report.count(DataIssue.ONE_CLASS) == 2
        assert dataset.report.examples(DataIssue.ABSENT) == list(names[1:])


def test_where_all_pixels_are_ignored_there_is_nothing_to_score(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[255, 255]]})
    with pytest.raises(
        DataError, match=r"all pixels are ignored, so .*; set data\.ignore_index=null if 255 is a class"
    ):
        read_voc_masks(tmp_path, "train", classes=ClassTable(BINARY, (0, 1)))


def test_some_masks_of_0_and_255_among_good_ones_are_named(tmp_path: Path) -> None:
    write_voc_masks(tmp_path, {"a": [[0, 255]], "b": [[0, 1]], "c": [[255, 0]], "d": [[0, 0]], "e": [[255, 255]]})
    found = read_voc_masks(tmp_path, "train", classes=BINARY)
    assert found.report.examples(DataIssue.ONE_CLASS) == ["JPEGImages/a.jpg", "JPEGImages/c.jpg"]
    assert found.report.examples(DataIssue.ALL_IGNORED) == ["JPEGImages/e.jpg"]


def test_the_first_wrong_mask_is_the_error_whatever_the_threads_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = write_pairs(tmp_path, {f"{k:02}": [[0, 1]] for k in range(40)})
    for number in (31, 12, 30):
        save_mask(masks / f"{number}.png", [[0, 7]])
    for _ in range(5):
        with pytest.raises(DataError, match=r"12\.png: values"):
            read_mask_folder(images, masks, BINARY)
    found = read_mask_folder(images, masks, BINARY, skip_bad=True)
    assert "which the training will skip: 3 of 40; the first: " in lines_of(found.report)
    assert capfd.readouterr() == ("", "")  # no bar without a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    read_mask_folder(images, masks, BINARY, skip_bad=True)
    assert "checking masks" in capfd.readouterr().err


def save_turned(path: Path, hw: tuple[int, int], orientation: int) -> None:
    """A black picture whose EXIF block states an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros(hw, dtype=np.uint8)).save(path, exif=exif)


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


def test_sides_that_fit_only_the_turned_image_show_that_the_mask_is_upright(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"a": [[0, 1, 1]]})
    save_turned(images / "a.jpg", (3, 1), 6)  # stored 3 high and 1 wide, upright 1 high and 3 wide
    save_mask(masks / "a.png", [[0, 1, 1]])
    assert read_mask_folder(images, masks, BINARY).report.lines() == []
