"""COCO files by columns: the same data as entry by entry, and no key that is there twice goes unseen."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from benchmarks.large_coco import write_large_coco
from detseg.data.annotations.issues import DataReport
from detseg.data.annotations.regions import in_pixels
from detseg.data.datasets.fingerprint import fingerprint
from detseg.data.formats import coco, instances_to_labels, json_lots
from detseg.data.formats.coco_columns import CocoColumns
from detseg.data.formats.coco_content import CocoContent, CocoEntries
from detseg.data.formats.file_digest import FileDigest, digest_of
from detseg.data.formats.json_lots import UnusualJsonError
from detseg.errors import DataError
from tests.fuzz.targets_annotations import coco_boxes
from tests.shared_data import shared_data


def slowly(file: Path, boxes: bool, masks: bool) -> tuple[CocoContent, FileDigest]:
    """``open_coco`` without the columns."""
    return CocoEntries(file, FileDigest()), FileDigest()


def columns(file: Path) -> CocoColumns:
    return CocoColumns(file, True, True, FileDigest())


def outcome(read: Callable[[], Any]) -> Any:
    try:
        dataset = read()
    except DataError as error:
        return str(error)
    return fingerprint(dataset), dataset.report.lines(), dataset.classes


READERS: list[Callable[[Path, Path], Any]] = [
    coco.read_coco,
    lambda images, file: coco.read_coco(images, file, classes=("b", "a"), masks=True),
    instances_to_labels.read_coco_masks,
]


def same(images: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What both ways give, which must be equal; the outcome of the last reader."""
    for read in READERS:
        found = outcome(lambda: read(images, file))  # noqa: B023  # called at once
        with monkeypatch.context() as patched:
            for module in (coco, instances_to_labels):
                patched.setattr(module, "open_coco", slowly)
            assert found == outcome(lambda: read(images, file))  # noqa: B023  # called at once
    return found


def test_mutated_files_give_the_same_data_and_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = coco_boxes(tmp_path)
    read = 0
    for number in range(300):
        monkeypatch.setattr(json_lots, "BLOCK_BYTES", (1 << 21, 150, 777)[number % 3])
        content = target.mutate(target.seeds[number % len(target.seeds)], random.Random(number))
        if b"9" * 4301 in content:  # of which Python refuses to make a number, also where nobody wants it
            continue
        (tmp_path / "x.json").write_bytes(content)
        read += not isinstance(same(tmp_path / "images", tmp_path / "x.json", monkeypatch), str)
    assert read > 20


def test_a_large_file_is_what_pycocotools_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_large_coco(tmp_path, images=300, annotations=9000)
    assert file.stat().st_size > 2 * json_lots.BLOCK_BYTES
    content = columns(file)
    objects, reference = content.objects(True, ()), COCO(str(file)).dataset
    capsys.readouterr()
    assert content.images(DataReport())[0].tolist() == [image["id"] for image in reference["images"]]
    regions = content.regions(np.arange(9000), np.zeros((9000, 2), dtype=np.int64), "")
    assert regions.coordinates.dtype == np.int32
    for row, entry in enumerate(reference["annotations"]):
        assert objects.ids[row] == entry["id"]
        assert objects.xywh[row].tolist() == entry["bbox"]
        assert objects.area[row] == entry["area"]
        assert objects.crowd[row] == entry["iscrowd"]
        if isinstance(entry["segmentation"], list):
            assert regions.polygons(row) == entry["segmentation"]


@pytest.mark.parametrize("block_bytes", [700, 4096, 1 << 21])
def test_files_of_other_programs_need_no_slow_way(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lots, "BLOCK_BYTES", block_bytes)
    for parts in (
        ("coco_mini", "annotations", "instances_val.json"),
        ("formats", "coco_dataset", "coco", "annotations", "instances_val.json"),
        ("formats", "roboflow_dataset", "coco", "train", "_annotations.coco.json"),
    ):
        file, digest = shared_data(*parts), FileDigest()
        assert len(CocoColumns(file, True, False, digest).objects(True, ()).ids) > 0
        assert digest.hexdigest() == digest_of(file)


def valid() -> dict[str, Any]:
    """Nested objects, unknown keys, strings that look like keys, numbers of every form."""
    image = {"height": 20, "width": 30, "coco_url": "http://a: b", "more": {"id": [{"id": 1}, {"x": "},{ y: 1"}]}}
    rle = {"size": [20, 30], "counts": [600]}
    polygons = [[0, 0, 5, 0, 5, 5.25], [1, 1, 3e0, 1, 3, 3]]
    return {
        "info": {"description": '"images": [{"id": 1}], "annotations": [{', "ids": [{"a": 1}, {"b": 2}]},
        "annotations": [
            {"id": 7, "image_id": 2, "category_id": 3, "bbox": [0, 0, 5, 5], "segmentation": polygons, "area": 12},
            {"id": 8, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "segmentation": rle, "track": {"id": 2}},
            {"id": 9, "image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 2], "segmentation": rle, "iscrowd": 1},
        ],
        "images": [{"id": number, "file_name": f"{name}.png"} | image for number, name in ((1, "a"), (2, "b"))],
        "categories": [{"id": 3, "name": "a"}, {"id": 4, "name": "b"}],
    }


LAYOUTS: dict[str, Callable[[Any], str]] = {
    "plain": json.dumps,
    "dense": lambda value: json.dumps(value, separators=(",", ":")),
    "indented": lambda value: json.dumps(value, indent=4),
    "spaced": lambda value: json.dumps(value, separators=(" ,\r\n", "\t: ")),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@each_layout
@pytest.mark.parametrize("block_bytes", [40, 301, 1 << 21])
def test_layouts_of_json(layout: str, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lots, "BLOCK_BYTES", block_bytes)
    coco_boxes(tmp_path)  # writes the images
    (tmp_path / "x.json").write_text(LAYOUTS[layout](valid()))
    content = columns(tmp_path / "x.json")
    assert content.objects(True, ()).ids.tolist() == [7, 8, 9]
    regions = content.regions(np.arange(3), np.zeros((3, 2), dtype=np.int64), "")
    assert regions.polygons(0) == valid()["annotations"][0]["segmentation"]
    assert [regions.stated_counts(row) != b"" for row in range(3)] == [False, True, True]
    same(tmp_path / "images", tmp_path / "x.json", monkeypatch)


@each_layout
def test_every_key_that_is_there_twice_is_found(layout: str, tmp_path: Path) -> None:
    text = LAYOUTS[layout](valid())
    file = tmp_path / "x.json"
    tried = set()
    for place in [place for place, character in enumerate(text) if character == "{"]:
        key = f'{text[place + 1 :]}""'.split('"')[1]
        for twice in (key, f"\\u{ord((key or '-')[0]):04x}{key[1:]}"):
            for colon in (":", " :", "\n:"):
                content = f'{text[: place + 1]}"{twice}"{colon}1,{text[place + 1 :]}'
                try:
                    json.loads(content)
                except ValueError:
                    continue  # the brace was within a string
                file.write_text(content)
                with pytest.raises(UnusualJsonError):
                    columns(file)
                tried.add(place)
    with pytest.raises(DataError, match="an object has the key 'id' twice"):
        coco.read_coco(tmp_path, file)
    assert len(tried) == 20  # objects


def test_strings_that_are_no_unicode_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_boxes(tmp_path)
    content = json.dumps(valid()).encode().replace(b"http://a", b"\xff")
    (tmp_path / "x.json").write_bytes(content)
    assert "not a readable JSON file" in same(tmp_path / "images", tmp_path / "x.json", monkeypatch)


def test_corners_beyond_hundredths_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lots, "BLOCK_BYTES", 150)  # each annotation is a lot
    content = valid()
    fine = [[0, 0, 5, 0, 5, 1 / 3]]
    content["annotations"] = [
        content["annotations"][0] | {"id": number, "segmentation": fine if number == 5 else [[0, 0, 5.07, 0, 5, 5]]}
        for number in range(9)
    ]
    (tmp_path / "x.json").write_text(json.dumps(content))
    regions = columns(tmp_path / "x.json").regions(np.arange(9), np.zeros((9, 2), dtype=np.int64), "")
    assert regions.coordinates.dtype == np.float64
    assert in_pixels(regions.coordinates).tolist() == [
        number for entry in content["annotations"] for number in entry["segmentation"][0]
    ]
