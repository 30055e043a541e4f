"""What users met with their own data, one test a case: the input made here, and the line or number that is right."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from detseg.cli.deploy.predict import predict
from detseg.cli.tool import run_tool
from detseg.config.load import config_from_dict
from detseg.data.build import open_split
from detseg.data.datasets.detection import DetectionDataset
from detseg.data.formats.coco import read_coco
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.images.read import read_image
from detseg.data.loading.loader import eval_loader
from detseg.draw import draw_boxes
from detseg.errors import ConfigError, DataError
from detseg.metrics.detection import DetectionEvaluator
from detseg.predict import SegmentationPredictor
from detseg.predict.files import find_sources, predict_files
from detseg.structures import ClassTable
from detseg.tasks.detection import InstanceSegmentation
from detseg.tasks.semantic import SemanticSegmentation
from tests.data.formats.layouts import annotation_xml, object_xml
from tests.metrics.builders import found, truth
from tests.predict.networks import noise, two_levels, write_unet

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40)


def write_voc(root: Path, image: Path, names: str = "a") -> Path:
    """A VOC folder whose one image is ``image``, 20 x 20 pixels with an object."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main/train.txt").write_text(f"{names}\n")
    (root / "Annotations/a.xml").write_text(annotation_xml(object_xml(("cell", 2, 2, 9, 9)), image.name, (20, 20)))
    image.rename(root / "JPEGImages" / image.name)
    return root


def opened(root: Path, **settings: object) -> list[str]:
    """What the report of the training split says."""
    config = config_from_dict({"data": {"name": "voc", "root": str(root), **settings}, "model": {"name": "yolo"}})
    return open_split(config.data, "train").report.lines()


def test_d1_values_of_12_bits_in_16(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(values).save(tmp_path / "a.png")
    root = write_voc(tmp_path / "set", tmp_path / "a.png")
    proposed = "values 0 to 4095 of 65535 and would be nearly black: set data.value_range=[0, 4095]"
    assert any(proposed in line for line in opened(root))
    assert not any("value_range" in line for line in opened(root, value_range=[0, 4095]))
    (path,) = (root / "JPEGImages").iterdir()
    assert (read_image(path).max(), read_image(path, (0, 4095)).max()) == (15, 255)


def test_d4_more_objects_than_detections_count() -> None:
    boxes = [((10 * i, 0, 10 * i + 9, 9), 0) for i in range(30)]
    evaluator = DetectionEvaluator(ClassTable(("cell",)), max_detections=20)
    evaluator.update(1, found([(box, 0.9, label) for box, label in boxes]), truth(boxes))
    evaluator.update(2, found([(box, 0.9, label) for box, label in boxes[:4]]), truth(boxes[:4]))
    evaluator.update(3, found([]), truth(boxes[:25], crowd=range(10)))  # 15 to find
    result = evaluator.compute()
    (line,) = [line for line in result.explain() if "max_detections" in line]
    assert line.startswith("1 of 3 images hold more objects of a class (up to 30) than evaluation.max_detections = 20")
    assert "recall is 0.796 at most" in line  # (20 + 4 + 15) of 49
    assert math.isclose(result.evidence.highest_recall, 39 / 49)
    enough = DetectionEvaluator(ClassTable(("cell",)), max_detections=30)
    enough.update(1, found([(box, 0.9, label) for box, label in boxes]), truth(boxes))
    assert not any("max_detections" in line for line in enough.compute().explain())


def test_d9_heic_is_named_with_the_package_that_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.HEIC").write_bytes(HEIC)
    root = write_voc(tmp_path / "set", tmp_path / "a.HEIC")
    if find_spec("pi_heif") is None:
        with pytest.raises(
            DataError, match=r'1 of 1 images \(a\.HEIC|JPEGImages/a\.HEIC\).*pip install "detseg\[heic\]"'
        ):
            opened(root)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (20, 20), (250, 10, 10)).save(folder / "a.jpg")
    (folder / "a.jpg").rename(folder / "a.jfif")
    shutil.copy(folder / "a.jfif", folder / "b.jpg")
    for name in ("c.svg", "d.NEF", "notes.txt"):
        (folder / name).write_text("x")
    assert [path.name for _, path in find_sources([folder])] == ["a.jfif", "b.jpg"]
    (line,) = caplog.messages
    assert "passed over, since they cannot be read: 2 files" in line
    assert "c.svg" in line
    assert "d.NEF" in line
    np.testing.assert_array_equal(read_image(folder / "a.jfif"), read_image(folder / "b.jpg"))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_d9_avif_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), (250, 10, 10)).save(tmp_path / "a.avif", quality=95)
    assert [path.name for _, path in find_sources([tmp_path])] == ["a.avif"]
    assert np.abs(read_image(tmp_path / "a.avif").astype(int) - [250, 10, 10]).max() < 6


def test_d20_predictions_with_the_values_of_the_training_masks_are_masks_of_that_training(tmp_path: Path) -> None:
    values = (0, 29, 50)
    classes = ClassTable(("background", "liver", "tumour"), values)
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(noise(61, 35)).save(images / "a.png")
    predictor = SegmentationPredictor(two_levels(), classes, (48, 64))
    for option, written in (("labels", (0, 1, 2)), ("source", values)):
        predict_files(predictor, [images], out := tmp_path / option, mask_values=option)
        rows = json.loads((out / "classes.json").read_text())["classes"]
        assert [(row["label"], row["source_value"], row["mask_value"]) for row in rows] == [
            (label, value, own) for label, (value, own) in enumerate(zip(values, written, strict=True))
        ]
    own, source = (np.asarray(Image.open(tmp_path / option / "masks/a.png")) for option in ("labels", "source"))
    assert np.unique(own).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(np.array(values)[own], source)
    dataset = read_mask_folder(images, tmp_path / "source/masks", classes.names, values=values)
    np.testing.assert_array_equal(dataset.semantic(0), own)
    with pytest.raises(DataError, match=r"a\.png"):
        read_mask_folder(images, tmp_path / "labels/masks", classes.names, values=values)
    for wrong in (ClassTable(("background", "car"), (0, 300)), ClassTable(("background", "car"), (-1, 0))):
        with pytest.raises(ConfigError, match=r"mask_values: .* does not fit into 8 bits"):
            predict_files(SegmentationPredictor(two_levels(2), wrong, (48, 64)), [images], out, mask_values="source")


def test_d20_the_command_has_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_unet(tmp_path / "best.ckpt", ClassTable(("background", "car"), (0, 255)))
    Image.fromarray(noise(61, 35)).save(tmp_path / "a.png")
    command = [str(checkpoint), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert run_tool(predict, [*command, "--mask-values", "source"]) == 0
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/masks/a.png")))) <= {0, 255}
    assert run_tool(predict, [*command, "--mask-values", "colors"]) == 2
    assert "labels" in capsys.readouterr().err


class Everywhere(torch.nn.Module):
    """Finds class 1 in every pixel of the input, of the padding too."""

    def predict(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 2, H, W) logits."""
        return torch.stack([images[:, 0] * 0, images[:, 0] * 0 + 1], dim=1)


def write_coco(folder: Path, size_wh: tuple[int, int], segmentation: object) -> DetectionDataset:
    """One grey image with one object whose mask is the left half."""
    width, height = size_wh
    Image.new("RGB", size_wh, (60, 60, 60)).save(folder / "a.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, width / 2, height], "iscrowd": 0}
    images = [{"id": 1, "file_name": "a.png", "width": width, "height": height}]
    annotations = [entry | {"area": width * height / 2, "segmentation": segmentation}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "a.json").write_text(json.dumps(content))
    return read_coco(folder, folder / "a.json", masks=True)


def test_t11_pictures_of_validation_show_no_padding(tmp_path: Path) -> None:
    dataset = write_coco(tmp_path, (20, 40), [[0, 0, 10, 0, 10, 40, 0, 40]])
    (batch,) = eval_loader(dataset, input_hw=(64, 64), batch_size=1, num_workers=0)
    (truth,) = InstanceSegmentation().draw_targets(batch, dataset.classes, 4)
    assert truth.shape == (64 * 8, 32 * 8, 3)  # the letterbox of 32 x 64 without the padding at its sides
    tinted = (truth != 60).any(axis=2)[300]
    assert tinted[:120].all()
    assert not tinted[136:].any()
    classes = ClassTable(("background", "cell"))
    semantic = replace(batch, semantic=torch.zeros(1, 64, 64, dtype=torch.uint8))
    for pictures in (
        SemanticSegmentation().draw_targets(semantic, classes, 4),
        SemanticSegmentation().draw_predictions(semantic, Everywhere(), classes, 4),
    ):
        assert [picture.shape for picture in pictures] == [(512, 256, 3)]
    training = replace(semantic, letterboxes=[])
    assert SemanticSegmentation().draw_targets(training, classes, 4)[0].shape == (512, 512, 3)


def test_d15_pictures_show_masks_as_they_are_read(tmp_path: Path) -> None:
    row_major = {"size": [40, 20], "counts": [0, *[10] * 80]}  # ten of twenty in each row, counted along the rows
    dataset = write_coco(tmp_path, (20, 40), row_major)
    (batch,) = eval_loader(dataset, input_hw=(40, 40), batch_size=1, num_workers=0)
    (truth,) = InstanceSegmentation().draw_targets(batch, dataset.classes, 4)
    middles = truth[6::12, 120]  # a column, in pixels of the image: stripes of ten, where the half would be whole
    assert np.flatnonzero(np.diff((middles != 60).any(axis=1))).tolist() == [9, 19, 29]


def test_t11_crowded_and_tiny_pictures_are_readable() -> None:
    """36 objects on 256 pixels: names give way to them; 33 pixels: enlarged, and its legend is whole."""
    grid = [[43 * (i % 6), 43 * (i // 6), 43 * (i % 6) + 41, 43 * (i // 6) + 41] for i in range(36)]
    grey = np.full((256, 256, 3), 60, dtype=np.uint8)
    picture = draw_boxes(grey, grid, [0] * 36, ["nucleus"], [0.5] * 36, legend=True)
    for x1, y1, x2, y2 in 2 * np.array(grid):
        assert (picture[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] != 60).any(axis=2).mean() <= 0.25
    grid = [[20 * (i % 6), 20 * (i // 6), 20 * (i % 6) + 19, 20 * (i // 6) + 19] for i in range(36)]
    picture = draw_boxes(grey, grid, [0] * 36, ["nucleus"], [0.5] * 36, legend=True)
    assert picture.shape[0] > picture.shape[1] == 512  # there is a legend instead
    for x1, y1, x2, y2 in 2 * np.array(grid):
        assert (picture[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] == 60).all()  # nothing covers it
    tiny = draw_boxes(np.full((33, 33, 3), 60, dtype=np.uint8), [[4, 9, 20, 30]], [0], ["cell"], [0.5], legend=True)
    assert tiny.shape == (33 * 15, 33 * 15, 3)
