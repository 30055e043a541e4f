"""The synthetic scenes: the same pixels every time, ground truth that fits the pixels, visible objects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detseg.data.shapes import MIN_SIDE, MIN_VISIBLE, Scene, Split, render_scene, shape_coverage

SCENES = [render_scene(7, "train", index, size=160, max_objects=6) for index in range(120)]


def content(scene: Scene) -> list[bytes]:
    return [array.tobytes() for array in (scene.image, scene.masks, scene.labels, scene.boxes, scene.truncated)]


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    for index in (119, 3, 50, 0):
        assert content(render_scene(7, "train", index, size=160, max_objects=6)) == content(SCENES[index])
    keys: list[tuple[int, Split, int]] = [(7, "train", 0), (8, "train", 0), (7, "val", 0), (7, "train", 1)]
    assert len({render_scene(*key, size=96, max_objects=3).image.tobytes() for key in keys}) == 4


def test_arrays_fit_each_other_and_objects_the_pixels() -> None:
    for scene in SCENES:
        hw, num = scene.image.shape[:2], len(scene.labels)
        assert (scene.image.dtype, scene.image.shape) == (np.uint8, (*hw, 3))
        assert max(hw) == 160
        assert min(hw) >= 96
        assert num <= 6
        assert (scene.masks.dtype, scene.masks.shape) == (np.bool_, (num, *hw))
        assert (scene.boxes.dtype, scene.boxes.shape) == (np.float64, (num, 4))
        assert (scene.labels.dtype, scene.labels.shape) == (np.int64, (num,))
        assert (scene.truncated.dtype, scene.truncated.shape) == (np.bool_, (num,))
        assert (scene.masks.sum(axis=0) <= 1).all()
        background = scene.image[~scene.masks.any(axis=0)].mean(axis=0)
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert min(box[2:] - box[:2]) >= MIN_SIDE
            assert np.linalg.norm(scene.image[mask].mean(axis=0) - background) > 45
        if num == 1 and scene.boxes.min() > 0 and (scene.boxes[0, 2:] < hw[::-1]).all():  # alone and inside
            assert not scene.truncated[0]


def test_the_set_is_varied() -> None:
    labels = np.concatenate([scene.labels for scene in SCENES])
    boxes = np.concatenate([scene.boxes for scene in SCENES])
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert np.bincount(labels, minlength=5).min() >= 40
    assert longest.max() / longest.min() > 4
    assert 0.2 < np.concatenate([scene.truncated for scene in SCENES]).mean() < 0.8
    assert {len(scene.labels) for scene in SCENES} == set(range(7))
    assert {np.sign(scene.image.shape[0] - scene.image.shape[1]) for scene in SCENES} >= {-1, 1}
    empty = [not len(render_scene(0, "val", index, size=64, max_objects=1).labels) for index in range(1000)]
    assert 0.015 < np.mean(empty) < 0.05  # 30 ± 3 standard deviations of 5.4


def test_crowded_scenes_keep_every_object_visible() -> None:
    scene = render_scene(0, "train", 1, size=160, max_objects=60)
    assert len(scene.labels) > 6
    smallest = 16 * 16 * 5 * 0.42 * math.sin(math.pi / 5) / 4  # a whole star of the least size
    assert scene.masks.sum(axis=(1, 2)).min() >= MIN_VISIBLE * smallest * 0.9


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        ("ellipse", math.pi / 4),
        ("rectangle", 1.0),
        ("triangle", 0.5),
        ("ring", math.pi / 4 * (1 - 0.55**2)),
        ("star", 5 * 0.42 * math.sin(math.pi / 5) / 4),  # ten triangles with sides 1, 0.42 and 36 degrees between
    ],
)
def test_area_of_a_shape_is_that_of_geometry(name: str, fraction: float) -> None:
    coverage, _ = shape_coverage(name, length=60, width=40, angle=0.7, offset=(50.3, 20.9))
    # OpenCV fills the outline itself too: an eighth of a pixel more all round, which the long outline of a star shows.
    assert coverage.sum() == pytest.approx(fraction * 60 * 40, rel=0.04 if name == "star" else 0.02)


def test_an_upright_rectangle_covers_exactly_its_pixels() -> None:
    coverage, (left, top) = shape_coverage("rectangle", length=20, width=16, angle=0.0, offset=(30.0, 40.0))
    ys, xs = np.nonzero(coverage >= 0.5)
    assert (xs.min() + left, ys.min() + top, xs.max() + left + 1, ys.max() + top + 1) == (20, 32, 40, 48)
