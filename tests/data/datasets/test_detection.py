"""The data set that the readers of boxes and instance masks return, from the file to the batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.data.annotations.issues import DataIssue
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.data.loading.examples import Example, collate, to_item
from detseg.data.loading.loader import eval_loader
from detseg.errors import DataError
from tests.data.formats.layouts import annotation_xml, object_xml, rectangle, write_coco_masks, write_voc
from tests.data.images.painted import edges, letterboxed_labels, save_turned
from tests.shared_data import shared_data


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    xmls = {stem: annotation_xml(object_xml((name, 1, 1, 5, 6))) for stem, name in (("a", "x"), ("b", "y"), ("c", "z"))}
    return read_voc(write_voc(tmp_path, {"train": "a\nb\nc"}, xmls), "train")


def test_positions_and_subset(dataset: DetectionDataset) -> None:
    assert [sample.index for sample in dataset] == [0, 1, 2]
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"image {wrong} of 3 in voc train"):
            dataset[wrong]
    part = dataset.subset([2, 0])
    assert [part.image_id(i) for i in range(len(part))] == [3, 1]
    assert (part[0].index, part[0].labels.tolist(), part.path(1).name) == (0, [2], "a.jpg")
    assert len(dataset.subset([])) == 0


def test_images_that_contradict_their_annotation_or_are_damaged(dataset: DetectionDataset) -> None:
    save_turned(dataset.path(0), np.zeros((20, 10, 3), dtype=np.uint8), 6)
    Image.new("RGB", (21, 10)).save(dataset.path(1))
    dataset.path(2).write_bytes(shared_data("malformed", "images", "truncated_jpeg.jpg").read_bytes())
    for index, message in enumerate((
        r"a\.jpg: the image is 10 x 20 .*says 20 x 10; the sides are swapped: the annotation was probably made before",
        r"b\.jpg: the image is 21 x 10 .*annotation says 20 x 10; restore the image that the annotation was made",
        r"c\.jpg: ",
    )):  # fmt: skip
        with pytest.raises(DataError, match=message):
            dataset[index]


RUNS = {"size": [6, 8], "counts": [6, 12, 30]}


def entry(category_id: int, segmentation: object, *corners: int, **more: object) -> dict[str, Any]:
    x1, y1, x2, y2 = corners or (0, 0, 8, 6)
    return {"category_id": category_id, "segmentation": segmentation, "bbox": [x1, y1, x2 - x1, y2 - y1], **more}


def test_only_what_a_mask_has_can_be_trained_on(tmp_path: Path) -> None:
    speck = [[1.2, 1.2, 1.3, 1.2, 1.3, 1.3]]  # between the centres of pixels
    entries = [
        entry(3, rectangle(1, 1, 4, 3), 0, 0, 5, 5),  # the stated box is larger than the mask
        entry(4, speck, 1, 1, 2, 2),
        entry(4, RUNS, 1, 0, 3, 6, iscrowd=1),
        entry(4, rectangle(5, 2, 8, 6), 5, 2, 5, 6),  # the stated box has no area
    ]
    dataset = read_coco(*write_coco_masks(tmp_path, entries), masks=True)
    truth, sample = dataset.annotations(0), dataset[0]
    assert truth.masks is not None
    assert truth.masks.areas.tolist() == [6, 0, 12, 12]
    assert truth.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 2, 2], [1, 0, 3, 6], [5, 2, 5, 6]]
    assert sample.boxes.tolist() == [[1, 1, 4, 3], [1, 0, 3, 6], [5, 2, 8, 6]]
    assert (sample.labels.tolist(), sample.ignore.tolist()) == ([0, 1, 1], [False, True, False])
    assert sample.masks is not None
    assert sample.masks.counts == (truth.masks.counts[0], *truth.masks.counts[2:])
    assert dataset.report.lines()[:2] == [
        "boxes without area (left out of training, unless masks are learned): 1 (x.png)",
        "masks without a pixel (left out of training): 1 (x.png)",
    ]
    boxes_only = read_coco(tmp_path / "images", tmp_path / "x.json")
    assert boxes_only.annotations(0).masks is boxes_only[0].masks is None
    assert len(boxes_only[0].boxes) == 3


def test_an_annotation_without_a_mask(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [entry(3, rectangle(0, 0, 2, 2)), entry(4, None)])
    with pytest.raises(
        DataError, match=r"1 of 2 annotations .*no usable segmentation \(ids 2\);.*faster_rcnn needs no"
    ):
        read_coco(*folders, masks=True)
    assert len(read_coco(*folders)) == 1  # boxes need none
    assert len(read_coco(*folders, classes=["a"], masks=True)) == 1  # nor do classes that are left out


def with_wrong_segmentation(root: Path, image: int) -> tuple[Path, Path]:
    """A COCO file of 300 images with one mask each, of which one is wrong; every third is not inspected."""
    images, file = write_coco_masks(root, [entry(3, rectangle(0, 0, 2, 2))])
    content = json.loads(file.read_text())
    for key in ("images", "annotations"):
        content[key] = [content[key][0] | {"id": i} for i in range(300)]
    for i, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = i
    content["annotations"][image]["segmentation"] = [[1, 2, 3, 4, 5]]
    file.write_text(json.dumps(content))
    return images, file


def test_a_wrong_segmentation_is_an_error_when_it_is_decoded(tmp_path: Path) -> None:
    message = r"x\.json: annotation 1: segmentation: a polygon needs x and y of at least 3 corners, got 5 numbers"
    with pytest.raises(DataError, match=message):
        read_coco(*with_wrong_segmentation(tmp_path, 1), masks=True)
    skipping = read_coco(*with_wrong_segmentation(tmp_path, 1), masks=True, skip_bad=True).report.lines()
    assert any("with wrong masks, which the training will skip: 1 of 200; the first: " in line for line in skipping)
    dataset = read_coco(*with_wrong_segmentation(tmp_path, 2), masks=True)
    assert "images whose masks were decoded when opened: 200 of 300, evenly spread" in dataset.report.lines()
    for use in (dataset.annotations, dataset.__getitem__):
        with pytest.raises(DataError, match="annotation 2: segmentation"):
            use(2)


def test_an_area_that_is_not_stated_is_that_of_the_mask(tmp_path: Path) -> None:
    entries = [entry(4, rectangle(1, 1, 4, 3), 0, 0, 5, 5), entry(3, RUNS, 0, 0, 5, 5, area=7.5)]
    folders = write_coco_masks(tmp_path, [*entries, entry(4, rectangle(0, 0, 8, 6), 1, 1, 2, 2)])
    dataset = read_coco(*folders, masks=True)
    assert dataset.annotations(0).area.tolist() == [6, 7.5, 48]
    assert dataset.report.examples(DataIssue.AREA_NOT_STATED) == ["annotation 1", "annotation 3"]
    assert read_coco(*folders).annotations(0).area.tolist() == [25, 7.5, 1]
    assert read_coco(*folders, classes=["a"], masks=True).report.count(DataIssue.AREA_NOT_STATED) == 0


def test_evaluation_batches_hold_letterboxed_masks() -> None:
    folder, seen = shared_data("dsb2018_nuclei"), []
    whole = read_coco(folder / "images", folder / "annotations" / "instances_val.json", masks=True)
    for batch in eval_loader(whole.subset(range(24, -1, -6)), input_hw=(96, 160), batch_size=2, num_workers=0):
        parts = zip(batch.targets, batch.letterboxes, batch.annotations, batch.indices, strict=True)
        for target, letterbox, objects, index in parts:
            truth = whole.annotations(24 - 6 * index).masks
            assert truth is not None
            assert objects.masks == truth
            full = [letterboxed_labels(mask.view(np.uint8), letterbox) == 1 for mask in truth.dense()]
            assert target.masks is not None
            np.testing.assert_array_equal(target.masks.numpy(), np.array([mask for mask in full if mask.any()]))
            assert target.boxes.tolist() == [edges(mask) for mask in target.masks.numpy()]
            seen.append(index)
    assert seen == list(range(5))


def test_images_without_objects_have_masks_and_a_batch_has_them_of_all_images_or_of_none(tmp_path: Path) -> None:
    folders = write_coco_masks(tmp_path, [])
    with_masks, without = (read_coco(*folders, masks=masks) for masks in (True, False))
    (batch,) = eval_loader(with_masks, input_hw=(32, 64), batch_size=1, num_workers=0)
    assert batch.targets[0].masks is not None
    assert batch.targets[0].masks.shape == (0, 32, 64)
    examples = [Example(to_item(dataset[0]), 0) for dataset in (with_masks, without)]
    with pytest.raises(ValueError, match="masks: expected it in all images of a batch or in none, got 1 of 2"):
        collate(examples)
