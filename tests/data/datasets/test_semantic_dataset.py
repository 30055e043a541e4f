"""What every reader of masks returns, and the look at the masks when it is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from tests.data.formats.mask_layouts import (
    BINARY,
    save_image,
    save_mask,
    write_coco_masks,
    write_pairs,
    write_voc_masks,
)

MASKS = {"a": [[0, 1, 255]], "b": [[1, 1], [0, 0]], "c": [[255, 255]]}


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    return read_voc_masks(write_voc_masks(tmp_path, MASKS), "train", classes=BINARY)


def test_a_sample(dataset: SegmentationDataset) -> None:
    sample = dataset[1]
    assert (sample.index, sample.image_id, sample.hw) == (1, 2, (2, 2))
    assert sample.path == str(dataset.root / "JPEGImages" / "b.jpg")
    assert sample.image.shape == (2, 2, 3)
    assert sample.semantic is not None
    assert sample.semantic.dtype == np.uint8
    assert sample.semantic.tolist() == MASKS["b"]
    columns = (sample.boxes, sample.labels, sample.ignore)
    assert [(column.shape, column.dtype.name) for column in columns] == [
        ((0, 4), "float32"),
        ((0,), "int64"),
        ((0,), "bool"),
    ]
    assert dataset.classes.source_ids == (0, 1)


def test_positions_and_what_evaluation_asks(dataset: SegmentationDataset) -> None:
    source: EvalSource = dataset
    assert [dataset[index].index for index in range(3)] == [0, 1, 2]
    assert [dataset.hw(index) for index in range(3)] == [(1, 3), (2, 2), (1, 2)]
    assert dataset.semantic(-1).tolist() == [[255, 255]]
    assert len(source.annotations(2)) == 0
    assert source.image_id(2) == 3
    for ask in (dataset.__getitem__, dataset.semantic, dataset.annotations, dataset.path, dataset.hw):
        with pytest.raises(IndexError, match="image 3 of 3 in voc train"):
            ask(3)


def test_subset(dataset: SegmentationDataset) -> None:
    part = dataset.subset([2, 0])
    assert [part.image_id(index) for index in range(2)] == [3, 1]
    assert [part.semantic(index).tolist() for index in range(2)] == [MASKS["c"], MASKS["a"]]
    assert part[1].index == 1
    assert part.path(1).name == "a.jpg"
    assert len(dataset.subset([])) == 0


def test_the_report(dataset: SegmentationDataset) -> None:
    assert dataset.report.lines() == [
        "ignored pixels of the masks: 33.3 %",
        "images of which no pixel counts (the whole mask is ignored): 1 (JPEGImages/c.jpg)",
    ]


def test_classes_that_never_occur_are_named(tmp_path: Path) -> None:
    found = read_voc_masks(write_voc_masks(tmp_path, {"a": [[0, 2]]}), "train", classes=["x", "y", "z", "w"])
    assert found.report.lines() == ["classes that no mask shows: 2 (y, w)"]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    root = write_voc_masks(tmp_path, {"a": [[0, 1]], "b": [[0, 1]]})
    save_image(root / "JPEGImages" / "b.jpg", (5, 4))
    with pytest.raises(DataError) as caught:
        read_voc_masks(root, "train", classes=BINARY)
    mask, image = root / "SegmentationClass" / "b.png", root / "JPEGImages" / "b.jpg"
    assert f"{mask}: the mask is 2 x 1 pixels (width x height), but its image {image} is 4 x 5; " in str(caught.value)


def test_a_mask_drawn_before_its_image_was_turned(dataset: SegmentationDataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 1)).save(dataset.path(0), exif=exif)
    with pytest.raises(DataError, match=r"a\.png: the mask is 3 x 1 .* is 1 x 3; the sides are swapped: the mask was"):
        dataset[0]


@pytest.mark.parametrize(
    ("masks", "settings", "message"),
    [
        # mmsegmentation#1609: masks of 0 and 255, read with 255 ignored.
        ({"a": [[0, 255]], "b": [[0]]}, {}, r"a\.png and 1 more: only 'background' and ignored pixels occur, never thing, .*: is 255 the foreground\? set data\.mask_values=\[0, 255\] data\.ignore_index=null"),  # noqa: E501 - one message
        ({"a": [[1, 255]]}, {}, r"a\.png: only 'thing' .*, never background, .*: is 255 the background\? set data\.mask_values=\[255, 1\]"),  # noqa: E501 - one message
        ({"a": [[0, 1]]}, {"values": [1, 2], "ignore_index": 0}, r"never thing, .*: is 0 the foreground\? set data\.mask_values=\[1, 0\]"),  # noqa: E501 - one message
        ({"a": [[255, 255]]}, {"classes": ("x", "y", "z")}, r"all pixels are ignored, .*set data\.ignore_index=null"),
        ({"a": [[255, 255]]}, {}, r"all pixels are ignored, so there is nothing to learn"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_meant_as_they_are_read(
    tmp_path: Path, masks: dict[str, list[list[int]]], settings: dict[str, object], message: str
) -> None:
    root = write_voc_masks(tmp_path, masks)
    with pytest.raises(DataError, match=message) as caught:
        read_voc_masks(root, "train", **{"classes": BINARY, **settings})  # type: ignore[arg-type]  # settings vary
    assert "\n" not in str(caught.value)


def test_what_the_trap_is_not(tmp_path: Path) -> None:
    only_background = read_voc_masks(write_voc_masks(tmp_path / "a", {"a": [[0, 0]]}), "train", classes=BINARY)
    assert only_background.report.lines() == ["classes that no mask shows: 1 (thing)"]
    write_voc_masks(tmp_path / "b", {"a": [[0, 255]]})
    mended = read_voc_masks(tmp_path / "b", "train", classes=BINARY, values=(0, 255), ignore_index=None)
    assert mended.semantic(0).tolist() == [[0, 1]]
    assert mended.classes.source_ids == (0, 255)


def test_an_even_sample_of_many_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detseg.data.checks.mask_inspection.MAX_INSPECTED", 4)
    images, masks = write_pairs(tmp_path, {f"{k:02}": [[0, 1]] for k in range(10)})
    found = read_mask_folder(images, masks, BINARY)
    assert found.report.lines() == ["masks looked at when opened: 4 of 10, evenly spread"]
    for looked_at in (0, 3, 6, 9):
        save_mask(masks / f"{looked_at:02}.png", [[0, 7]])
        with pytest.raises(DataError, match=rf"{looked_at:02}\.png: values"):
            read_mask_folder(images, masks, BINARY)
        save_mask(masks / f"{looked_at:02}.png", [[0, 1]])
    save_mask(masks / "05.png", [[0, 7]])
    later = read_mask_folder(images, masks, BINARY)  # not looked at, so it comes when it is read
    with pytest.raises(DataError, match=r"05\.png: values"):
        later[5]


def test_the_others_are_looked_at_before_a_sample_is_called_a_trap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detseg.data.checks.mask_inspection.MAX_INSPECTED", 4)
    images, masks = write_pairs(tmp_path, {f"{k:02}": [[0, 255]] for k in range(10)})
    with pytest.raises(DataError, match=r"00\.png and 9 more: only 'background' and ignored pixels occur"):
        read_mask_folder(images, masks, BINARY)
    save_mask(masks / "02.png", [[0, 1]])
    found = read_mask_folder(images, masks, BINARY)
    assert "masks looked at when opened: 6 of 10, evenly spread" in found.report.lines()  # 0, 3, 6, 9, then 1 and 2


def test_coco_masks_are_no_pictures(tmp_path: Path) -> None:
    from detseg.data.formats.instances_to_labels import read_coco_masks

    crowd = {"category_id": 3, "iscrowd": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    found = read_coco_masks(*write_coco_masks(tmp_path, [crowd], names=("a",)))
    assert "ignored pixels of the masks: 33.3 %" in found.report.lines()  # 16 of 48
