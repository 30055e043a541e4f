"""Image and semantic map stay aligned through every combination of changes that move pixels.

The images say by colour which label a pixel has (`LABEL_COLORS`).  Where a result shows one of these colours pure,
every pixel that was mixed into it has that label, so the map must say so, too: at all such pixels, borders included.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.config.schema.data import (
    AffineConfig,
    AugmentationConfig,
    ColorConfig,
    CutoutConfig,
    ElasticConfig,
    JpegConfig,
)
from detseg.data.augment.geometry import AugmentItem
from detseg.data.augment.pipeline import TrainTransform
from detseg.ops.letterbox import PAD_VALUE, Letterbox
from detseg.structures import UInt8Array
from tests.data.images.painted import blobs, painted, pure_labels

HW = (96, 128)
GEOMETRY: dict[str, object] = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "crop": 0.7,
    "scale_jitter": (0.5, 2.0),
    "affine": AffineConfig(probability=0.7, scale=(0.7, 1.5), translate=0.3, rotate_degrees=180, shear_degrees=20),
    "elastic": ElasticConfig(probability=0.7, strength=0.05),
}


def transform(**changes: object) -> TrainTransform:
    """Everything off but what is named."""
    return TrainTransform(AugmentationConfig.model_validate({"horizontal_flip": 0.0, **changes}))


def labels_of(item: AugmentItem) -> UInt8Array:
    assert item.semantic is not None
    return item.semantic


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(sorted(GEOMETRY))),
    st.tuples(st.integers(40, 200), st.integers(40, 200)),
    st.integers(0, 2**32 - 1),
)
def test_labels_lie_on_their_pixels(switched_on: set[str], hw: tuple[int, int], seed: int) -> None:
    item = blobs(hw, seed)
    result = transform(**{key: GEOMETRY[key] for key in switched_on})(item, HW, np.random.default_rng(seed))
    semantic = labels_of(result)
    assert result.image.shape == (*HW, 3)
    assert semantic.shape == HW
    assert semantic.dtype == np.uint8
    assert set(np.unique(semantic)) <= {*np.unique(labels_of(item)).tolist(), 255}
    labels, pure = pure_labels(result.image)
    assert pure.mean() > 0.4
    np.testing.assert_array_equal(semantic[pure], labels[pure])


@pytest.mark.parametrize("hw", [(50, 80), (300, 200), HW])
def test_switched_off_the_map_is_as_letterboxed(hw: tuple[int, int]) -> None:
    item = blobs(hw, 0, fields=30)
    result = transform()(item, HW, np.random.default_rng(0))
    np.testing.assert_array_equal(result.semantic, Letterbox.fit(hw, HW).apply_labels(labels_of(item)))


def test_flips_are_exact() -> None:
    item = blobs(HW, 0, fields=40)
    for across, down in ((0, 1), (1, 0), (1, 1)):
        result = transform(horizontal_flip=across, vertical_flip=down)(item, HW, np.random.default_rng(0))
        step = (-1 if down else 1, -1 if across else 1)
        np.testing.assert_array_equal(result.semantic, labels_of(item)[:: step[0], :: step[1]])
        np.testing.assert_array_equal(result.image, item.image[:: step[0], :: step[1]])


def test_changes_of_pixels_leave_the_map() -> None:
    changes = transform(
        color=ColorConfig(probability=1),
        blur=1,
        noise=1,
        jpeg=JpegConfig(probability=1),
        cutout=CutoutConfig(probability=1),
    )
    item = blobs(HW, 0)
    result = changes(item, HW, np.random.default_rng(0))
    assert (result.image != item.image).any()
    np.testing.assert_array_equal(result.semantic, item.semantic)


def centroid(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centre: npt.NDArray[np.float64] = (np.indices(weights.shape) * weights).sum(axis=(1, 2)) / weights.sum()
    return centre


@pytest.mark.parametrize("switched_on", [*([key] for key in sorted(GEOMETRY)), sorted(GEOMETRY)], ids="+".join)
@pytest.mark.parametrize("side", [60, 230])
def test_image_and_map_do_not_drift_apart(switched_on: list[str], side: int) -> None:
    """The centroid of a disc is the same in both, on average within a tenth of a pixel."""
    rows, columns = np.indices((side, side)) + 0.5
    change = transform(**{key: GEOMETRY[key] for key in switched_on})
    drifts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(0.4, 0.6, 2) * side
        disc = (columns - x) ** 2 + (rows - y) ** 2 < (0.15 * side) ** 2
        image = np.where(disc[..., None], 255, PAD_VALUE).astype(np.uint8).repeat(3, axis=2)
        item = painted((side, side))._replace(image=image, semantic=disc.astype(np.uint8))
        result = change(item, HW, rng)
        disc_after = (labels_of(result) == 1).astype(np.float64)
        framed = np.pad(disc_after[1:-1, 1:-1], 1)
        if disc_after.sum() > 100 and (framed == disc_after).all():  # in sight as a whole
            drifts.append(centroid(result.image[..., 0].astype(np.float64) - PAD_VALUE) - centroid(disc_after))
    assert len(drifts) > 15
    assert np.abs(np.mean(drifts, axis=0)).max() < 0.1
    assert np.abs(drifts).max() < 0.5


def test_a_deformed_image_is_still_that_image() -> None:
    """Elastic deformation moves what is there by a few pixels, and moves something."""
    item = blobs(HW, 0)
    change = transform(elastic=ElasticConfig(probability=1))
    changed = [(labels_of(change(item, HW, np.random.default_rng(k))) != item.semantic).mean() for k in range(20)]
    assert min(changed) > 0.01
    assert max(changed) < 0.3


@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_scale_jitter_affine_map_and_elastic_deformation_add_up(elastic: float) -> None:
    """Twice a half is a quarter along each side, 24 × 32 pixels, wherever they lie."""
    item = painted(HW)._replace(semantic=np.zeros(HW, dtype=np.uint8))
    change = transform(
        scale_jitter=(0.5, 0.5),
        affine=AffineConfig(probability=1, scale=(0.5, 0.5), translate=0),
        elastic=ElasticConfig(probability=elastic, strength=0.002),
    )
    areas, shapes = [], set()
    for seed in range(30):
        semantic = labels_of(change(item, HW, np.random.default_rng(seed)))
        areas.append(int((semantic == 0).sum()))
        shapes.add(semantic.tobytes())
    assert abs(np.mean(areas) - 24 * 32) < 12
    assert max(areas) <= 25 * 33 + 20
    assert len(shapes) == 30
