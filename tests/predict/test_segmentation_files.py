"""Prediction over files with a segmentation model: what is written, where, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.cli.deploy.predict import predict
from detseg.cli.tool import run_tool
from detseg.draw import class_color
from detseg.errors import ConfigError, DataError
from detseg.predict import ImageLike, SegmentationPredictor, load_predictor
from detseg.predict.files import predict_files
from detseg.structures import ClassTable, Float32Array, UInt8Array
from tests.predict.networks import CLASSES, noise, two_levels, write_unet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unet(tmp_path_factory.mktemp("unet") / "best.ckpt")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with pictures of odd sizes at its top and in a subfolder."""
    folder = tmp_path / "images"
    (folder / "day two").mkdir(parents=True)
    Image.fromarray(noise(181, 239)).save(folder / "a.png")
    Image.fromarray(noise(61, 35)).save(folder / "day two" / "a.jpg")
    return folder


def segmenter(checkpoint: Path) -> SegmentationPredictor:
    loaded = load_predictor(checkpoint, "cpu")
    assert isinstance(loaded, SegmentationPredictor)
    return loaded


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("tile", [None, (64, 96)])
def test_overlays_masks_and_the_meaning_of_labels(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tile: tuple[int, int] | None
) -> None:
    out = tmp_path / "out"
    predict_files(segmenter(checkpoint), [images], out, tile=tile)
    assert written(out) == [
        "a.png",
        "classes.json",
        "day two/a.jpg",
        "masks/a.png",
        "masks/day two/a.png",
        "results.jsonl",
    ]
    meaning = json.loads((out / "classes.json").read_text())
    assert [entry["name"] for entry in meaning["classes"]] == list(CLASSES.names)
    assert [entry["label"] for entry in meaning["classes"]] == [0, 1, 2]
    predictor = segmenter(checkpoint)
    for entry, name in zip(meaning["images"], ("a.png", "day two/a.jpg"), strict=True):
        assert entry["file_name"] == name
        mask = Image.open(out / entry["mask"])
        assert mask.mode == "P"
        labels = np.array(mask)
        np.testing.assert_array_equal(labels, predictor(images / name, tile=tile).labels)
        assert labels.shape == (entry["height"], entry["width"])
        assert entry["pixels"] == {name: int((labels == i).sum()) for i, name in enumerate(CLASSES.names)}
        colors = np.array([described["color"] for described in meaning["classes"]])
        np.testing.assert_array_equal(np.array(mask.convert("RGB")), colors[labels])
        drawn = cv2.imread(str(out / name))
        assert drawn is not None
        times = drawn.shape[1] // entry["width"]  # small images are enlarged
        assert times > 1
        assert drawn.shape[0] > times * entry["height"]  # the legend lies below the image
    assert f"2 images; written to {out}: the drawn images, masks/" in capsys.readouterr().out


def test_a_background_is_black_in_masks(images: Path, tmp_path: Path) -> None:
    checkpoint = write_unet(tmp_path / "b.ckpt", ClassTable(("background", "road", "car")))
    predict_files(segmenter(checkpoint), [images / "a.png"], tmp_path / "out")
    described = json.loads((tmp_path / "out" / "classes.json").read_text())["classes"]
    assert [entry["color"] for entry in described] == [[0, 0, 0], list(class_color(0)), list(class_color(1))]
    mask = Image.open(tmp_path / "out" / "masks" / "a.png")
    labels = np.array(mask)
    assert (labels == 0).any()
    assert (np.array(mask.convert("RGB"))[labels == 0] == 0).all()


def test_labels_of_two_pictures_never_share_a_file(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "day two" / "a.jpg", images / "a.jpg")
    with pytest.raises(DataError, match=r"masks/a\.png: two images would be written here, .*a\.png; rename one of"):
        predict_files(segmenter(checkpoint), [images], tmp_path / "out")
    (images / "a.jpg").unlink()
    (images / "masks").mkdir()
    shutil.copy(images / "a.png", images / "masks" / "a.png")  # whose drawn copy goes to masks/a.png
    with pytest.raises(DataError, match=r"out/masks/a\.png: two images would be written here"):
        predict_files(segmenter(checkpoint), [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["classes.json", "masks"])
def test_what_cannot_be_written_is_one_line(checkpoint: Path, images: Path, tmp_path: Path, name: str) -> None:
    blocked = tmp_path / "out" / name
    blocked.parent.mkdir()
    blocked.write_text("no folder") if name == "masks" else blocked.mkdir()
    with pytest.raises(
        DataError, match=rf"out/{name}.*: could not be written \(.*\); a file is where a folder must be"
    ):
        predict_files(segmenter(checkpoint), [images / "a.png"], tmp_path / "out")


def test_a_format_is_for_detectors(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the format voc is for detectors, and this is a segmentation model"):
        predict_files(segmenter(checkpoint), [images], tmp_path / "out", formats=["voc"])
    assert not (tmp_path / "out").exists()


class Counting(SegmentationPredictor):
    """Notes how many images are read when the network sees a batch of tiles, and the largest one."""

    num_read = 0
    seen: tuple[tuple[int, int], ...] = ()

    def read(self, image: ImageLike) -> UInt8Array:
        self.num_read += not isinstance(image, np.ndarray)
        return super().read(image)

    def logits(self, images: UInt8Array) -> Float32Array:
        self.seen += ((len(images), self.num_read),)
        return super().logits(images)


def test_batches_are_of_tiles_and_take_one_image_at_a_time(images: Path, tmp_path: Path) -> None:
    for i in range(4):
        shutil.copy(images / "a.png", images / f"b{i}.png")
    predictor = Counting(two_levels(), CLASSES, (48, 64))
    predict_files(predictor, [images], tmp_path / "out", batch_size=5, tile=(48, 64), pictures=False)
    assert predictor.num_read == 6
    assert predictor.seen[0][1] <= 2  # the first one, and the next one ahead
    assert max(num for num, _ in predictor.seen) == 5


def test_tool_takes_tiles(checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*options: str) -> tuple[int, str]:
        argv = [str(checkpoint), str(images), "--out", str(tmp_path / "out"), "--device", "cpu", *options]
        return run_tool(predict, argv), capsys.readouterr().err

    code, error = said("--tile", "63", "96")
    assert code == 2
    assert error == (
        "error: tile: expected height and width in multiples of 4, the network's coarsest stride, got (63, 96)\n"
    )
    code, error = said("--tile", "0", "96")
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: argument --tile: expected a whole number of at least 1, got '0'")
    code, error = said("--tile", "48", "64", "--scales", "1,1.25")
    assert code == 2
    assert error.startswith("error: scales: label maps in tiles are seen at the image's own scale")
    assert not (tmp_path / "out").exists()
    assert said("--tile", "64", "96", "--overlap", "20") == (0, "")
    labels = np.array(Image.open(tmp_path / "out" / "masks" / "a.png"))
    expected = segmenter(checkpoint)(images / "a.png", tile=(64, 96), overlap=20)
    np.testing.assert_array_equal(labels, expected.labels)
    code, error = said("--overlap", "20", "--overwrite")
    assert code == 2
    assert error.startswith("error: overlap: belongs to tiles")
    assert error.count("\n") == 1
    assert said("--score", "0.5")[0] == 2
