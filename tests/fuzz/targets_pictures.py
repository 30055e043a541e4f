"""The readers of images and masks, with valid files to start from."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detseg.data.images.masks import MaskEncoding, read_mask
from detseg.structures import ClassTable
from tests.data.formats.readers import LABELS, MASK_CLASSES
from tests.fuzz.campaign import Target
from tests.fuzz.contracts import check_image, check_semantic
from tests.fuzz.mutator import PNG_SIGNATURE, byte_mutator, png_chunks
from tests.fuzz.targets_annotations import target

_BYTES = byte_mutator(
    (
        b"IHDR",
        b"tRNS",
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc2",
        b"\xff\xdd\x00\x04",
        b"Exif\x00\x00MM",
        b"II*\x00",
        b"VP8L",
    )
)
_ORIENTATION = 274
_COLORS = ((0, 0, 0), (255, 0, 0), (0, 128, 0))


def image(folder: Path) -> Target:
    """An image of any format that is read."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (9, 14), dtype=np.uint8))
    color = Image.fromarray(rng.integers(0, 256, (9, 14, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    seeds = [
        *(_saved(picture, kind) for picture in (grey, color) for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")),
        *(_saved(color, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF", "WEBP")),
        *(_saved(color.convert(mode), "PNG") for mode in ("P", "RGBA", "LA", "1", "I;16")),
        *(_saved(color.convert(mode), "TIFF", compression="tiff_lzw") for mode in ("CMYK", "LAB", "RGB")),
        _saved(color, "JPEG", progressive=True),
        _saved(color.convert("CMYK"), "JPEG"),
        _saved(color, "PNG", save_all=True, append_images=[color, color.rotate(180)]),
        _saved(color, "PPM"),
    ]

    def read(content: bytes) -> None:
        path = folder / "image.jpg"
        path.write_bytes(content)
        check_image(path)

    return Target("image", tuple(seeds), _chunks_or_bytes, read, str(folder))


def mask_values(folder: Path) -> Target:
    """A mask picture of values."""
    encoding = MaskEncoding(ClassTable(MASK_CLASSES), None, 255)
    grey, palette = Image.fromarray(LABELS), Image.fromarray(LABELS, mode="P")
    palette.putpalette([(7 * k) % 256 for k in range(768)])
    seeds = [_saved(grey, kind) for kind in ("PNG", "TIFF", "BMP")] + [
        _saved(palette, kind) for kind in ("PNG", "TIFF")
    ]
    return _mask("mask_values", folder, encoding, seeds)


def mask_colors(folder: Path) -> Target:
    """A mask picture of colours."""
    encoding = MaskEncoding(ClassTable(MASK_CLASSES), None, None, _COLORS, ((255, 255, 255),))
    picture = Image.fromarray(np.array(_COLORS, dtype=np.uint8)[LABELS])
    seeds = [_saved(picture, kind) for kind in ("PNG", "TIFF", "BMP")]
    palette = picture.quantize(3, dither=Image.Dither.NONE)
    seeds += [_saved(palette, kind) for kind in ("PNG", "GIF")]
    return _mask("mask_colors", folder, encoding, seeds)


def _mask(name: str, folder: Path, encoding: MaskEncoding, seeds: list[bytes]) -> Target:
    folder.mkdir(parents=True, exist_ok=True)

    def read(content: bytes) -> None:
        path = folder / "mask.png"
        path.write_bytes(content)
        labels = read_mask(path, encoding)
        assert labels.dtype == np.uint8
        assert labels.ndim == 2
        assert set(np.unique(labels).tolist()) <= {0, 1, 2, 255}

    return Target(name, tuple(seeds), _chunks_or_bytes, read, str(folder))


def semantic_voc(folder: Path) -> Target:
    """A mask in a VOC folder, whose classes stand in ``classes.txt``."""
    seed = _saved(Image.fromarray(LABELS), "PNG")
    return target("semantic_voc", folder, [seed], _chunks_or_bytes, check_semantic)


def _saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def _chunks_or_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes the chunks of a PNG, or else the bytes."""
    return png_chunks(data, rng) if data.startswith(PNG_SIGNATURE) and rng.random() < 0.6 else _BYTES(data, rng)
