"""Every unusual and bad file has its outcome, in bounded time and memory; errors are one line that names the file."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detseg.data.formats.coco import read_coco
from detseg.structures import Sample
from tests.data.formats.bad_exports import MADE_EXPORTS
from tests.data.formats.bad_files import MADE, SHARED, Read, contents, outcome_of
from tests.data.formats.layouts import READERS
from tests.fuzz.campaign import limited_memory, limited_time
from tests.shared_data import shared_data


def shared_files() -> list[str]:
    try:
        roots = [shared_data(name) for name in ("formats", "malformed")]
    except pytest.skip.Exception:
        return []
    return sorted(p.relative_to(root.parent).as_posix() for root in roots for p in root.rglob("*") if p.is_file())


def check(read: Read, path: Path, expected: Any) -> None:
    with limited_time(5), limited_memory(1 << 28):
        found = outcome_of(read, path)
    if isinstance(expected, str):
        assert isinstance(found, str), found
        assert expected in found
    else:
        assert found == expected


@pytest.mark.filterwarnings("ignore")  # Pillow's, of unusual files
@pytest.mark.parametrize("name", shared_files())
def test_shared_files(name: str) -> None:
    patterns = [pattern for pattern in SHARED if fnmatch(name, pattern)]
    assert patterns, "a file without a row"
    rows = SHARED[patterns[0]]
    for read, expected in rows if isinstance(rows, list) else [rows]:
        check(read, shared_data(*name.split("/")), expected)


def test_every_row_has_a_file() -> None:
    files = shared_files() or pytest.skip("the shared data is absent")
    unused = [pattern for pattern in SHARED if not any(fnmatch(name, pattern) for name in files)]
    assert not unused


ALL_MADE = MADE + MADE_EXPORTS


@pytest.mark.parametrize(
    ("read", "expected"), ALL_MADE, ids=[f"{k}-{str(row[1])[:50]}" for k, row in enumerate(ALL_MADE)]
)
def test_made_files(read: Read, expected: Any, tmp_path: Path) -> None:
    check(read, tmp_path, expected)


@pytest.mark.parametrize("name", READERS)
def test_the_layouts_that_are_changed_are_right(name: str, tmp_path: Path) -> None:
    READERS[name].write(tmp_path)
    assert (tmp_path / READERS[name].file).is_file()
    assert contents(READERS[name].read(tmp_path))


def test_a_link_to_an_image_is_followed(tmp_path: Path) -> None:
    """Data sets are often folders of links; who can write links into the folder can write images, too."""
    READERS["coco_boxes"].write(tmp_path)
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "secret.png")
    assert len(contents(READERS["coco_boxes"].read(tmp_path))) == 1


def test_coco_files_whose_images_are_written_beside_them(tmp_path: Path) -> None:
    """Files of the table whose images are not in the collection."""

    def read(name: str, masks: bool = False) -> list[Sample]:
        file = shared_data("malformed", "annotations") / name
        for entry in json.loads(file.read_text())["images"]:
            Image.new("L", (entry["width"], entry["height"])).save(tmp_path / entry["file_name"])
        dataset = read_coco(tmp_path, file, masks=masks)
        return [dataset[index] for index in range(len(dataset))]

    one_pixel_short = "datumaro_coco_uncompressed_rle_bbox_one_pixel_short.json"
    assert read(one_pixel_short)[0].boxes.tolist() == [[0, 0, 1, 2], [0, 0, 1, 9]]  # as bbox states them
    masks = read(one_pixel_short, masks=True)[0]
    assert masks.boxes.tolist() == [[0, 0, 1, 2], [0, 0, 2, 10]]  # as the 20 pixels of the run lengths lie
    assert masks.ignore.tolist() == [False, True]
    mmdet = read("mmdet_coco_sample_no_iscrowd_no_segmentation_info_null.json")
    assert [sample.boxes.tolist() for sample in mmdet] == [[[0, 0, 20, 20]] * 2, [[0, 0, 20, 20]], []]
    cats = read("padilla_coco_annotation_id_0_category_id_0.JSON")  # ids of 0 are ids
    assert [cats[k].boxes.tolist() for k in (0, 1)] == [[[1, 49, 341, 499]], []]
    assert cats[5].boxes.tolist() == [[170, 44, 459, 251], [72, 123, 387, 334]]
