"""Objects in tiles: each is counted once, and one inside a tile is what the untiled image would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detseg.errors import ConfigError
from detseg.predict import Detections, Predictor, load_predictor
from detseg.predict.tiles.cuts import starts_of
from detseg.predict.tiles.objects import merged
from detseg.structures import UInt8Array
from tests.predict.networks import CLASSES, FoundMasks, noise
from tests.predict.planted import PlantedPredictor, planted_image
from tests.tiny import TinyRun


def assert_same(found: Detections, expected: Detections) -> None:
    """But for the order of equal scores."""
    keys = [np.lexsort((*one.boxes.T, one.labels, -one.scores)) for one in (found, expected)]
    found, expected = found[keys[0]], expected[keys[1]]
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert (found.masks is None) == (expected.masks is None)
    if found.masks is not None and expected.masks is not None:
        assert found.masks == expected.masks


# Each row: what it is, boxes as x1, y1, x2, y2, score, tile, cut; which stay by `ios`, and by `nms`.
WHOLE, CUT = False, True
CASES: list[tuple[str, list[tuple[float, float, float, float, float, int, bool]], list[int], list[int]]] = [
    ("the same, twice whole", [(0, 0, 10, 10, 0.8, 0, WHOLE), (1, 0, 11, 10, 0.9, 1, WHOLE)], [1], [1]),
    ("neighbours (IoU 3/7)", [(0, 0, 10, 10, 0.9, 0, WHOLE), (4, 0, 14, 10, 0.8, 1, WHOLE)], [0, 1], [0, 1]),
    ("one in another, both whole", [(0, 0, 20, 20, 0.9, 0, WHOLE), (5, 5, 10, 10, 0.8, 1, WHOLE)], [0, 1], [0, 1]),
    ("two of one tile", [(0, 0, 10, 10, 0.9, 0, WHOLE), (1, 0, 11, 10, 0.8, 0, WHOLE)], [0, 1], [0, 1]),
    ("a part and the whole", [(0, 0, 4, 10, 0.9, 0, CUT), (0, 0, 10, 10, 0.5, 1, WHOLE)], [1], [0, 1]),
    ("a part, and junk", [(0, 0, 8, 10, 0.9, 0, CUT), (0, 0, 10, 10, 0.4, 1, WHOLE)], [0], [0]),
    ("small, on a large one that is cut", [(0, 0, 90, 90, 0.9, 0, CUT), (5, 5, 9, 9, 0.8, 1, WHOLE)], [0, 1], [0, 1]),
    ("two parts that share 3/5", [(0, 0, 5, 10, 0.8, 0, CUT), (2, 0, 12, 10, 0.9, 1, CUT)], [1], [0, 1]),
    ("two parts that share 2/5", [(0, 0, 5, 10, 0.8, 0, CUT), (3, 0, 12, 10, 0.9, 1, CUT)], [0, 1], [0, 1]),
]


@pytest.mark.parametrize(("rows", "by_ios", "by_nms"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_which_boxes_are_one_object(rows: list[tuple[Any, ...]], by_ios: list[int], by_nms: list[int]) -> None:
    boxes, scores = np.array([row[:4] for row in rows], dtype=np.float32), np.array([row[4] for row in rows])
    tiles, cut = np.array([row[5] for row in rows]), np.array([row[6] for row in rows])
    labels = np.zeros(len(rows), dtype=np.int64)
    assert sorted(merged(boxes, scores, labels, tiles, cut, "ios").tolist()) == by_ios
    assert sorted(merged(boxes, scores, labels, tiles, cut, "nms").tolist()) == by_nms
    assert len(merged(boxes, scores, np.arange(len(rows)), tiles, cut)) == len(rows)  # of different classes


def box_area(box: Any) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def one_by_one(boxes: Any, scores: Any, labels: Any, tiles: Any, cut: Any, merge: str) -> list[int]:
    """The same rules, a pair at a time."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-(scores[i] * (0.5 if cut[i] else 1)), -box_area(boxes[i]), i)):
        for j in kept:
            if labels[i] != labels[j] or tiles[i] == tiles[j]:
                continue
            width = min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0])
            height = min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1])
            inside = max(width, 0) * max(height, 0)
            areas = [box_area(boxes[i]), box_area(boxes[j])]
            size = sum(areas) - inside
            if merge == "ios" and (cut[i] or cut[j]):
                size = min(area for area, is_cut in zip(areas, (cut[i], cut[j]), strict=True) if is_cut)
            if inside > 0.5 * size:
                break
        else:
            kept.append(i)
    return sorted(kept, key=lambda i: (-scores[i], i))


@pytest.mark.parametrize("merge", ["ios", "nms"])
@given(seed=st.integers(0, 10_000), num=st.integers(0, 60))
@settings(max_examples=60)
def test_merging_is_that_of_pair_by_pair(merge: Any, seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 30, (num, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 20, (num, 2))], axis=1).astype(np.float32)
    scores, labels = rng.integers(0, 9, num) / 8, rng.integers(0, 2, num)
    tiles, cut = rng.integers(0, 4, num), rng.random(num) < 0.4
    found = merged(boxes, scores, labels, tiles, cut, merge)
    assert found.tolist() == one_by_one(boxes, scores, labels, tiles, cut, merge)


@given(seed=st.integers(0, 10_000), num=st.integers(0, 12), masks=st.booleans(), batch_size=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_objects_on_seams_are_counted_once(seed: int, num: int, masks: bool, batch_size: int) -> None:
    """Rectangles of up to the overlap less what counts as the edge; of two that overlap in different channels both
    stay."""
    rng = np.random.default_rng(seed)
    boxes = []
    for i in range(num):
        width, height = rng.integers(3, 21, 2).tolist()
        x, y = int(rng.integers(0, 130 - width)), int(rng.integers(0, 90 - height))
        if i % 2:  # beside the one before
            x, y = min(boxes[-1][0] + 12, 130 - width), boxes[-1][1]
        boxes.append((x, y, x + width, min(y + height, 90)))
    image, predictor = planted_image((90, 130), boxes), PlantedPredictor(masks)
    shown = [int((image[..., i % 3] == 1 + i // 3).sum()) for i in range(num)]
    if shown == [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]:  # else one hides a part of another
        assert_same(predictor(image, batch_size, tile=(40, 64), overlap=24), predictor(image))


def test_seams_by_hand() -> None:
    # 100 pixels in tiles of 40 that share 10: they begin at 0, 30 and 60.
    assert starts_of(100, 40, 10) == [0, 30, 60]
    image = planted_image((40, 100), [(22, 5, 36, 15), (32, 20, 36, 30), (58, 5, 68, 15)])
    predictor = PlantedPredictor(masks=True)
    found = predictor(image, tile=(40, 40))  # a quarter is 10
    assert found.boxes.tolist() == [[22, 5, 36, 15], [32, 20, 36, 30], [58, 5, 68, 15]]
    assert found.masks is not None
    assert found.masks.boxes.tolist() == found.boxes.tolist()
    assert predictor.seen == [(40, 40)] * 3
    assert (
        len(PlantedPredictor()(image, tile=(40, 40), merge="nms")) == 4
    )  # 6 of the 14 columns of the first one are another box


def test_an_object_longer_than_the_overlap_needs_the_whole_image() -> None:
    image = planted_image((40, 300), [(5, 10, 295, 30), (200, 32, 205, 36)])
    predictor = PlantedPredictor(masks=True)
    assert len(predictor(image, tile=(40, 40))) > 3
    predictor.seen.clear()
    found = predictor(image, 4, tile=(40, 40), full_image=True)
    assert_same(found, predictor(image))
    assert (40, 300) in predictor.seen


def test_a_small_image_is_padded_not_enlarged() -> None:
    image = planted_image((20, 50), [(40, 12, 50, 20), (0, 0, 5, 5)])
    predictor = PlantedPredictor(masks=True)
    found = predictor(image, tile=(32, 32))
    assert set(predictor.seen) == {(32, 32)}
    assert_same(found, PlantedPredictor(masks=True)(image))
    with pytest.raises(ValueError, match="an image needs at least one pixel"):
        predictor(image[:0], tile=(32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": (0, 32)}, r"^tile: expected height and width in pixels, got \(0, 32\)$"),
        ({"tile": (32, 32), "overlap": 32}, "^overlap: expected 0 to 31 pixels .*less a pixel"),
        ({"tile": (32, 32), "merge": "best"}, "^merge: expected ios or nms, got 'best'$"),
        ({"overlap": 4}, "^overlap, full_image, merge: belong to tiles"),
        ({"full_image": True}, "^overlap, full_image, merge: belong to tiles"),
        ({"merge": "nms"}, "^overlap, full_image, merge: belong to tiles"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlantedPredictor()(np.zeros((40, 40, 3), dtype=np.uint8), **options)


@pytest.mark.parametrize("name", ["yolo", "masks"])
def test_of_a_network(name: str, tiny_run: TinyRun) -> None:
    """A picture of four: tiles that lie on them are these four."""
    if name == "yolo":
        paths = sorted((tiny_run.data_root / "JPEGImages").glob("val*.png"))[:4]
        four = [np.array(Image.open(path).convert("RGB").resize((64, 64))) for path in paths]
        predictor: Any = load_predictor(tiny_run.run_dir, "cpu", 0.1)
    else:
        regions = torch.tensor([[10.0, 20, 50, 44], [-12.5, 3, 34, 40], [60, 30, 90, 80]])
        four, predictor = [noise(64, 96)] * 4, Predictor(FoundMasks(regions).eval(), CLASSES, (64, 96))
    image: UInt8Array = np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
    tile = four[0].shape[:2]
    for one in four:
        assert_same(predictor(one, tile=tile), predictor(one))
    (found,) = predictor.stream([image], tile=tile, overlap=0)
    expected = [predictor(one) for one in four]
    assert len(found) == sum(map(len, expected)) > 4
    for number, one in enumerate(expected):
        y, x = number // 2 * tile[0], number % 2 * tile[1]
        corner = np.array([x, y, x, y], dtype=np.float32)
        inside = ((found.boxes >= corner) & (found.boxes <= corner + np.tile(tile[::-1], 2))).all(axis=1)
        np.testing.assert_array_equal(found[inside].boxes, one.boxes + corner)
        np.testing.assert_array_equal(found[inside].scores, one.scores)
        if one.masks is not None:
            dense = found[inside].masks.dense()
            np.testing.assert_array_equal(dense[:, y : y + tile[0], x : x + tile[1]], one.masks.dense())
            assert dense.sum() == one.masks.areas.sum() > 0
