"""Turned photographs through whole data sets: upright in every loader, with the boxes where the objects are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from detseg.config.schema.data import AugmentationConfig
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.voc import read_voc
from detseg.data.loading.loader import eval_loader, train_loader
from detseg.structures import Batch
from tests.data.formats.voc_layout import annotation_xml, object_xml, write_voc
from tests.data.images.painted import bounds

WIDTH, HEIGHT = 60, 40
BOX = (9, 6, 30, 14)
"""xyxy on the upright picture; nowhere near the middle, so that it moves with each of the orientations."""

STORED_AS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""Orientation → what turns an upright picture into what is stored with it, a member of ``Image.Transpose``."""

PLAIN = AugmentationConfig(horizontal_flip=0.0)


def write_picture(path: Path, orientation: int) -> None:
    upright = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    x1, y1, x2, y2 = BOX
    upright[y1:y2, x1:x2] = 255
    stored = Image.fromarray(upright)
    if orientation in STORED_AS:
        stored = stored.transpose(Image.Transpose(STORED_AS[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif, quality=100, subsampling=0)


def voc(root: Path) -> DetectionDataset:
    x1, y1, x2, y2 = BOX
    xml = annotation_xml(object_xml(("white", x1 + 1, y1 + 1, x2, y2)), size_wh=(WIDTH, HEIGHT))
    write_voc(root, {"train": "\n".join(f"turned{i}" for i in range(1, 9))}, {f"turned{i}": xml for i in range(1, 9)})
    for orientation in range(1, 9):
        write_picture(root / "JPEGImages" / f"turned{orientation}.jpg", orientation)
    return read_voc(root, "train")


def assert_on_the_object(batches: Iterable[Batch | None]) -> None:
    """Every box lies on the white of its picture, to a pixel and a half: JPEG and the zoom blur its edges."""
    seen: list[int] = []
    for batch in batches:
        assert batch is not None
        for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True):
            found = bounds(image.permute(1, 2, 0).numpy())
            assert target.boxes.shape == (1, 4)
            np.testing.assert_allclose(target.boxes[0].numpy(), found, atol=1.5)
            seen.append(index)
    assert sorted(seen) == list(range(8))


def test_all_orientations_in_training_and_evaluation(tmp_path: Path) -> None:
    dataset = voc(tmp_path)
    assert len(dataset) == 8
    upright = [dataset[i] for i in range(8)]
    for sample in upright:
        assert sample.hw == (HEIGHT, WIDTH)
        assert sample.boxes.tolist() == [list(BOX)]
        assert np.abs(sample.image.astype(int) - upright[0].image).max() < 25  # they differ in JPEG's rounding alone
    evaluation = eval_loader(dataset, input_hw=(64, 96), batch_size=4, num_workers=0)
    assert_on_the_object(evaluation)
    assert_on_the_object(
        train_loader(dataset, PLAIN, input_hw=(64, 96), batch_size=4, num_workers=0, seed=0, max_epochs=1)
    )
    letterbox = next(iter(evaluation)).letterboxes[0]
    assert (letterbox.scale_xy[0], letterbox.scale_xy[1]) == (1.6, 1.6)  # 40 x 60 into 64 x 96, sides not swapped
