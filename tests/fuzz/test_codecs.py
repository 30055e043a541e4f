"""Polygons and annotation files: what is written comes back, and pycocotools sees the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as referee

from detseg.data.annotations.model import region_counts
from detseg.data.formats.coco import read_coco
from detseg.data.formats.coco_writer import CocoWriter, coco_ground_truth
from detseg.data.formats.voc import read_voc, read_voc_xml
from detseg.data.formats.voc_writer import VocAnnotation, VocWriter, write_voc_xml
from detseg.ops.masks import compressed
from detseg.structures import InstanceMasks
from tests.fuzz.strategies import boxes_inside, seeds

WITH_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)


@settings(max_examples=60)
@given(seeds, st.sampled_from([(1, 1), (1, 40), (7, 9), (200, 150)]), st.sampled_from([1.0, 10.0, 1e3]))
def test_any_polygons_fill_the_pixels_that_pycocotools_fills(seed: int, hw: tuple[int, int], reach: float) -> None:
    rng = np.random.default_rng(seed)
    polygons = [
        (rng.normal(scale=reach, size=2 * int(rng.integers(3, 30))) + rng.choice([0, 5])).tolist() for _ in range(3)
    ]
    found = InstanceMasks(hw, tuple(region_counts(parts, hw) for parts in (polygons[:1], polygons))).dense()
    for mask, parts in zip(found, (polygons[:1], polygons), strict=True):
        np.testing.assert_array_equal(mask, referee.decode(referee.frPyObjects(parts, *hw)).any(axis=2))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_runs_without_pixels_change_nothing(lengths: list[int]) -> None:
    hw = (1, sum(lengths))
    expected = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    stated = (lengths, compressed(np.array(lengths)).decode())
    masks = InstanceMasks(hw, tuple(region_counts({"size": list(hw), "counts": counts}, hw) for counts in stated))
    if sum(lengths):
        np.testing.assert_array_equal(masks.dense(), np.stack([expected[None]] * 2))
        inside = np.flatnonzero(expected)
        bounds = [inside[0], 0, inside[-1] + 1 - inside[0], 1] if len(inside) else [0, 0, 0, 0]
        for text in masks.counts:  # pycocotools counts runs of no pixels in
            assert referee.toBbox({"size": list(hw), "counts": text}).tolist() == bounds
    assert masks.areas.tolist() == [int(expected.sum())] * 2


@given(st.lists(st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=2)), max_size=9))
def test_any_values_are_a_polygon_or_refused(values: list[object]) -> None:
    try:
        counts = region_counts([values], (9, 7))
    except ValueError:
        return
    assert len(values) >= 6
    assert InstanceMasks((9, 7), (counts,)).dense().shape == (1, 9, 7)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=12)


@WITH_FOLDER
@given(seed=seeds, names=st.lists(NAMES.filter(lambda name: name == name.strip()), max_size=6))
def test_voc_xml_comes_back_to_a_thousandth_of_a_pixel(tmp_path: Path, seed: int, names: list[str]) -> None:
    rng, hw = np.random.default_rng(seed), (1 + seed % 3000, 1 + seed % 701)
    boxes = boxes_inside(hw, len(names), rng, cells=1000).astype(np.float64)
    flags = rng.random(len(names)) < 0.5
    write_voc_xml(tmp_path / "a.xml", VocAnnotation("a.jpg", hw, tuple(names), boxes, flags, ~flags))
    found = read_voc_xml(tmp_path / "a.xml")
    assert (found.filename, found.hw, found.names) == ("a.jpg", hw, tuple(names))
    assert found.difficult.tolist() == flags.tolist()
    assert found.truncated.tolist() == (~flags).tolist()
    for low, high, side in ((0, 2, hw[1]), (1, 3, hw[0])):
        wide = boxes[:, high] - boxes[:, low] >= 1
        np.testing.assert_allclose(found.boxes[wide][:, [low, high]], boxes[wide][:, [low, high]], atol=6e-4)
        thin = found.boxes[~wide]  # a pixel wide, about the same centre, inside the image
        assert ((thin[:, low] >= -1e-9) & (thin[:, high] <= side + 1e-9)).all()
        np.testing.assert_allclose(thin[:, high] - thin[:, low], 1, atol=2e-3)
        assert (np.abs(thin[:, low] + thin[:, high] - boxes[~wide][:, low] - boxes[~wide][:, high]) <= 1.001).all()


@WITH_FOLDER
@given(seed=seeds, hw=st.tuples(st.integers(1, 60), st.integers(1, 60)), num=st.integers(0, 6))
def test_both_layouts_come_back(tmp_path: Path, seed: int, hw: tuple[int, int], num: int) -> None:
    rng, names = np.random.default_rng(seed), ("a", "b", "c")
    boxes = np.floor(boxes_inside(hw, num, rng, cells=1)).astype(np.float64)
    masks = np.zeros((num, *hw), dtype=np.bool_)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    labels, image = rng.integers(0, 3, num), rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
    voc, coco = VocWriter(tmp_path / "voc", names), CocoWriter(tmp_path / "coco", names)
    voc.add("train", "x", image, boxes, labels, masks, np.zeros(num, dtype=np.bool_))
    coco.add("train", "x", image, boxes, labels, masks)
    voc.finish()
    coco.finish()
    file = tmp_path / "coco" / "annotations" / "instances_train.json"
    again = tmp_path / "again.json"
    read = read_coco(tmp_path / "coco" / "train", file, masks=True)
    again.write_text(json.dumps(coco_ground_truth(read)))
    for dataset in (
        read_voc(tmp_path / "voc", "train", classes=names),
        read,
        read_coco(tmp_path / "coco" / "train", again, masks=True),
    ):
        truth = dataset.annotations(0)
        np.testing.assert_array_equal(truth.boxes, boxes)
        np.testing.assert_array_equal(truth.labels, labels)
        np.testing.assert_array_equal(truth.area, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
        sample = dataset[0]
        assert sample.hw == dataset.hw(0) == hw
        np.testing.assert_array_equal(sample.boxes, boxes.astype(np.float32))
        if truth.masks is not None:
            np.testing.assert_array_equal(truth.masks.dense(), masks)
