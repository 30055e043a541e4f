"""Near duplicates: the known pair of BCCD, copies of all kinds, no accidents, exact against brute force."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.data.images.similar import (
    SIGNATURE_BYTES,
    duplicate_groups,
    near_duplicates,
    read_signatures,
    signature,
)
from tests.shared_data import shared_data


def _pairs(signatures: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(pair) for pairs in near_duplicates(signatures) for pair in pairs.tolist()]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("bccd/JPEGImages", [("BloodImage_00037.jpg", "BloodImage_00038.jpg")]),
        ("dsb2018_nuclei/images", []),
        ("coco_mini/images", []),
    ],
)
def test_real_images_have_the_near_duplicates_that_are_known_and_no_others(
    folder: str, expected: list[tuple[str, str]]
) -> None:
    files = sorted(path for path in (shared_data() / folder).iterdir() if path.suffix in {".jpg", ".png"})
    signatures = read_signatures([Path("nowhere.png"), *files, Path("nowhere.jpg")])
    assert signatures[1:-1].any(axis=1).all()
    found = _pairs(signatures[1:])
    assert [(i + 1, j + 1) for i, j in found] == _pairs(signatures)  # what cannot be read is like nothing
    assert [(files[i].name, files[j].name) for i, j in found] == expected


def test_copies_of_one_image_are_found_and_flat_images_are_not(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), (320, 240))
    moved = np.roll(image, 60, axis=1)
    copies = [
        cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA),
        cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1),
        np.clip(image * 1.1, 0, 255).astype(np.uint8),
    ]
    flat = [np.full((50, 60, 3), level, np.uint8) for level in (0, 0, 90, 91, 255)]
    noisy = [np.full((99, 80, 3), 90, np.uint8) + random.integers(0, 4, (99, 80, 3), dtype=np.uint8) for _ in range(5)]
    signatures = np.stack([signature(one) for one in [*flat, image, *noisy, *copies, moved]])
    same = [5, 11, 12, 13]
    assert sorted(_pairs(signatures)) == [(i, j) for i in same for j in same if i < j]
    assert duplicate_groups(signatures).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 5, 5, 5, 14]
    assert len(duplicate_groups(signatures[:0])) == 0 == len(_pairs(signatures[:0]))


def test_pairs_are_those_of_brute_force_and_20_000_images_take_seconds() -> None:
    random = np.random.default_rng(1)
    signatures = random.integers(0, 256, (20_000, SIGNATURE_BYTES), dtype=np.uint8)
    for source, copy, bits in ((3, 19_000, 12), (3, 7, 6), (500, 501, 13), (12_345, 19_999, 0)):
        signatures[copy] = signatures[source]
        flipped = np.unpackbits(signatures[copy, :8])
        flipped[:bits] ^= 1
        signatures[copy, :8] = np.packbits(flipped)
    start = time.perf_counter()
    found = _pairs(signatures)
    assert time.perf_counter() - start < 20  # one to two on the machine that this was written on
    assert found == [(3, 7), (3, 19_000), (7, 19_000), (12_345, 19_999)]
    copies = signatures[[3, 7, 500, 501, 12_345, 19_000, 19_999]]
    assert duplicate_groups(copies).tolist() == [0, 0, 2, 3, 4, 0, 4]
