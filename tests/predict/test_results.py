"""Results: NumPy arrays that are sliced, drawn, shown and converted, without torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageShow
from pycocotools import mask as referee
from pycocotools.coco import COCO

from detseg.draw import class_color, draw_boxes, draw_semantic
from detseg.errors import DataError, DetsegError
from detseg.predict import Detections, SegmentationMap
from detseg.structures import ClassTable, InstanceMasks, UInt8Array

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ClassTable(("cat", "dog", "emu"), (18, 17, 3))
DENSE = np.zeros((4, 30, 40), dtype=np.bool_)
for number in range(4):
    DENSE[number, number : number + 2, number : 2 * number + 3] = True  # areas 6, 8, 10, 12
MASKS = InstanceMasks.from_dense(DENSE)
GREY = np.full((30, 40, 3), 90, dtype=np.uint8)


def found(masks: InstanceMasks | None = MASKS, image: UInt8Array | None = GREY, **others: Any) -> Detections:
    """Four detections whose boxes and scores say which they are."""
    boxes = np.arange(4, dtype=np.float32)[:, None] + np.array([0, 0, 12, 12], dtype=np.float32)
    columns = {"boxes": boxes, "scores": np.array([0.875, 0.5, 0.25, 0.125], np.float32), "classes": CLASSES}
    return Detections(**(columns | {"labels": np.array([2, 0, 1, 0]), "masks": masks, "image": image} | others))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ([True, False, False, True], [0, 3]),
        ([False] * 4, []),
        ([3, 0, 0], [3, 0, 0]),
        ([-1, 1], [3, 1]),
        ([], []),
        (slice(1, 3), [1, 2]),
        (slice(4, None), []),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (2, [2]),
        (-4, [0]),
        (np.int64(1), [1]),
    ],
)
def test_slices(index: Any, expected: list[int]) -> None:
    for form in [index, np.array(index)] if isinstance(index, list) else [index]:
        some = found()[form]
        assert some.boxes[:, 0].tolist() == expected
        assert len(some) == len(some.names) == len(expected)
        assert some.masks == MASKS.select(expected)
        assert some.classes is CLASSES
        assert some.image is GREY


def test_by_score_one_by_one_and_out_of_range() -> None:
    assert found()[found().scores > 0.4].names == ["emu", "cat"]
    assert [one.names[0] for one in found()] == ["emu", "cat", "dog", "cat"]
    assert list(found()[:0]) == []
    assert found(None)[:2].masks is None
    for index in (4, -5, np.array([True, False])):
        with pytest.raises(IndexError):
            found()[index]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"boxes": np.zeros((4, 4))}, r"boxes: expected float32 of shape \(4, 4\), got float64 of \(4, 4\)"),
        ({"boxes": np.zeros((4, 5), np.float32)}, r"boxes: expected float32 of shape \(4, 4\)"),
        ({"scores": np.zeros(3, np.float32)}, r"scores: expected float32 of shape \(4,\), got float32 of \(3,\)"),
        ({"labels": np.zeros(4, np.int32)}, r"labels: expected int64 of shape \(4,\)"),
        ({"masks": MASKS.select([0])}, "masks: expected one for each of 4 boxes, got 1"),
    ],
)
def test_columns_have_their_type_and_shape(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(**wrong)


def test_a_result_says_what_it_holds() -> None:
    assert repr(found()) == "Detections(4 objects: 1 emu 0.88, 2 cat 0.50 0.12, 1 dog 0.25)"
    assert repr(found()[:1]) == "Detections(1 object: 1 emu 0.88)"
    assert repr(found()[:0]) == "Detections(0 objects)"
    assert repr(found(classes=ClassTable(()))[:2]) == "Detections(2 objects: 1 2 0.88, 1 0 0.50)"
    assert repr(found()[[0] * 5]) == "Detections(5 objects: 5 emu 0.88 0.88 0.88 …)"
    labels = np.repeat([[1] * 3 + [0]], 5, axis=0).astype(np.uint8)
    assert repr(SegmentationMap(labels, CLASSES)) == "SegmentationMap(5 x 4 pixels: dog 75.0%, cat 25.0%)"


def test_pycocotools_reads_boxes_and_masks() -> None:
    assert found(None)[:1].to_coco(42) == [
        {"image_id": 42, "category_id": 3, "bbox": [0.0, 0.0, 12.0, 12.0], "score": 0.875}
    ]
    entries = json.loads(json.dumps(found().to_coco(5)))
    truth = COCO()
    categories, images = [{"id": 3}, {"id": 17}, {"id": 18}], [{"id": 5, "height": 30, "width": 40}]
    truth.dataset = {"info": {}, "images": images, "annotations": [], "categories": categories}
    truth.createIndex()
    read = truth.loadRes(entries).dataset["annotations"]
    assert [entry["category_id"] for entry in read] == [3, 18, 17, 18]
    assert [entry["bbox"] for entry in read] == [[i, i, 12, 12] for i in range(4)]
    for entry, mask in zip(read, DENSE, strict=True):
        np.testing.assert_array_equal(referee.decode(entry["segmentation"]), mask)
    with pytest.raises(ValueError, match="no class table"):
        found(classes=ClassTable(())).to_coco(1)
    assert found(classes=ClassTable(()))[:0].to_coco(1) == []


def test_supervision_reads_it() -> None:
    supervision = pytest.importorskip("supervision")
    other = found().to_supervision()
    assert isinstance(other, supervision.Detections)
    np.testing.assert_array_equal(other.xyxy, found().boxes)
    np.testing.assert_array_equal(other.confidence, found().scores)
    np.testing.assert_array_equal(other.mask, DENSE)
    assert other.data["class_name"].tolist() == ["emu", "cat", "dog", "cat"]
    assert len(other[other.class_id == 0]) == 2
    assert len(found()[:0].to_supervision()) == len(found(None)[:0].to_supervision()) == 0


def test_pandas_reads_it() -> None:
    pandas = pytest.importorskip("pandas")
    table = found().to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["name", "label", "score", "x1", "y1", "x2", "y2", "mask_area"]
    assert table.iloc[1].tolist() == ["cat", 0, 0.5, 1, 1, 13, 13, 8]
    assert len(found(None)[:0].to_pandas()) == 0


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_a_library_that_is_not_installed_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say: not to be found
    with pytest.raises(DetsegError, match=rf"^to_{name}\(\) needs {name}; pip install {name}$"):
        getattr(found(), f"to_{name}")()


def segmentation(image: UInt8Array | None = GREY) -> SegmentationMap:
    labels = np.zeros((30, 40), dtype=np.uint8)
    labels[:, 20:] = 2
    return SegmentationMap(labels, ClassTable(("background", "cat", "dog")), image=image)


def test_drawings_have_the_size_of_the_image_and_files_can_be_read(tmp_path: Path) -> None:
    few, some = found(None)[:2], segmentation()
    boxes = draw_boxes(GREY, few.boxes, few.labels, CLASSES.names, few.scores, scale=1)
    np.testing.assert_array_equal(few.draw(), boxes)
    np.testing.assert_array_equal(some.draw(), draw_semantic(GREY, some.labels, some.names, scale=1))
    np.testing.assert_array_equal(segmentation(None).draw(GREY), some.draw())
    few.save(tmp_path / "new" / "a.png")
    some.save(str(tmp_path / "b.png"))
    large, with_legend = (Image.open(tmp_path / name) for name in ("new/a.png", "b.png"))
    assert large.size == (40 * 12, 30 * 12)
    assert with_legend.size[0] == 480
    assert with_legend.size[1] > 360
    for nameless in (found(image=None), segmentation(None)):
        with pytest.raises(ValueError, match=r"does not know its image; give it: draw\(image\)"):
            nameless.save(tmp_path / "c.png")
        assert nameless._repr_png_() is None
    wide = found(None, np.zeros((1200, 3000, 3), np.uint8))._repr_png_()
    assert wide is not None
    assert Image.open(io.BytesIO(wide)).size[0] == 1200


def test_show_hands_the_drawing_to_pillows_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: shown.append(image) is None)
    found().show()
    segmentation().show()
    assert [image.size[0] for image in shown] == [480, 480]
    monkeypatch.setattr(ImageShow, "show", lambda image: False)
    with pytest.raises(DetsegError, match="there is no program to show an image here; write it to a file"):
        found().show()


def test_a_map_has_areas_masks_and_a_palette(tmp_path: Path) -> None:
    some = segmentation()
    assert (some.hw, some.names) == ((30, 40), ("background", "cat", "dog"))
    assert some.areas == {"background": 600, "cat": 0, "dog": 600}
    assert some.mask("dog").sum() == 600
    # A background is black and takes no colour from the others: a cat is as in a detector of cats and dogs.
    assert some.palette.tolist() == [[0, 0, 0], list(class_color(0)), list(class_color(1))]
    with pytest.raises(ValueError, match="there is no class 'cow'; the classes are background, cat, dog"):
        some.mask("cow")
    some.save_png(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(np.array(image), some.labels)
    assert np.array(image.convert("RGB"))[0, 39].tolist() == list(class_color(1))
    with pytest.raises(DataError, match=r"a\.png: is the image itself, which stays as it is; choose another name"):
        replace(some, path=tmp_path / "a.png").save(tmp_path / "b" / ".." / "a.png", np.array(image.convert("RGB")))


@pytest.mark.parametrize(
    ("labels", "classes", "probabilities", "message"),
    [
        (np.zeros((3, 4), np.int64), CLASSES, None, r"labels: expected uint8 of shape \(H, W\), got int64"),
        (np.zeros((3, 4, 1), np.uint8), CLASSES, None, r"labels: expected uint8 of shape \(H, W\)"),
        (np.full((3, 4), 3, np.uint8), CLASSES, None, "labels: expected below 3, got 3"),
        (np.zeros((3, 4), np.uint8), ClassTable(()), None, "classes: expected 1 to 255, got 0"),
        (np.zeros((3, 4), np.uint8), CLASSES, np.zeros((2, 3, 4), np.float32), r"probabilities: expected shape \(3, 3"),
    ],
)
def test_a_map_that_cannot_be(labels: UInt8Array, classes: ClassTable, probabilities: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMap(labels, classes, probabilities)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it is an error
import numpy as np
import detseg
assert "cv2" not in sys.modules
one = detseg.Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64),
                        detseg.ClassTable(("a",)))
assert "cv2" not in sys.modules
image = np.zeros((8, 8, 3), np.uint8)
print(one, one.to_coco(1)[0]["category_id"], one.draw(image).shape)
print(detseg.SegmentationMap(image[..., 0], one.classes).draw(image).shape)
"""


def test_results_need_neither_torch_nor_opencv_until_they_are_drawn() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout == "Detections(1 object: 1 a 1.00) 1 (8, 8, 3)\n(8, 8, 3)\n"
