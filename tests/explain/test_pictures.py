"""The files that an explanation of an image leaves."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.checkpoint import read_raw_checkpoint, save_atomically
from detseg.cli import main
from detseg.errors import ConfigError
from detseg.explain.pictures import lay_heat, write_pictures
from detseg.predict import load_predictor
from tests.predict.networks import noise, write_unet
from tests.tiny import TinyRun

NETWORK = {"filters.png", "receptive_field.png"}


def image_with_objects(run: TinyRun, at_least: int) -> tuple[Path, int]:
    """An image of a run's data in which its model finds so many, and how many."""
    predictor = load_predictor(run.best, "cpu")
    for path in sorted(run.data_root.rglob("*.*g")):
        if "Class" not in str(path) and (num := len(predictor(path))) >= at_least:
            return path, num
    raise AssertionError(f"the model finds fewer than {at_least} in every image")


def written(folder: Path, *args: Any, **options: Any) -> set[str]:
    paths = write_pictures(*args, folder, device="cpu", **options)
    assert all(np.asarray(Image.open(path)).shape[2:] == (3,) for path in paths)
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    return {path.name for path in paths}


def test_pictures_of_a_detector(tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, num = image_with_objects(tiny_run, 2)
    maps = {f"features_stride_{stride}.png" for stride in (8, 16, 32)}
    with caplog.at_level(logging.INFO, "detseg"):
        names = written(tmp_path / "all", tiny_run.best, image, object_sizes=np.array([20.0, 30.0]))
    assert names == NETWORK | maps | {f"object_{i + 1}.png" for i in range(num)}
    assert "% of the heat in the box" in caplog.text
    assert "nine of ten objects are 20 to 30 px" in caplog.text
    assert written(tmp_path / "one", tiny_run.best, image, object_number=2) == NETWORK | maps | {"object_2.png"}
    for number in (0, -1, num + 1):
        with pytest.raises(ConfigError, match=rf"object_number: expected 1 to {num}, .* got {number}"):
            written(tmp_path / "none", tiny_run.best, image, object_number=number)
    with pytest.raises(ConfigError, match=r"class_name: .* holds a detector"):
        written(tmp_path / "none", tiny_run.best, image, class_name="red")


def test_pictures_of_masks(tiny_instances: TinyRun, tmp_path: Path) -> None:
    image, _ = image_with_objects(tiny_instances, 1)
    names = written(tmp_path, tiny_instances.best, image, object_number=1)
    assert {"object_1.png", "mask_1.png"} <= names


def test_an_image_without_objects_has_the_other_pictures(
    tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(tmp_path / "black.png")
    with caplog.at_level(logging.INFO, "detseg"):
        names = written(tmp_path / "out", tiny_run.best, tmp_path / "black.png")
    assert names >= NETWORK
    assert "nothing in this image scores 0.3 or more" in caplog.text
    with pytest.raises(ConfigError, match=r"^object_number 1: nothing in this image scores 0\.3 or more$"):
        written(tmp_path / "none", tiny_run.best, tmp_path / "black.png", object_number=1)


def test_pictures_of_a_segmenter(tmp_path: Path) -> None:
    checkpoint = write_unet(tmp_path / "unet.ckpt")
    Image.fromarray(noise(50, 70)).save(tmp_path / "noise.png")
    areas = load_predictor(checkpoint, "cpu")(tmp_path / "noise.png").areas
    occurring = [i for i, area in enumerate(areas.values()) if area]
    maps = {f"features_stride_{stride}.png" for stride in (1, 2, 4)}
    names = written(tmp_path / "all", checkpoint, tmp_path / "noise.png")
    assert NETWORK | maps <= names <= NETWORK | maps | {f"class_{label}.png" for label in occurring}
    name = list(areas)[occurring[0]]
    some = written(tmp_path / "one", checkpoint, tmp_path / "noise.png", class_name=name)
    assert {path for path in some if path.startswith("class")} <= {f"class_{occurring[0]}.png"}
    with pytest.raises(ConfigError, match="class_name: dog is not one of the classes sky, road, car"):
        written(tmp_path / "none", checkpoint, tmp_path / "noise.png", class_name="dog")
    with pytest.raises(ConfigError, match=r"object_number: .* holds a segmenter"):
        written(tmp_path / "none", checkpoint, tmp_path / "noise.png", object_number=1)


def test_heat_colours_what_is_hot_and_leaves_the_rest_grey() -> None:
    image = np.full((1, 2, 3), (200, 100, 0), dtype=np.uint8)  # 0.299 R + 0.587 G is 118.5
    drawn = lay_heat(image, np.array([[0.0, 1.0]], dtype=np.float32))
    assert drawn[0, 0].tolist() in ([118] * 3, [119] * 3)
    red, green, blue = drawn[0, 1].tolist()
    assert red > green
    assert red > blue


def test_the_command_shows_one_object_and_the_sizes_of_the_data(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sizes are those of the boxes of val after the letterbox to 64 pixels, worked out from the XML files."""
    image, _ = image_with_objects(tiny_run, 2)
    command = ["explain", str(tiny_run.run_dir), str(image), "--object", "2", "--pictures", str(tmp_path / "seen")]
    assert main([*command, "--device", "cpu"]) == 0
    assert {path.name for path in (tmp_path / "seen").glob("object_*")} == {"object_2.png"}
    sizes = []
    for file in sorted((tiny_run.data_root / "Annotations").glob("val*.xml")):
        root = ElementTree.parse(file).getroot()
        longest = max(int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        for entry in root.iter("object"):
            if entry.findtext("difficult") != "1":
                x1, y1, x2, y2 = (int(entry.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax"))
                sizes.append(((x2 - x1 + 1) * (y2 - y1 + 1)) ** 0.5 * 64 / longest)
    low, high = np.percentile(sizes, (5, 95))
    said = capsys.readouterr().out
    assert f"; nine of ten objects are {low:.0f} to {high:.0f} px" in said.replace("\n", " ")
    content = read_raw_checkpoint(tiny_run.best)
    content["detseg"]["config"]["data"]["root"] = str(tmp_path / "nowhere")
    save_atomically(content, tmp_path / "moved.ckpt")
    assert main(["explain", str(tmp_path / "moved.ckpt"), *command[2:], "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "how large objects are is not known" in said
    assert "nine of ten" not in said


def test_the_command_writes_them(
    tiny_segmentation: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(tiny_segmentation.data_root.glob("JPEGImages/val*.png"))
    run, folder = str(tiny_segmentation.run_dir), tmp_path / "seen"
    assert main(["explain", run, str(image), "--pictures", str(folder), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} > NETWORK
    assert all(f"written: {path}" in said for path in folder.iterdir())
    for wrong, line in (
        ([], "--pictures: are of one image; name it after the run"),
        ([str(image), "--object", "0"], "object_number: "),
        ([str(image), "data.image_size=64"], "settings: not with --pictures"),
    ):
        assert main(["explain", run, *wrong, "--pictures", str(folder)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert line in error
