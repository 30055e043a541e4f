"""What the writers of YOLO text, LabelMe and CVAT write reads back the same; what a format cannot hold is counted."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detseg.data.annotations.collect import AnnotationCollector
from detseg.data.annotations.model import StatedObject, region_counts
from detseg.data.annotations.report import DataReport
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.cvat import read_cvat, write_cvat
from detseg.data.formats.labelme import read_labelme, write_labelme
from detseg.data.formats.yolo import read_yolo, write_yolo
from detseg.data.images.find import copy_names
from detseg.errors import DataError
from detseg.ops.masks import decode_mask, encode_mask
from tests.shared_data import shared_data

HEIGHT, WIDTH = HW = (6, 9)


@dataclass(frozen=True)
class Format:
    write: Callable[..., list[str]]
    read: Callable[..., DetectionDataset]
    folder: str  # of the images of a split


FORMATS = {
    "yolo": Format(write_yolo, read_yolo, "{}/images"),
    "labelme": Format(write_labelme, read_labelme, "{}"),
    "cvat": Format(write_cvat, read_cvat, "images/{}"),
}


def dataset_of(root: Path, classes: list[str], images: dict[str, list[dict[str, Any]]]) -> DetectionDataset:
    """A data set of images of 9 x 6 pixels; of each object there are the arguments of `add_object`."""
    collector = AnnotationCollector(root, classes)
    for name, objects in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT)).save(root / name, "PNG")
        collector.add_image(name, HW)
        for entry in objects:
            collector.add_object(**entry)
    packed, table = collector.pack(None, report := DataReport(True), masks=False, strict=False)
    return DetectionDataset(packed, root, table, report, "made")


def rle(mask: Any) -> dict[str, Any]:
    return {"size": list(HW), "counts": encode_mask(np.asarray(mask, dtype=np.bool_)).decode()}


def inside(side: int) -> st.SearchStrategy[float]:
    return st.one_of(st.integers(0, side).map(float), st.floats(0, side).map(lambda x: x + 0.0))


def span(side: int) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(inside(side), inside(side)).map(lambda pair: (min(pair), max(pair)))


BOX = st.tuples(span(WIDTH), span(HEIGHT)).map(lambda spans: (spans[0][0], spans[1][0], spans[0][1], spans[1][1]))
POLYGON = st.lists(st.tuples(inside(WIDTH), inside(HEIGHT)), min_size=3, max_size=5).map(
    lambda corners: [value for corner in corners for value in corner]
)
MASK = st.lists(st.booleans(), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH).filter(any)
SEGMENTATION = st.one_of(
    st.none(),
    st.lists(POLYGON, min_size=1, max_size=3),
    MASK.map(lambda pixels: rle(np.reshape(pixels, HW))),
)
# No control characters, which class names may not hold, nor what is blank alone.
CLASS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=6).filter(str.strip)
PATHS = [
    "/".join([*folder, stem + suffix])
    for folder, stem, suffix in itertools.product(
        [[], ["sub"], ["images"]], ["a", "b c", "é日本", "#1"], [".png", ".bmp"]
    )
]


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    classes = draw(st.lists(CLASS, min_size=1, max_size=3, unique=True))
    objects = st.fixed_dictionaries(
        {"name": st.sampled_from(classes), "box": BOX, "segmentation": SEGMENTATION}
        | {flag: st.booleans() for flag in ("crowd", "difficult", "truncated")}
    )
    paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True))
    return classes, {path: draw(st.lists(objects, max_size=3)) for path in paths}


def bounds(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        rows, columns = np.nonzero(decode_mask(region_counts(segmentation, HW), HW))
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    return *points.min(axis=0), *points.max(axis=0)


def check_lossless(stated: StatedObject, found: StatedObject) -> None:
    assert (found.crowd, found.difficult, found.truncated) == (stated.crowd, stated.difficult, stated.truncated)
    if isinstance(stated.segmentation, dict):
        assert region_counts(found.segmentation, HW) == region_counts(stated.segmentation, HW)
    else:
        assert found.segmentation == stated.segmentation
    assert found.box == (stated.box if stated.segmentation is None else bounds(stated.segmentation))


def check_yolo(stated: StatedObject, found: StatedObject) -> None:
    if stated.segmentation is None:
        assert found.segmentation is None
        np.testing.assert_allclose(found.box, stated.box, atol=2e-9)
        # The sums round to whole pixels: those come back exactly.
        assert all(a == b for a, b in zip(found.box, stated.box, strict=True) if b == int(b))
    elif isinstance(stated.segmentation, list):
        np.testing.assert_allclose(found.box, bounds(stated.segmentation), atol=2e-9)
        if len(stated.segmentation) == 1:
            np.testing.assert_allclose(found.segmentation, stated.segmentation, atol=2e-9)
    else:  # the largest piece without its holes
        inner = bounds(stated.segmentation)
        assert all(a >= b for a, b in zip(found.box[:2], inner[:2], strict=True))
        assert all(a <= b for a, b in zip(found.box[2:], inner[2:], strict=True))


def number(lines: Iterable[str], words: str) -> int:
    """The number in the one line that begins with some words, 0 if there is none."""
    found = [line.removeprefix(words).split()[0] for line in lines if line.startswith(words)]
    return int(found[0]) if found else 0


HARD: dict[str, list[dict[str, Any]]] = {
    "images/sub/a.png": [
        {"name": "no", "box": (0.1, 0.2, 8.7, 5.9), "segmentation": [[0.1, 0.2, 8.7, 0.3, 8, 5.9], [1, 1, 2, 1, 2, 2]]},
        {"name": "no", "box": (1, 1, 4, 4), "crowd": True, "segmentation": rle(np.eye(*HW))},
    ],
    "images/sub/a.bmp": [],
}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, deadline=None)
@given(given_set=data_sets())
@example(given_set=(["no", "1", " 名 & <b>"], HARD))
def test_what_is_written_reads_back_the_same(name: str, given_set: tuple[list[str], Any]) -> None:
    classes, images = given_set
    form = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        source = dataset_of(Path(folder, "source"), classes, images)
        target = Path(folder, "target")
        lines = form.write({"train": source, "val": source.subset([0])}, target, link=True)
        found = form.read(target, "train", report=DataReport(True))
        names = copy_names(list(images), "train", by_stem=name != "cvat")
        assert sorted(found.packed.path(k) for k in range(len(found))) == sorted(
            f"{form.folder.format('train')}/{path}" for path in names
        )
        assert found.classes.names == tuple(classes)
        places = {found.packed.path(k): k for k in range(len(found))}
        for index, path in enumerate(names):
            place = places[f"{form.folder.format('train')}/{path}"]
            assert found.path(place).resolve() == source.path(index).resolve()
            assert found.hw(place) == HW
            truth = [item for item in source.packed.stated(index) if name != "yolo" or not item.crowd]
            for stated, item in zip(truth, found.packed.stated(place), strict=True):
                assert item.label == stated.label
                (check_yolo if name == "yolo" else check_lossless)(stated, item)
        assert len(form.read(target, "val", report=DataReport(True))) == 1
    objects = [entry for path in [*images, next(iter(images))] for entry in images[path]]
    outlines = [entry for entry in objects if entry.get("segmentation") is not None]
    if name == "yolo":
        kept = [entry for entry in objects if not entry.get("crowd")]
        assert number(lines, "crowd regions of ") == len(objects) - len(kept)
        assert number(lines, "difficult flags of ") == sum(bool(entry.get("difficult")) for entry in kept)
        outlines = [entry for entry in outlines if not entry.get("crowd")]
        several = [entry for entry in outlines if isinstance(entry["segmentation"], list)]
        assert number(lines, "parts of ") == sum(len(entry["segmentation"]) > 1 for entry in several)
    gaps = [np.abs(np.subtract(entry["box"], bounds(entry["segmentation"]))).max() for entry in outlines]
    if not any(abs(gap - 1e-3) < 1e-9 for gap in gaps):
        assert number(lines, "boxes of ") == sum(gap > 1e-3 for gap in gaps)


def test_seams_join_the_parts_of_an_object(tmp_path: Path) -> None:
    """Two squares of 2 x 2 pixels are one line of 4 + 1 + 4 + 1 corners, which holds their pixels alone."""
    squares = [[1, 1, 3, 1, 3, 3, 1, 3], [5, 2, 7, 2, 7, 4, 5, 4]]
    source = dataset_of(
        tmp_path / "source", ["a"], {"a.png": [{"name": "a", "box": (1, 1, 7, 4), "segmentation": squares}]}
    )
    lines = write_yolo({"train": source}, tmp_path / "yolo")
    assert lines == ["parts of 1 object: YOLO has one polygon for each; they are joined by seams without area"]
    found = read_yolo(tmp_path / "yolo", masks=True)
    polygon = found.packed.stated(0)[0].segmentation[0]
    assert polygon == [*squares[0], 1, 1, *squares[1], 5, 2]
    truth = np.zeros(HW, dtype=np.uint8)
    truth[1:3, 1:3] = truth[2:4, 5:7] = 1
    masks = found.annotations(0).masks
    assert masks is not None
    assert decode_mask(masks.counts[0], HW).tolist() == truth.tolist()


def test_what_yolo_text_cannot_hold(tmp_path: Path) -> None:
    ring = np.zeros(HW, dtype=bool)
    ring[1:4, 1:4], ring[2, 2] = True, False
    objects: list[dict[str, Any]] = [
        {"name": "a", "box": (1, 1, 4, 4), "segmentation": rle(ring)},
        {"name": "a", "box": (-2, 1, 4, 4)},  # a corner outside: the centre and the sides are fractions
        {"name": "a", "box": (-6, 1, 4, 4)},  # the centre is outside, too
        {"name": "a", "box": (0, 0, 9, 6), "segmentation": [[-1, 0, 9, 0, 9, 6]]},
        {"name": "a", "box": (0, 0, 3, 3), "segmentation": rle(np.zeros(HW))},
        {"name": "a", "box": (0, 0, 3, 3), "difficult": True, "truncated": True},
    ]
    source = dataset_of(tmp_path / "source", ["a"], {"x/a.png": objects, "a.bmp": [], "a.png": []})
    assert write_yolo({"val": source}, tmp_path / "yolo") == [
        "masks of 1 object, which have holes or several pieces: the outline of the largest piece is kept",
        "parts of 2 objects outside their images: YOLO's fractions are 0 to 1; they are clipped",
        "boxes of 1 object, which differ from their outlines: YOLO has one of both; the outline is kept",
        "masks without a pixel of 1 object: their boxes are written",
        "areas of 1 object, which differ from their boxes: YOLO states none; that of the box counts",
        "difficult flags of 1 object: YOLO has none",
        "truncated flags of 1 object: YOLO has none",
        "names of 1 image, as two in a folder differ in the suffix alone: it was added",
    ]
    found = read_yolo(tmp_path / "yolo", "val", report=DataReport(True))
    assert [found.packed.path(k) for k in range(3)] == [f"val/images/{x}" for x in ("a.bmp", "a_png.png", "x/a.png")]
    boxes = [[1, 1, 4, 4], [-2, 1, 4, 4], [0, 1, 4, 4], [0, 0, 9, 6], [0, 0, 3, 3], [0, 0, 3, 3]]
    assert found.packed.boxes.tolist() == boxes


@pytest.mark.parametrize("name", FORMATS)
def test_coco_and_back(name: str, tmp_path: Path) -> None:
    """The polygons and run lengths of 33 images of COCO; YOLO's have no crowd, and one line for several parts."""
    root = shared_data("coco_mini")
    file = root / "annotations" / "instances_all.json"
    source = read_coco(root / "images", file, masks=True, report=DataReport(True))
    lines = FORMATS[name].write({"train": source}, tmp_path / "x", link=True)
    found = FORMATS[name].read(tmp_path / "x", masks=True)
    assert (len(found), found.classes.names) == (len(source), source.classes.names)
    crowd = int(source.packed.crowd.sum())
    assert len(found.packed.boxes) == len(source.packed.boxes) - (crowd if name == "yolo" else 0)
    for index in range(len(source)):
        truth, item = source.annotations(index), found.annotations(index)
        kept = ~truth.crowd if name == "yolo" else np.ones(len(truth.crowd), dtype=bool)
        assert item.labels.tolist() == truth.labels[kept].tolist()
        assert truth.masks is not None
        assert item.masks is not None
        if name != "yolo":
            assert item.masks.counts == truth.masks.counts
            assert item.crowd.tolist() == truth.crowd.tolist()
        else:  # COCO's corners have two decimals, and the boxes their bounds
            np.testing.assert_allclose(item.boxes, truth.boxes[kept], atol=0.02)
    assert number(lines, "crowd regions of ") == (crowd if name == "yolo" else 0)


@pytest.mark.parametrize("name", FORMATS)
def test_images_are_copied_or_linked_to_an_empty_folder(name: str, tmp_path: Path) -> None:
    source = dataset_of(tmp_path / "source", ["a"], {"a.png": [{"name": "a", "box": (1, 1, 7, 4)}]})
    for link in (False, True):
        target = tmp_path / f"target{link}"
        FORMATS[name].write({"train": source}, target, link=link)
        found = FORMATS[name].read(target)
        assert found.path(0).is_symlink() == link
        assert found.path(0).read_bytes() == source.path(0).read_bytes()
    with pytest.raises(DataError, match="targetTrue: expected an empty or a new folder, but it holds files"):
        FORMATS[name].write({"train": source}, tmp_path / "targetTrue")
    source.path(0).unlink()
    with pytest.raises(DataError, match=r"a\.png: there is no such image"):
        FORMATS[name].write({"train": source}, tmp_path / "other")
