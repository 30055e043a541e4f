"""Every file of the collection of malformed and unusual ones: what becomes of each, and that nothing large is allocated
on the way.  A file that the table does not have fails the test."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.errors import DataError
from tests.data.formats.outcomes import (
    Check,
    error_of,
    files_below,
    listed,
    no_image,
    nothing_of_ours,
    pixels,
    voc_list,
    voc_xml,
)
from tests.shared_data import shared_data

READ = """
16_bit_binary.pgm 16bit.cropped.tif 1_trns.png cross_scan_line.png dispose_bgnd_rgba.gif frozenpond.mpo hopper.Lab.tif
hopper.bmp hopper.gif hopper.jpg hopper.webp hopper_bad_exif.jpg hopper_bw_500.png hopper_gray.jpg
hopper_idat_after_image_end.png i_trns.png icc-after-SOF.jpg invalid-exif.jpg pil123p.png pil123rgba.png
pil_sample_cmyk.jpg sugarshack_bad_mpo_header.jpg tiff_16bit_RGB.tiff truncated_exif_dpi.jpg uncompressed_la.png
xmp_tags_orientation.png
"""

REFUSED = {
    "broken.png": "not an image, or damaged beyond recognition",
    "decompression_bomb.gif": "decompression bomb",
    "png_decompression_dos.png": "too large",
    "truncated_end_chunk.png": "runcated",
    "truncated_image.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "unknown_compression_method.png": "not an image, or damaged beyond recognition",
}

ORIENTED = " ".join(
    [*(f"hopper_orientation_{number}.jpg" for number in range(2, 9)), *(f"Landscape_{i}.jpg" for i in range(1, 9))]
)

RBC_338 = ((452, 80, 555, 182), (475, 170, 599, 307), (345, 211, 455, 316), (23, 112, 127, 207), (162, 30, 289, 131))
RBC_343 = ((483, 194, 613, 303), (524, 298, 637, 396), (95, 156, 227, 244), (180, 328, 181, 329))
"""The first boxes of the two files, from their XML: corners there are 1-based and inclusive.  The fourth of the second
has xmin == xmax and ymin == ymax, which is a box of one pixel, not one without area."""


def begins_with(corners: tuple[tuple[int, int, int, int], ...]) -> Check:
    def check(path: Path) -> None:
        from detseg.data.formats.voc_xml import read_voc_xml

        found = read_voc_xml(path)
        assert found.hw == (480, 640)
        assert found.names[: len(corners)] == ("RBC",) * len(corners)
        assert [tuple(box) for box in found.boxes.tolist()[: len(corners)]] == list(corners)

    return check


def padilla(path: Path) -> None:
    """Ids of 0 are ids; the images are not part of the collection."""
    missing = path.parent / "mmdet_VOCdevkit"
    assert "10 of 10 images missing" in error_of(lambda: read_coco(missing, path), missing)
    content = json.loads(path.read_text())
    assert content["annotations"][0]["id"] == content["categories"][0]["id"] == content["images"][0]["id"] == 0


def mmdet_coco(path: Path) -> None:
    assert "3 of 3 images missing: fake1.jpg" in error_of(lambda: read_coco(path.parent, path), path.parent)


def rle_coco(path: Path) -> None:
    assert "1 of 1 images missing: b.jpg" in error_of(lambda: read_coco(path.parent, path), path.parent)


TABLE: dict[str, Check] = {
    **dict.fromkeys(["README.md", "manifest.csv", "SHA256SUMS", "LICENSE.Pillow"], nothing_of_ours),
    **dict.fromkeys(["LICENSE.exif-orientation-examples", "annotations/LICENSE.mmdetection"], nothing_of_ours),
    **dict.fromkeys(listed("images", READ), pixels),
    **{f"images/{name}": no_image(words) for name, words in REFUSED.items()},
    **dict.fromkeys(listed("orientation", ORIENTED), pixels),
    "annotations/bccd_BloodImage_00338_zero_area_box.xml": begins_with(RBC_338),
    "annotations/bccd_BloodImage_00343_zero_area_box.xml": begins_with(RBC_343),
    "annotations/datumaro_voc_no_size_float_coordinates.xml": voc_xml(("bird", 3, 3, 8, 8)),
    "annotations/datumaro_voc_no_size_no_object.xml": voc_xml(),
    "annotations/datumaro_voc_imageset_with_comment_and_blank_line.txt": nothing_of_ours,  # read in place: test_formats
    "annotations/datumaro_coco_uncompressed_rle_bbox_one_pixel_short.json": rle_coco,
    "annotations/mmdet_coco_sample_no_iscrowd_no_segmentation_info_null.json": mmdet_coco,
    "annotations/padilla_coco_annotation_id_0_category_id_0.JSON": padilla,
    **{f"annotations/mmdet_VOCdevkit/VOC{year}/JPEGImages/000001.jpg": pixels for year in (2007, 2012)},
    **{
        f"annotations/mmdet_VOCdevkit/VOC{year}/ImageSets/Main/{name}.txt": voc_list("000001.jpg")
        for year in (2007, 2012)
        for name in ("trainval", "test")
    },
    "annotations/mmdet_VOCdevkit/VOC2007/Annotations/000001.xml": voc_xml(
        ("dog", 47, 239, 195, 371), ("person", 7, 11, 352, 498), hw=(500, 353)
    ),
    "annotations/mmdet_VOCdevkit/VOC2012/Annotations/000001.xml": voc_xml(("train", 138, 199, 207, 301), hw=(500, 335)),
}


def test_the_table_has_every_file() -> None:
    assert files_below(shared_data("malformed")) == set(TABLE)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd files
@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_file_has_its_outcome(name: str) -> None:
    TABLE[name](shared_data("malformed", *name.split("/")))


def test_annotations_whose_images_are_written_beside_them(tmp_path: Path) -> None:
    folder = shared_data("malformed", "annotations")
    Image.new("RGB", (5, 10)).save(tmp_path / "b.jpg")
    name = "datumaro_coco_uncompressed_rle_bbox_one_pixel_short.json"
    assert read_coco(tmp_path, folder / name)[0].boxes.tolist() == [[0, 0, 1, 2], [0, 0, 1, 9]]  # as bbox states them
    masks = read_coco(tmp_path, folder / name, masks=True)[0]
    assert masks.boxes.tolist() == [[0, 0, 1, 2], [0, 0, 2, 10]]  # as the 20 pixels of the run lengths lie
    assert masks.ignore.tolist() == [False, True]
    for number in (1, 2, 3):
        Image.new("L", (800, 800)).save(tmp_path / f"fake{number}.jpg")
    mmdet = read_coco(tmp_path, folder / "mmdet_coco_sample_no_iscrowd_no_segmentation_info_null.json")
    assert [mmdet[i].boxes.tolist() for i in range(3)] == [[[0, 0, 20, 20]] * 2, [[0, 0, 20, 20]], []]
    file = folder / "padilla_coco_annotation_id_0_category_id_0.JSON"
    for entry in json.loads(file.read_text())["images"]:
        Image.new("L", (entry["width"], entry["height"])).save(tmp_path / entry["file_name"])
    cats = read_coco(tmp_path, file)
    assert [cats[i].boxes.tolist() for i in (0, 1, 5)] == [
        [[1, 49, 341, 499]],
        [],
        [[170, 44, 459, 251], [72, 123, 387, 334]],
    ]
    assert cats.classes.names == ("cat",)


def test_the_joined_years_with_a_wrong_filename() -> None:
    dataset = read_voc(shared_data("malformed", "annotations", "mmdet_VOCdevkit"), "2007:trainval+2012:trainval")
    assert [dataset[i].boxes.tolist() for i in range(2)] == [
        [[47, 239, 195, 371], [7, 11, 352, 498]],
        [[138, 199, 207, 301]],
    ]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_bombs(folder: Path) -> list[Path]:
    """Small files that ask for a gigabyte and more."""
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 7_900_000, 9)) * 130
    rows = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    large = chunk(b"IHDR", struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0))
    signature, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    bombs = {
        "texts_before.png": signature + small + text + rows + end,
        "texts_behind.png": signature + small + rows + text + end,
        "gigapixels.png": signature + large + rows + end,
        "gigapixels.bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 65_000, 65_000, 1, 24, 0, 0, 0, 0, 0, 0),
    }
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65_000, 65_000, 3) + bytes([1, 17, 0, 2, 17, 0, 3, 17, 0])
    bombs["gigapixels.jpg"] = jpeg + b"\xff\xd9"
    for name, data in bombs.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in bombs]


BOMBS = """
import resource, sys
from pathlib import Path
from detseg.data.images.read import read_image
from detseg.data.images.mask_encoding import MaskEncoding
from detseg.data.images.label_maps import read_mask
from detseg.errors import DataError
from detseg.structures import ClassTable

encoding = MaskEncoding(ClassTable(("a", "b")), None, 255)
reads = (read_image, lambda path: read_mask(path, encoding))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for read in reads:  # what the first image brings along
    read(Path(sys.argv[1]))
for path in map(Path, sys.argv[2:]):
    for read in reads:
        before = peak()
        try:
            read(path)
        except DataError as error:
            print(path.name, peak() - before, str(path) in str(error))
        else:
            print(path.name, peak() - before, "was read")
"""


def test_bombs_are_refused_before_anything_large_is_allocated(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    real = [shared_data("malformed", "images", f"{name}") for name in REFUSED if "decompression" in name]
    files = [*write_bombs(tmp_path), *real]
    command = [sys.executable, "-c", BOMBS, str(tmp_path / "a.png"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # in a process of its own: peaks stay
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [file.name for file in files for _ in range(2)]
    for name, megabytes, named in lines:
        assert named == "True", name
        assert int(megabytes) < 80, name


def test_a_text_behind_the_pixels_is_no_bomb_by_itself(tmp_path: Path) -> None:
    rows = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes([10, 20, 30] * 4) for _ in range(4))))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"made by hand"))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + text + chunk(b"IEND", b""))
    pixels(tmp_path / "a.png")


def test_a_folder_that_is_no_image_and_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    nothing_of_ours(tmp_path / "empty.png")
    with pytest.raises(DataError, match="cannot read the image"):
        pixels(tmp_path)
