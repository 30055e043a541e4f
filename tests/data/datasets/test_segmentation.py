"""The data set that every reader of masks returns: samples, its inspection when opened, weights of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.contract import EvalSource
from detseg.data.datasets.segmentation import SegmentationDataset, median_frequency_weights
from detseg.data.formats.coco import read_coco_masks
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.formats.voc import read_voc_masks
from detseg.errors import DataError
from detseg.structures import ClassTable
from tests.data.formats.layouts import (
    BINARY,
    Rows,
    lines_of,
    save_image,
    save_mask,
    write_coco_masks,
    write_pairs,
    write_voc_masks,
)
from tests.data.images.painted import save_turned

MASKS = {"a": [[0, 1, 255]], "b": [[1, 1], [0, 0]], "c": [[255, 255]]}


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    return read_voc_masks(write_voc_masks(tmp_path, MASKS), "train", classes=BINARY)


def test_a_sample(dataset: SegmentationDataset) -> None:
    sample = dataset[1]
    assert (sample.index, sample.image_id, sample.image.shape) == (1, 2, (2, 2, 3))
    assert sample.path == str(dataset.root / "JPEGImages" / "b.jpg")
    assert sample.semantic is not None
    assert (sample.semantic.dtype, sample.semantic.tolist()) == (np.uint8, MASKS["b"])
    columns = [(column.shape, column.dtype.name) for column in (sample.boxes, sample.labels, sample.ignore)]
    assert columns == [((0, 4), "float32"), ((0,), "int64"), ((0,), "bool")]
    assert dataset.classes.source_ids == (0, 1)
    assert dataset.report.lines() == [
        "ignored pixels of the masks: 33.3 %",
        "images of which no pixel counts (the whole mask is ignored): 1 (JPEGImages/c.jpg)",
    ]


def test_positions_subset_and_what_evaluation_asks(dataset: SegmentationDataset) -> None:
    source: EvalSource = dataset
    assert dataset.semantic(-1).tolist() == [[255, 255]]
    assert len(source.annotations(2)) == 0
    assert source.image_id(2) == 3
    for ask in (dataset.__getitem__, dataset.semantic, dataset.annotations, dataset.path):
        with pytest.raises(IndexError, match="image 3 of 3 in voc train"):
            ask(3)
    part = dataset.subset([2, 0])
    assert [(part.image_id(k), part.semantic(k).tolist()) for k in range(2)] == [(3, MASKS["c"]), (1, MASKS["a"])]
    assert (part[1].index, part.path(1).name) == (1, "a.jpg")


def test_a_mask_of_another_size(dataset: SegmentationDataset) -> None:
    mask, image = dataset.root / "SegmentationClass" / "b.png", save_image(dataset.path(1), (5, 4))
    expected = f"{mask}: the mask is 2 x 2 pixels (width x height), but its image {image} is 4 x 5; "
    for use in (lambda: dataset[1], lambda: read_voc_masks(dataset.root, "train", classes=BINARY)):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == expected + "restore the image that the mask was made for, or correct the mask"
    save_turned(dataset.path(0), np.zeros((3, 1, 3), dtype=np.uint8), 6)
    with pytest.raises(DataError, match=r"a\.png: the mask is 3 x 1 .* is 1 x 3; the sides are swapped: the mask was"):
        dataset[0]


ABC = ("x", "y", "z")
BLACK, DARK, VOID = (0, 0, 0), (1, 1, 1), (9, 9, 9)


@pytest.mark.parametrize(
    ("masks", "classes", "settings", "message"),
    [
        # mmsegmentation#1609: masks of 0 and 255, read with 255 ignored.
        ({"a": [[0, 255]], "b": [[0]]}, BINARY, {}, "a.png and 1 more: only 'background' and ignored pixels occur, never thing, and one class alone cannot be learned: is 255 the foreground? set data.mask_values=[0, 255] data.ignore_index=null; or is it void? add images that show thing"),  # noqa: E501 - one message
        ({"a": [[1, 255]]}, BINARY, {}, "never background, and one class alone cannot be learned: is 255 the background? set data.mask_values=[255, 1] data.ignore_index=null; or is it void? add images that show background"),  # noqa: E501 - one message
        ({"a": [[0, 1]]}, BINARY, {"values": [1, 2], "ignore_index": 0}, "is 0 the foreground? set data.mask_values=[1, 0] data.ignore_index=null; or is it void? add images that show thing"),  # noqa: E501 - one message
        ({"a": [[0, 255]]}, ABC, {}, "never y, z, and one class alone cannot be learned: is 255 a class? name each class in data.classes and its value in data.mask_values"),  # noqa: E501 - one message
        ({"a": [[0, 9]]}, BINARY, {"colors": (BLACK, DARK), "ignore_colors": (VOID,)}, "is one of data.ignore_colors a class? name it in data.classes and data.mask_colors"),  # noqa: E501 - one message
        ({"a": [[255, 255]]}, ABC, {}, "a.png: all pixels are ignored, so there is nothing to learn or to score; correct the masks or what is ignored"),  # noqa: E501 - one message
        ({"a": [[255]]}, ClassTable(BINARY, (0, 1)), {}, "all pixels are ignored, so there is nothing to learn or to score; correct the masks or what is ignored"),  # noqa: E501 - one message
    ],
)  # fmt: skip
def test_masks_that_cannot_be_meant_as_they_are_read(
    tmp_path: Path, masks: dict[str, Rows], classes: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_mask_folder(*write_pairs(tmp_path, masks), classes, **settings)
    assert str(caught.value).endswith(message)


def test_masks_that_are_no_trap(tmp_path: Path) -> None:
    only_background = read_mask_folder(*write_pairs(tmp_path / "a", {"a": [[0, 0]]}), BINARY)
    assert only_background.report.lines() == ["classes that no mask shows: 1 (thing)"]
    folders = write_pairs(tmp_path / "b", {"a": [[0, 255]]})
    assert read_mask_folder(*folders, BINARY, values=(0, 255), ignore_index=None).semantic(0).tolist() == [[0, 1]]
    crowd = {"category_id": 3, "iscrowd": 1, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    drawn = read_coco_masks(*write_coco_masks(tmp_path, [crowd], names=("a",)))
    assert "ignored pixels of the masks: 33.3 %" in drawn.report.lines()  # 16 of 48; maps that are drawn are as meant


def test_negatives_with_a_void_border_can_be_evaluated_on(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"a": [[0, 0, 0, 255]], "b": [[0, 0, 0, 255]], "e": [[255] * 4]})
    report = read_mask_folder(*folders, ClassTable(ABC, (0, 1, 2))).report
    assert report.lines()[0] == "ignored pixels of the masks: 50.0 %"
    assert report.examples(DataIssue.ONE_CLASS) == ["a.jpg", "b.jpg"]
    assert report.examples(DataIssue.ALL_IGNORED) == ["e.jpg"]
    assert report.examples(DataIssue.ABSENT) == ["y", "z"]


def test_the_first_wrong_mask_is_the_error_with_any_threads(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, masks = write_pairs(tmp_path, {f"{k:02}": [[0, 1]] for k in range(40)})
    for number in (31, 12, 30):
        save_mask(masks / f"{number}.png", [[0, 7]])
    for _ in range(5):
        with pytest.raises(DataError, match=r"12\.png: values"):
            read_mask_folder(images, masks, BINARY)
    found = read_mask_folder(images, masks, BINARY, skip_bad=True)
    assert "which the training will skip: 3 of 40; the first: " in lines_of(found.report)
    assert capfd.readouterr() == ("", "")  # no bar without a terminal


def test_an_even_sample_of_many_masks_and_the_others_before_it_is_called_useless(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {f"{k:03}": [[0, 255]] for k in range(399)})
    with pytest.raises(DataError, match=r"000\.png and 398 more: only 'background' and ignored pixels occur"):
        read_mask_folder(images, masks, BINARY)
    save_mask(masks / "001.png", [[0, 1]])  # not in the sample: every second is
    assert not any("looked at" in line for line in read_mask_folder(images, masks, BINARY).report.lines())
    save_mask(masks / "002.png", [[0, 1]])
    report = read_mask_folder(images, masks, BINARY).report
    assert "masks looked at when opened: 200 of 399, evenly spread" in report.lines()
    save_mask(masks / "001.png", [[0, 7]])  # not looked at, so it comes when it is read
    with pytest.raises(DataError, match=r"001\.png: values"):
        _ = read_mask_folder(images, masks, BINARY)[1]


def test_weights_by_hand(tmp_path: Path) -> None:
    masks: dict[str, Rows] = {"a": [[0, 0, 0, 1, 255]], "b": [[0, 0, 2, 2, 2]], "c": [[255, 255, 0, 0, 0]]}
    dataset = read_voc_masks(write_voc_masks(tmp_path, masks), "train", classes=tuple("xyzw"))
    # Pixels 8, 1, 3 and 0 of the 12, 4 and 5 that are not ignored in the images that show the class; the median of
    # the frequencies 8/12, 1/4 and 3/5 is 3/5; w never occurs.
    assert median_frequency_weights(dataset) == pytest.approx((0.9, 2.4, 1.0, 0.0))


def test_masks_without_labels_or_that_cannot_be_read(tmp_path: Path) -> None:
    dataset = read_mask_folder(*write_pairs(tmp_path, {"a": [[0, 1]], "b": [[255, 255]]}), BINARY)
    with pytest.raises(DataError, match="all pixels of the training masks are ignored"):
        median_frequency_weights(dataset.subset([1]))
    (tmp_path / "masks" / "b.png").write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"b\.png"):
        median_frequency_weights(dataset)
    assert median_frequency_weights(dataset, skip_bad=True) == (1.0, 1.0)
