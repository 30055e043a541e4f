"""What fuzzing found, each with the least input that shows it."""

from __future__ import annotations

import io
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from detseg.checkpoint import read_model_checkpoint, read_raw_checkpoint
from detseg.config.load import load_config
from detseg.data.annotations.mask_names import mask_class_table
from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.data.images.masks import MaskEncoding, describe_unknown_colors, read_mask
from detseg.data.images.read import read_image, read_image_hw
from detseg.errors import CheckpointError, ConfigError, DataError
from detseg.factory import load_model
from detseg.messages import one_line, shown
from detseg.structures import ClassTable
from tests.data.formats.layouts import simple_voc, write_coco_masks
from tests.fuzz.mutator import put_together, take_apart

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_frame_of_a_damaged_animation_is_not_made_up(tmp_path: Path) -> None:
    """OpenCV gave it pixels that its checksum contradicts; a frame that is a part was filled up with black."""
    frame, file, path = Image.new("RGB", (14, 9), (10, 20, 30)), io.BytesIO(), tmp_path / "a.png"
    frame.save(file, "PNG", save_all=True, append_images=[Image.new("RGB", (14, 9))])
    path.write_bytes(file.getvalue())
    assert (read_image(path) == (10, 20, 30)).all()
    chunks = take_apart(file.getvalue())
    right = dict(chunks)[b"IDAT"]
    pixels = bytearray(zlib.decompress(right))
    pixels[5] ^= 1
    wrong = zlib.compress(bytes(pixels))[:-4] + right[-4:]
    first = next(k for k, (name, _) in enumerate(chunks) if name == b"fcTL")
    lower = chunks[first][1][:8] + (1).to_bytes(4, "big") + chunks[first][1][12:]
    for damaged in (
        [(name, wrong if name == b"IDAT" else content) for name, content in chunks],
        [*chunks[:first], (b"fcTL", lower), *chunks[first + 1 :]],
    ):
        path.write_bytes(put_together(damaged))
        with pytest.raises(DataError, match=r"a\.png: "):
            read_image(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "I;16"])
def test_a_png_whose_pixels_end_early_is_not_filled_up_with_black(tmp_path: Path, mode: str) -> None:
    """OpenCV refuses it, Pillow does not; in a mask the missing rows were background."""
    path, file = tmp_path / "a.png", io.BytesIO()
    encoding = MaskEncoding(ClassTable(("a", "b")), None, 255)
    Image.fromarray(np.eye(9, 14, dtype=np.uint8)).convert(mode).save(file, "PNG")
    (_, header), *chunks = take_apart(file.getvalue())
    path.write_bytes(file.getvalue())
    assert read_image(path).shape == (9, 14, 3)
    path.write_bytes(put_together([(b"IHDR", header[:4] + (10).to_bytes(4, "big") + header[8:]), *chunks]))
    with pytest.raises(DataError, match=r"a\.png: cannot read the image: its pixels end before the last row"):
        read_image(path)
    if mode in {"L", "P", "1"}:
        with pytest.raises(DataError, match=r"a\.png: cannot read the mask: its pixels end before the last row"):
            read_mask(path, encoding)


def test_the_size_of_a_damaged_tiff_is_a_data_error(tmp_path: Path) -> None:
    """Offsets of strips that are fractions: a TypeError of Pillow's came out of ``read_image_hw``."""
    path = tmp_path / "a.tif"
    Image.new("RGB", (14, 9)).save(path)
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little") + 2
    entries = [start + 12 * k for k in range(int.from_bytes(content[start - 2 : start], "little"))]
    strips = next(k for k in entries if int.from_bytes(content[k : k + 2], "little") == TiffImagePlugin.STRIPOFFSETS)
    content[strips + 2] = 5  # a fraction
    path.write_bytes(bytes(content))
    for read in (read_image, read_image_hw):
        with pytest.raises(DataError, match=r"a\.tif: "):
            read(path)


def test_values_of_files_are_shown_on_one_short_line() -> None:
    """Messages held whole files: a tensor over several lines, lists within lists."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (torch.zeros(9, 9), deep, -(10**5000), {"a": "\ud800"}):
        assert len(shown(value)) < 200
        assert shown(value).isprintable()
    assert one_line(ValueError(" a\n b ")) == "a b"


def test_messages_of_readers_stay_short(tmp_path: Path) -> None:
    images, file = write_coco_masks(tmp_path, [{"category_id": 3, "bbox": [0, 1, "x" * 9000, 2]}])
    long_name = simple_voc(tmp_path / "voc", [("x" * 9000, 2, 3, 8, 9)])
    (tmp_path / "classes.txt").write_text("y" * 9000 + "\x1b[31m")
    for read in (
        lambda: read_coco(images, file),
        lambda: read_voc(long_name, "train", classes=("cat",)),
        lambda: mask_class_table(tmp_path, None),
        lambda: load_config(ROOT / "configs" / "yolo_shapes.yaml", ["data." + "z" * 9000 + "=1"]),
    ):
        with pytest.raises((DataError, ConfigError)) as raised:
            read()
        assert len(str(raised.value)) < 1000
        assert str(raised.value).isprintable()


def test_colours_of_large_masks_take_little_memory_on_the_way() -> None:
    """64 bits for each pixel, several times: 6 GB for the largest image that is read."""
    colors = ((0, 0, 0), (255, 0, 0), (0, 128, 0))
    encoding = MaskEncoding(ClassTable(("a", "b", "c")), None, None, colors)
    expected = np.random.default_rng(0).integers(0, 3, (2500, 3100), dtype=np.uint8)  # eight blocks
    image = np.array(colors, dtype=np.uint8)[expected]
    image[-1, -1] = image[0, 0] = (1, 2, 3)
    tracemalloc.start()
    labels, known = encoding.labels_of_colors(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * expected.size
    assert np.argwhere(~known).tolist() == [[0, 0], [2499, 3099]]
    np.testing.assert_array_equal(labels[known], expected[known])
    message = describe_unknown_colors(image, known, encoding)
    assert message.startswith("1 colour(s) that are not listed: (1, 2, 3) (2 px)")


def saved(tmp_path: Path, epoch: Any = 0, **entries: Any) -> Path:
    """A file with the entry of our checkpoints."""
    entry: dict[str, Any] = {"format": 1, "config": {}, "classes": {"names": ["a"], "source_ids": [1]}}
    torch.save({"detseg": entry | entries, "state_dict": {}, "epoch": epoch}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def test_checkpoints_of_other_content_are_checkpoint_errors(tmp_path: Path) -> None:
    """ValueError, OverflowError, TypeError, RecursionError and RuntimeError came out, or a message over many lines."""
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    for entries in (
        {"config": ["model"]},
        {"config": "model"},
        {"epoch": float("inf")},
        {"format": torch.zeros(3, 3)},
        {"format": "\ud800\x1b[31m"},
        {"classes": {"names": [1, None], "source_ids": [1, 2]}},
        {"classes": {"names": ["a", "b"], "source_ids": ["1", 2]}},
        {"more": round_and_round},
    ):
        path = saved(tmp_path, **entries)
        with pytest.raises(CheckpointError, match=r"x\.ckpt: ") as raised:
            read_model_checkpoint(path)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"backbone": {"width": 1e9}}, ConfigError),
        ({"backbone": {"depth": 2**64}}, ConfigError),
        ({"neck": {"channels": 10**99}}, ConfigError),
        ({"head": {"strides": [16, 8, 16]}}, CheckpointError),
        ({"backbone": {"name": "none", "width": 1}}, CheckpointError),
    ],
)
def test_settings_of_no_model_are_an_error_with_the_file(tmp_path: Path, settings: Any, error: type[Exception]) -> None:
    """Layers of 10⁹ channels: all memory, or none of torch's errors caught; or ours, without the file's name."""
    path = saved(tmp_path, config={"data": {"name": "shapes"}, "model": {"name": "yolo", **settings}})
    read_raw_checkpoint(path)
    with pytest.raises(error, match=r"x\.ckpt: ") as raised:
        load_model(path)
    assert "\n" not in str(raised.value)


def test_pycocotools_is_not_asked_to_fill_polygons_in_more_pixels_than_are_read(tmp_path: Path) -> None:
    """Runs of 2²⁹ pixels and more take 7 characters; pycocotools has room for 6, and wrote over what lay behind."""
    entry = {"category_id": 3, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 1, 0, 1, 1]]}
    images, file = write_coco_masks(tmp_path, [entry])
    content = json.loads(file.read_text())
    content["images"][0] |= {"height": 30_000, "width": 30_000}
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="30000 x 30000 pixels are more than"):
        read_coco(images, file, masks=True)
