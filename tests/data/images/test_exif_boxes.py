"""Turned photographs through a whole data set: upright in every loader, with the boxes where the objects are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.config.schema.data import AugmentationConfig
from detseg.data.formats.voc import read_voc
from detseg.data.loading.loader import eval_loader, train_loader
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.data.images.painted import bounds, save_turned

BOX = [9, 6, 30, 14]
"""xyxy on the upright image; nowhere near the middle, so that it moves with each of the orientations."""


def test_all_orientations_in_training_and_evaluation(tmp_path: Path) -> None:
    upright = np.zeros((40, 60, 3), dtype=np.uint8)
    upright[6:14, 9:30] = 255
    stems = [f"turned{orientation}" for orientation in range(1, 9)]
    xml = annotation_xml(object_xml(("white", 10, 7, 30, 14)), size_wh=(60, 40))
    write_voc(tmp_path, {"train": "\n".join(stems)}, dict.fromkeys(stems, xml))
    for orientation, stem in enumerate(stems, start=1):
        save_turned(tmp_path / "JPEGImages" / f"{stem}.jpg", upright, orientation, quality=100, subsampling=0)
    dataset = read_voc(tmp_path, "train")
    for index in range(8):
        assert dataset[index].boxes.tolist() == [BOX]
        assert np.abs(dataset[index].image.astype(int) - dataset[0].image).max() < 25  # JPEG's rounding
    evaluation = eval_loader(dataset, input_hw=(64, 96), batch_size=4, num_workers=0)
    plain = AugmentationConfig(horizontal_flip=0.0)
    training = train_loader(dataset, plain, input_hw=(64, 96), batch_size=4, num_workers=0, seed=0, max_epochs=1)
    for loader in (evaluation, training):
        seen: list[int] = []
        for batch in loader:
            for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True):
                assert target.boxes.shape == (1, 4)  # JPEG and the zoom blur the edges of the white
                np.testing.assert_allclose(target.boxes[0], bounds(image.permute(1, 2, 0).numpy()), atol=1.5)
                seen.append(index)
        assert sorted(seen) == list(range(8))
    assert next(iter(evaluation)).letterboxes[0].scale_xy == (1.6, 1.6)  # 40 x 60 into 64 x 96, sides not swapped
