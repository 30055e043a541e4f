"""The Predictor of objects: every way to hand an image over gives the same detections."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from detseg.checkpoint import save_atomically
from detseg.errors import ConfigError, DataError
from detseg.predict import Detections, ImageLike, Predictor, load_predictor
from detseg.structures import SCORE_THRESHOLD, UInt8Array
from tests.rounding import assert_same_detections_but_for_rounding
from tests.tiny import CLASSES, TinyRun

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def predictor(tiny_run: TinyRun) -> Predictor:
    loaded = load_predictor(tiny_run.best, device="cpu", score_threshold=0)
    assert isinstance(loaded, Predictor)
    return loaded


@pytest.fixture(scope="module")
def picture(tiny_run: TinyRun) -> Path:
    return tiny_run.data_root / "JPEGImages" / "val01.png"


@pytest.fixture(scope="module")
def expected(predictor: Predictor, picture: Path) -> Detections:
    return predictor(picture)


def pixels(path: Path) -> UInt8Array:
    return np.array(Image.open(path).convert("RGB"))


def assert_same(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_what_it_finds_is_in_pixels_of_the_image_best_first_and_named(expected: Detections, picture: Path) -> None:
    assert len(expected) > 3
    assert expected.classes.names == CLASSES
    assert set(expected.names) <= set(CLASSES)
    assert (expected.scores[:-1] >= expected.scores[1:]).all()
    upper_left, lower_right = expected.boxes[:, :2], expected.boxes[:, 2:]
    assert (upper_left >= 0).all()
    assert (upper_left < lower_right).all()
    assert (lower_right <= [90, 60]).all()  # the image is 90 x 60, the network input 64 x 64
    assert (lower_right[:, 0] > 64).any()
    assert expected.path == picture
    np.testing.assert_array_equal(expected.image, pixels(picture))


def test_a_predictor_says_what_it_is(predictor: Predictor) -> None:
    assert repr(predictor) == (
        "Predictor(YoloDetector, 3 classes (blue, red, yellow), input 64 x 64, cpu, score_threshold=0)"
    )


def test_copies_find_the_same(predictor: Predictor, picture: Path, expected: Detections) -> None:
    assert_same(copy.deepcopy(predictor)(picture), expected)
    assert_same(pickle.loads(pickle.dumps(predictor))(picture), expected)  # noqa: S301  # as between processes


def test_every_form_of_an_image_gives_the_same(predictor: Predictor, picture: Path, expected: Detections) -> None:
    image, flipped = Image.open(picture), pixels(picture)[:, ::-1].copy()[:, ::-1]
    forms: list[ImageLike] = [str(picture), pixels(picture), image, image.convert("RGBA"), flipped]
    for form in forms:
        assert_same(predictor(form), expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_list_gives_a_list(predictor: Predictor, tiny_run: TinyRun, batch_size: int) -> None:
    paths = sorted((tiny_run.data_root / "JPEGImages").glob("val*.png"))
    found = predictor(list(paths), batch_size=batch_size)
    assert len(found) == len(paths) == 9
    assert sum(map(len, found)) > 0
    for detections, path in zip(found, paths, strict=True):
        assert_same_detections_but_for_rounding(detections, predictor(path), predictor.model)
    assert predictor([]) == []


def test_grey_images_become_rgb(predictor: Predictor, picture: Path) -> None:
    grey = pixels(picture)[..., 0]
    expected = predictor(np.stack([grey] * 3, axis=2))
    assert_same(predictor(grey), expected)
    assert_same(predictor(Image.fromarray(grey)), expected)


def test_16_bit_images_are_read_alike_from_file_and_memory(predictor: Predictor, picture: Path, tmp_path: Path) -> None:
    deep = Image.fromarray(pixels(picture)[..., 0].astype(np.uint16) * 256)
    deep.save(tmp_path / "deep.png")
    assert_same(predictor(deep), predictor(tmp_path / "deep.png"))
    assert_same(predictor(deep), predictor(pixels(picture)[..., 0]))


def test_exif_orientation_is_applied(predictor: Predictor, picture: Path, tmp_path: Path) -> None:
    upright = Image.open(picture).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown turned by 90 degrees clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    expected = predictor(upright)
    assert_same(predictor(tmp_path / "turned.png"), expected)
    assert_same(predictor(Image.open(tmp_path / "turned.png")), expected)


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8, 3), "f4"), ((8, 8, 4), "u1"), ((3, 8, 8), "u1"), (8, "u1")])
def test_other_arrays_are_refused(predictor: Predictor, shape: tuple[int, ...], dtype: str) -> None:
    message = r"^image: expected uint8 of shape \(H, W, 3\) in RGB order or \(H, W\) grey, "
    with pytest.raises(ValueError, match=message):
        predictor(np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "NoneType"),
        (b"GIF89a", "bytes"),
        ((path for path in ("a.png",)), "generator"),
        ([torch.zeros(3, 8, 8)], "Tensor"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, given: object, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        predictor(given)  # type: ignore[call-overload]  # wrong on purpose
    assert str(caught.value) == (
        "image: expected a path (str or Path), a uint8 array of shape (H, W, 3) or (H, W), a PIL image, or a list of "
        f"these, got {name}"
    )


def test_an_image_without_pixels_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="an image needs at least one pixel"):
        predictor(np.zeros((0, 8, 3), dtype=np.uint8))


def test_files_that_cannot_be_read_are_named(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jpg: there is no such image"):
        predictor(tmp_path / "nowhere.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"text\.jpg: not an image"):
        predictor(str(tmp_path / "text.jpg"))


def test_the_threshold_leaves_the_rest_as_it_is(tiny_run: TinyRun, picture: Path, expected: Detections) -> None:
    threshold = float(expected.scores[2])
    found = load_predictor(tiny_run.best, device="cpu", score_threshold=threshold)(picture)
    assert len(found) == 3  # a detection at the threshold stays
    assert_same(found, expected[:3])
    default = load_predictor(tiny_run.best, device="cpu")(picture)
    assert_same(default, expected[expected.scores >= SCORE_THRESHOLD])
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="score_threshold: expected a number from 0 to 1, got"):
            load_predictor(tiny_run.best, device="cpu", score_threshold=wrong)
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1, got 0"):
        load_predictor(tiny_run.best, device="cpu")([picture], batch_size=0)


def test_compiled(tiny_run: TinyRun, picture: Path, expected: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    options_of_graphs = []

    def noting(graph: torch.fx.GraphModule, _: list[torch.Tensor], **options: Any) -> Callable[..., Any]:
        options_of_graphs.append(options)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=noting))
    compiled = load_predictor(tiny_run.best, device="cpu", score_threshold=0, compile=True)
    found = compiled(picture)
    assert len(options_of_graphs) == 3  # backbone, neck, head
    if (capability := torch.backends.cpu.get_cpu_capability()) in ("AVX2", "AVX512"):  # or torch may take others' code
        width = 256 if capability == "AVX2" else 512
        assert options_of_graphs == [{"options": {"cpp.simdlen": width}}] * 3
    assert len(found)
    assert_same_detections_but_for_rounding(found, expected, compiled.model)


def test_the_averaged_weights_are_used(tiny_run: TinyRun, predictor: Predictor) -> None:
    state = torch.load(tiny_run.best, weights_only=True)["state_dict"]
    name = "head.box_branches.0.2.weight"  # which no normalisation follows
    weight = predictor.model.state_dict()[name]
    assert torch.equal(weight, state[f"average.model.{name}"])
    assert not torch.equal(weight, state[f"model.{name}"])


def test_the_settings_of_a_checkpoint_are_checked(tiny_run: TinyRun, tmp_path: Path) -> None:
    checkpoint = torch.load(tiny_run.best, weights_only=True)
    checkpoint["detseg"]["config"]["model"]["bakbone"] = {}
    save_atomically(checkpoint, tmp_path / "b.ckpt")
    with pytest.raises(ConfigError, match=r"b\.ckpt: model\.bakbone: unknown key"):
        load_predictor(tmp_path / "b.ckpt", device="cpu")


def test_predicting_needs_no_training_library(tiny_run: TinyRun, picture: Path) -> None:
    code = (
        "import sys, detseg\n"
        f"found = detseg.load_predictor({str(tiny_run.best)!r}, device='cpu', score_threshold=0)({str(picture)!r})\n"
        "assert len(found) > 3\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"lightning", "pytorch_lightning", "albumentations", "pycocotools", "tensorboard"}
    assert done.stderr == ""
