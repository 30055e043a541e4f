"""The synthetic set through both readers: the same scenes, with the same labels, from either layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.voc import read_voc
from detseg.data.synthetic.drawing import SHAPE_CLASSES
from detseg.data.synthetic.scenes import Split, render_scene
from detseg.data.synthetic.write import write_shapes

NUM = 45  # enough for an image without objects, and for every class in both splits


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, num_train=NUM, num_val=NUM, size=64, max_objects=2, seed=1)
    return root


def read(root: Path, layout: str, split: Split) -> DetectionDataset:
    if layout == "voc":
        return read_voc(root / "voc", split)
    return read_coco(root / "coco" / split, root / "coco/annotations" / f"instances_{split}.json")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_readers_give_the_scenes_back(root: Path, layout: str, split: Split) -> None:
    dataset = read(root, layout, split)
    assert dataset.classes.names == SHAPE_CLASSES
    assert len(dataset) == NUM
    nums = set()
    for index in range(NUM):
        scene = render_scene(1, split, index, size=64, max_objects=2)
        sample, truth = dataset[index], dataset.annotations(index)
        assert (truth.boxes == scene.boxes).all()
        assert (truth.labels == scene.labels).all()
        assert not truth.ignore.any()
        assert (sample.boxes == scene.boxes).all()
        assert sample.image.shape == scene.image.shape
        assert np.abs(sample.image.astype(float) - scene.image).mean() < 4  # JPEG of noise
        if layout == "voc":
            assert (truth.truncated == scene.truncated).all()
        else:
            assert (truth.area == scene.masks.sum(axis=(1, 2))).all()
        nums.add(len(scene.labels))
    assert nums == {0, 1, 2}
