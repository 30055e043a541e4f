"""Exported files against the checkpoints that they were made of, and what is wrong with others."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import nms

from detseg.checkpoint import read_model_checkpoint
from detseg.cli import main
from detseg.data.build import resolve_data
from detseg.errors import CheckpointError, ConfigError
from detseg.evaluation.run import evaluation_config, open_split_for
from detseg.export.certificate import certify
from detseg.export.networks import network_of
from detseg.export.run import ExportError, export_checkpoint
from detseg.metrics.detection import DetectionEvaluator
from detseg.predict import Detections, ensemble, load_predictor
from detseg.predict.runtime.description import KEY, Description
from detseg.predict.runtime.engines import Outputs, open_engine
from detseg.predict.runtime.predictor import ExportedPredictor, class_nms
from detseg.structures import ClassTable, Float32Array
from tests.export.child import find
from tests.models.rcnn.small import small_detector, spread_outputs
from tests.predict.networks import noise
from tests.tiny import TinyRun, write_colors

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def yolo(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(tiny_run.run_dir, "onnx", tmp_path_factory.mktemp("yolo") / "yolo.onnx")


@pytest.fixture(scope="module")
def unet(tiny_segmentation: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unet") / "unet.onnx"
    return export_checkpoint(tiny_segmentation.run_dir, "onnx", path, any_size=True)


@pytest.fixture(scope="module")
def masks(tiny_instances: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(tiny_instances.run_dir, "onnx", tmp_path_factory.mktemp("masks") / "masks.onnx")


def images_of(run: TinyRun) -> list[Any]:
    """Files, and an image that holds nothing."""
    files = sorted(path for path in run.data_root.rglob("*") if path.suffix in (".png", ".jpg"))
    photos = [path for path in files if "Segmentation" not in path.parent.name][:16]
    return [*photos, noise(40, 90), np.zeros((64, 30, 3), dtype=np.uint8)]


def assert_same(one: Detections, other: Detections) -> None:
    """But for rounding: the boxes by a hundredth of a pixel, the masks by pixels on their outlines."""
    assert len(one) == len(other)
    np.testing.assert_allclose(other.boxes, one.boxes, atol=0.01)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
    np.testing.assert_array_equal(other.labels, one.labels)
    if one.masks is not None:
        assert other.masks is not None
        for index in range(len(one)):
            assert (one.masks.mask(index) != other.masks.mask(index)).sum() <= 2


def assert_same_in_threads(predictor: Any, images: list[Any]) -> None:
    alone = [predictor(image) for image in images] * 8
    with ThreadPoolExecutor(8) as threads:
        for one, other in zip(alone, threads.map(predictor, images * 8), strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
            if isinstance(one, Detections):
                np.testing.assert_array_equal(one.boxes, other.boxes)
                np.testing.assert_array_equal(one.scores, other.scores)


def test_t10_threads_share_a_predictor(yolo: Path, unet: Path, tiny_run: TinyRun, tiny_segmentation: TinyRun) -> None:
    images = images_of(tiny_run)[:8]
    assert_same_in_threads(load_predictor(yolo, score_threshold=0.0), images)
    assert_same_in_threads(load_predictor(tiny_run.run_dir, "cpu", 0.0), images)
    assert_same_in_threads(load_predictor(unet), images)
    assert_same_in_threads(load_predictor(tiny_segmentation.run_dir, "cpu"), images)


@pytest.mark.processes
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_t10_child_processes_find_the_same(yolo: Path, unet: Path, method: str) -> None:
    image = noise(70, 90)
    with multiprocessing.get_context(method).Pool(1) as pool:
        boxes, labels, has_torch = pool.apply(find, (yolo, unet, image))
    assert len(boxes)
    np.testing.assert_array_equal(labels, load_predictor(unet)(image).labels)
    np.testing.assert_array_equal(boxes, load_predictor(yolo, score_threshold=0.0)(image).boxes)
    assert not has_torch or method == "forkserver"  # its server may have loaded it for other tests


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_a_yolo_finds_the_same(yolo: Path, tiny_run: TinyRun, threshold: float, batch_size: int) -> None:
    images = images_of(tiny_run)
    exported = load_predictor(yolo, score_threshold=threshold)
    original = load_predictor(tiny_run.run_dir, "cpu", threshold)
    assert exported.classes == original.classes
    found = original(images, batch_size)
    assert sum(map(len, found)) > 5
    for one, other in zip(found, exported(images, batch_size), strict=True):
        assert_same(one, other)


def test_a_mask_rcnn_finds_the_same(masks: Path, tiny_instances: TinyRun) -> None:
    images = images_of(tiny_instances)
    found = load_predictor(tiny_instances.run_dir, "cpu", 0.1)(images)
    assert sum(map(len, found)) > 5
    assert not len(found[-1])  # nothing is found, and nothing breaks
    for one, other in zip(found, load_predictor(masks, score_threshold=0.1)(images, batch_size=4), strict=True):
        assert_same(one, other)


def test_a_yolo_in_tiles_and_in_an_ensemble(yolo: Path, tiny_run: TinyRun) -> None:
    original, exported = load_predictor(tiny_run.run_dir, "cpu", 0.1), load_predictor(yolo, score_threshold=0.1)
    image = np.tile(np.array(Image.open(images_of(tiny_run)[0]).convert("RGB")), (2, 3, 1))
    for options in ({}, {"tile": (64, 64), "batch_size": 3}, {"tile": (80, 64), "full_image": True}):
        found = original(image, **options)
        assert_same(found, exported(image, **options))
        both = ensemble([original, exported])(image, **options)
        assert_same(ensemble([original])(image, **options), both)  # the same twice
    assert len(original(image, tile=(64, 64))) > 3
    with pytest.raises(ConfigError, match=r"^scales: this model takes images of 64 x 64 alone, got a scale of 1\.5; "):
        ensemble([original, exported], scales=(1, 1.5))


def test_a_unet_labels_the_same(unet: Path, tiny_segmentation: TinyRun) -> None:
    images = images_of(tiny_segmentation)
    original, exported = load_predictor(tiny_segmentation.run_dir, "cpu"), load_predictor(unet)
    for options in ({}, {"tile": (32, 64), "overlap": 16}):
        pairs = zip(original(images, 3, **options), exported(images, 3, **options), strict=True)
        for one, other in pairs:
            assert one.labels.shape == other.labels.shape
            assert (one.labels != other.labels).mean() < 2e-3  # where two classes are equal but for rounding
    combined = ensemble([original, exported], scales=(1, 0.5))(images[0])
    assert (combined.labels != ensemble([original], scales=(1, 0.5))(images[0]).labels).mean() < 2e-3
    found = exported(images[0], probabilities=True)
    np.testing.assert_array_equal(exported(images[0]).labels, found.labels)  # by a running best, and by numpy's argmax
    chances = found.probabilities
    np.testing.assert_allclose(chances, original(images[0], probabilities=True).probabilities, atol=1e-3)


def test_a_unet_of_one_size(tiny_segmentation: TinyRun, tmp_path: Path) -> None:
    path = export_checkpoint(tiny_segmentation.run_dir, "onnx", tmp_path / "unet.onnx")
    exported = load_predictor(path)
    image = images_of(tiny_segmentation)[0]
    assert (exported(image).labels != load_predictor(tiny_segmentation.run_dir, "cpu")(image).labels).mean() < 2e-3
    with pytest.raises(ConfigError, match=r"takes images of 70 x 90 alone, got 32 x 64; export it with --any-size"):
        exported(image, tile=(32, 64))


@pytest.mark.parametrize("rpn_threshold", [False, True])
@pytest.mark.parametrize("output_of_label", [None, (2, 4)])
@pytest.mark.parametrize("masks", [False, True])
def test_the_graph_of_a_two_stage_detector_is_the_detector(
    masks: bool, output_of_label: tuple[int, ...] | None, rpn_threshold: bool
) -> None:
    """The same boxes in the same order of scores, without any exporter."""
    torch.manual_seed(0)
    model = small_detector(5, masks, output_of_label=output_of_label, max_detections=1000).eval()
    spread_outputs(model)
    network, names = network_of(model), ("boxes", "scores", "labels", *(("masks", "regions") if masks else ()))
    for seed in range(3):
        image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            if rpn_threshold:  # that the best 25 of all anchors pass
                logits = model.read(model.features(image), image).logits
                model.rpn.score_threshold = float(logits.sigmoid().flatten().sort().values[-25])
            (expected,), outputs = model.predict(image), dict(zip(names, network(image), strict=True))
        order = outputs["scores"].argsort(descending=True, stable=True)
        assert len(expected) > 10
        torch.testing.assert_close(outputs["scores"][order], expected.scores)
        torch.testing.assert_close(outputs["boxes"][order], expected.boxes)
        if masks:
            assert expected.grids is not None
            torch.testing.assert_close(outputs["masks"][order], expected.grids.probabilities)
            model.roi_heads.max_detections = 5
            few = network(image)[3]
            model.roi_heads.max_detections = 1000
            torch.testing.assert_close(few, outputs["masks"][order[:5].sort().values])  # in the order of all


def test_nms_outside_and_a_fixed_size(tiny_run: TinyRun, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.run_dir, tmp_path / "run")
    path = export_checkpoint(run, "onnx", nms=False, static_hw=(64, 96))
    assert path == run / "export" / "best_without_nms_64x96.onnx"
    engine = open_engine(path)
    raw = engine(np.zeros((1, 3, 64, 96), dtype=np.float32))
    assert raw["boxes"].shape[0] == raw["scores"].shape[0] == 1
    assert raw["scores"].shape[1:] == (3, raw["boxes"].shape[1])
    original: Any = load_predictor(tiny_run.run_dir, "cpu", 0.1)
    original.input_hw = (64, 96)
    images = images_of(tiny_run)
    for one, other in zip(original(images), load_predictor(path, score_threshold=0.1)(images, 3), strict=True):
        assert_same(one, other)


def test_nms_of_the_runtime_is_torchvisions() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 30, (200, 2))], axis=1)
    scores = rng.random(200).round(1)
    order = np.argsort(-scores, kind="stable")
    kept = nms(torch.from_numpy(boxes[order]), torch.arange(200, 0, -1).double(), 0.4).numpy()
    assert class_nms(boxes, scores, 0.4).tolist() == order[kept].tolist()
    assert len(class_nms(boxes[:0], scores[:0], 0.4)) == 0


def test_what_the_file_says_of_itself(yolo: Path, tiny_run: TinyRun) -> None:
    import onnx

    model = onnx.load(yolo)
    onnx.checker.check_model(model, full_check=True)
    said = Description.from_metadata({entry.key: entry.value for entry in model.metadata_props}, "")
    assert said.classes == read_model_checkpoint(tiny_run.best).classes
    assert (said.task, said.model, said.input_hw, said.batch, said.nms) == ("detection", "yolo", (64, 64), None, True)
    assert set(said.origin["data"]) == {"train", "val"}
    assert {one.domain: one.version for one in model.opset_import}[""] == 18


def certificate_of(path: Path) -> Any:
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def test_a_certificate(yolo: Path, tiny_run: TinyRun) -> None:
    said = certificate_of(yolo)
    (change,) = said["changes"]
    assert change["metric"] == "AP"
    assert change["original"] == pytest.approx(tiny_run.evaluate().numbers["AP"], abs=1e-9)
    assert change["change"] == pytest.approx(change["exported"] - change["original"])
    assert abs(change["change"]) < 1e-3
    assert set(change["by_class"]) == set(read_model_checkpoint(tiny_run.best).classes.names)
    assert said["box_error"] < 0.01
    assert said["matched"] > 3
    assert said["unmatched"] == 0
    assert said["bytes"] == yolo.stat().st_size
    assert (said["format"], said["precision"], said["split"], said["overrides"]) == ("onnx", "fp32", "val", [])
    assert said["data"]["images"] == said["num_images"] == 9
    assert set(said["packages"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert said["threads"] == torch.get_num_threads()
    assert said["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert min(said["latency_ms"]) > 0


def test_a_certificate_judges_masks(masks: Path, tiny_instances: TinyRun) -> None:
    said, numbers = certificate_of(masks), tiny_instances.evaluate().numbers
    assert [change["metric"] for change in said["changes"]] == ["AP", "mask_AP"]
    for change in said["changes"]:
        assert change["original"] == pytest.approx(numbers[change["metric"]], abs=1e-9)
        assert change["low"] <= change["change"] <= change["high"]
        assert len(change["by_class"]) == 3


class WatchedEngine:
    """An engine that keeps the thresholds that it is asked for."""

    def __init__(self, path: Path) -> None:
        self._engine = open_engine(path, "cpu")
        self.metadata, self.name, self.place = self._engine.metadata, "watched", "cpu"
        self.thresholds: list[float | None] = []

    def __call__(self, images: Float32Array, score_threshold: float | None = None) -> Outputs:
        self.thresholds.append(score_threshold)
        return self._engine(images, score_threshold)


def test_a_certificate_has_the_time_that_users_see(yolo: Path, tiny_run: TinyRun) -> None:
    contents = read_model_checkpoint(tiny_run.best)
    config = resolve_data(evaluation_config(contents.config, "", ()))
    dataset = open_split_for(config, "val", contents.classes, tiny_run.best)
    evaluators = DetectionEvaluator(contents.classes), DetectionEvaluator(contents.classes)
    engine = WatchedEngine(yolo)
    description = Description.from_metadata(engine.metadata, "")
    original: Any = load_predictor(tiny_run.run_dir, "cpu", 0.0)
    certify(original, ExportedPredictor(engine, description, 0.0), dataset, evaluators)
    assert engine.thresholds == [description.score_threshold] * 9 + [0.3] * (2 + 9)  # two are not timed


def test_a_certificate_without_a_detection_compares_no_boxes(tiny_run: TinyRun) -> None:
    """0 px would say that boxes agree."""
    contents = read_model_checkpoint(tiny_run.best)
    config = resolve_data(evaluation_config(contents.config, "", ()))
    dataset = open_split_for(config, "val", contents.classes, tiny_run.best)
    evaluators = DetectionEvaluator(contents.classes), DetectionEvaluator(contents.classes)
    blind: Any = [load_predictor(tiny_run.run_dir, "cpu", 1.0) for _ in range(2)]
    found = certify(*blind, dataset, evaluators)
    said = found.to_dict()
    assert (said["matched"], said["unmatched"], said["box_error"], said["score_drift"]) == (0, 0, None, None)
    assert found.lines()[0] == "no detection scores 0.3: boxes were not compared; 0 have no match"


EARLIER = {"one.onnx": "an earlier export", "one.onnx.json": "and its certificate"}


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("damaged", ["boxes", "masks"])
def test_an_export_that_loses_too_much_is_not_written(
    damaged: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged weights stand for whatever goes wrong; what an earlier export left stays."""
    import onnx

    exported, run = ("yolo", "tiny_run") if damaged == "boxes" else ("masks", "tiny_instances")
    model = onnx.load(request.getfixturevalue(exported))
    for weight in model.graph.initializer:
        is_float = weight.data_type == onnx.TensorProto.FLOAT
        if is_float and ("mask" in weight.name if damaged == "masks" else len(weight.dims) == 4):
            values = onnx.numpy_helper.to_array(weight) * 0 - 1
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    monkeypatch.setattr("detseg.export.run.onnx_model", lambda *_: model)
    for name, text in EARLIER.items():
        (tmp_path / name).write_text(text)
    lost = "AP" if damaged == "boxes" else "mask_AP"
    with pytest.raises(
        ExportError, match=rf"onnx: {lost} changes by -0\.\d+, and may by -0\.01; it was not written; see "
    ):
        export_checkpoint(request.getfixturevalue(run).run_dir, "onnx", tmp_path / "one.onnx")
    left = files_of(tmp_path)
    assert json.loads(left.pop("one.onnx.failed.json"))["changes"][-1]["change"] < -0.01
    assert left == EARLIER


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_what_was_there(
    number: int, code: int, yolo: Path, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    def interrupted(*_: Any) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("detseg.export.run.onnx_model", lambda *_: onnx.load(yolo))
    monkeypatch.setattr("detseg.export.run.certify", interrupted)
    for name, text in EARLIER.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as left:
        sys.exit(main(["export", str(tiny_run.run_dir), "--out", str(tmp_path / "one.onnx")]))
    assert left.value.code == code
    assert files_of(tmp_path) == EARLIER


def test_int8_of_any_size(tiny_segmentation: TinyRun, tmp_path: Path) -> None:
    """The size of the run is no multiple of the strides."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    run = shutil.copytree(tiny_segmentation.run_dir, tmp_path / "run")
    path = export_checkpoint(run, "openvino", precision="int8", any_size=True, tolerance=1.0)
    assert {file.name for file in (run / "export").iterdir()} == {
        "best_any_size_int8.xml",
        "best_any_size_int8.bin",
        "best_any_size_int8.xml.json",
    }
    image = images_of(tiny_segmentation)[0]
    original = load_predictor(run, "cpu")(image, tile=(32, 64)).labels
    assert (load_predictor(path)(image, tile=(32, 64)).labels != original).mean() < 0.1


def test_openvino_finds_the_same(tiny_run: TinyRun, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = export_checkpoint(tiny_run.run_dir, "openvino", tmp_path / "yolo.xml")
    images = images_of(tiny_run)
    for one, other in zip(
        load_predictor(tiny_run.run_dir, "cpu", 0.3)(images),
        load_predictor(path, score_threshold=0.3)(images, 3),
        strict=True,
    ):
        assert_same(one, other)
    assert_same_in_threads(load_predictor(path, score_threshold=0.0), images)
    assert {file.name for file in tmp_path.iterdir()} == {"yolo.xml", "yolo.bin", "yolo.xml.json"}
    path.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"its weights, yolo\.bin, are not beside it; copy both"):
        load_predictor(path)


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "lightning", "timm", "safetensors", "albumentations", "pycocotools", "msgspec"):
    sys.modules[name] = None
import detseg, json
from detseg.cli import main
from detseg.serve import app, server
yolo, unet, masks, image, folder, out = sys.argv[1:]
found = detseg.load_predictor(yolo, score_threshold=0.1)(image)
formats = "coco,voc,yolo,labelme,cvat,csv,geojson"
for name, model, options in (
    ("yolo", yolo, ["--format", formats]),
    ("masks", masks, ["--format", formats, "--score", "0.1"]),
    ("unet", unet, ["--format", "csv", "--tile", "32", "64", "--overlap", "16"]),
):
    assert main(["predict", model, folder, "--out", f"{out}/{name}", *options]) == 0, name
print(json.dumps([found.boxes.tolist(), found.scores.tolist()]))
"""


@pytest.mark.processes
def test_signals_are_handled_once_openvino_has_computed(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Its plugin would take the stack for signals away with the last model, and SIGTERM would crash the process."""
    pytest.importorskip("openvino")
    path = export_checkpoint(tiny_run.run_dir, "openvino", tmp_path / "yolo.xml")
    program = (
        "import gc, os, signal, sys\nimport numpy as np\nimport detseg\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('handled', flush=True))\n"
        f"predictor = detseg.load_predictor({str(path)!r})\n"
        "predictor(np.zeros((64, 64, 3), np.uint8))\ndel predictor\ngc.collect()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")


def test_no_torch_is_needed(
    yolo: Path, unet: Path, masks: Path, tiny_run: TinyRun, tiny_segmentation: TinyRun, tmp_path: Path
) -> None:
    """The same results where importing torch fails: of a predictor, and in all files of `detseg predict`."""
    images = images_of(tiny_run)[:3]
    (tmp_path / "images").mkdir()
    for image in images:
        shutil.copy(image, tmp_path / "images" / image.name)
    given = [yolo, unet, masks, images[0], tmp_path / "images", tmp_path / "out"]
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, given)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    boxes, scores = json.loads(answer.stdout.splitlines()[-1])
    expected = load_predictor(tiny_run.run_dir, "cpu", 0.1)(images[0])
    np.testing.assert_allclose(boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
    for folder in ("yolo", "masks"):
        written = {path.name for path in (tmp_path / "out" / folder).iterdir()}
        assert written >= {"annotations", "labels", "labelme", "cvat.xml", "detections.csv", "geojson"}
    original = load_predictor(tiny_segmentation.run_dir, "cpu")
    for image in images:
        with Image.open(tmp_path / "out" / "unet" / "masks" / f"{image.stem}.png") as file:
            labels = np.asarray(file)
        assert (labels != original(image, tile=(32, 64), overlap=16).labels).mean() < 2e-3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--precision", "int8"], "--precision int8: --format onnx has no such; take --format openvino"),
        (["--out", "best.pt2"], r"--out best\.pt2: expected a name that ends in \.onnx, by which it is recognised"),
        (
            ["--static", "60", "64"],
            "--static 60 64: expected multiples of 32, the model's coarsest stride, up to 32768",
        ),
        (["--static", "64", "100000"], "--static 64 100000: expected multiples of 32, .*, up to 32768"),
        (["--out", "/proc/best.onnx"], "--out: /proc: /proc is no folder that you may write into; choose another one"),
        (["--any-size", "--static", "64", "64"], "--any-size: is for YOLO and segmentation models, without --static; "),
        (["--tolerance", "7"], "--tolerance: expected a number from 0 to 1"),
        (["model.name=fcn"], r"only data\.\* and evaluation\.\* can be changed"),
    ],
)
def test_wrong_commands_are_one_line(
    arguments: list[str], line: str, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_run.run_dir), *arguments]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(line, error)


def test_what_only_other_models_and_data_have(
    tiny_run: TinyRun, tiny_segmentation: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write_colors(tmp_path / "empty", {"val": 1})  # its only image has no object
    for run, argument, line in (
        (tiny_segmentation, "--without-nms", "--without-nms: is for YOLO, this is a unet; leave it out"),
        (tiny_run, f"data.root={empty}", "--split val: has nothing annotated to compare by; take another --split"),
    ):
        assert main(["export", str(run.run_dir), argument, "--out", str(tmp_path / "out" / "none.onnx")]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "export", "report", "explain", "compare"])
def test_an_export_is_no_checkpoint(
    command: str, yolo: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [str(tiny_run.run_dir)] if command == "compare" else []
    assert main([command, str(yolo), *others]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.endswith("yolo.onnx: is an export; give the run, or the checkpoint, that it was made of")


DAMAGES: list[tuple[dict[str, Any], str]] = [
    ({"task": "pose"}, "task: Input should be 'detection'"),
    ({"input_hw": [-1, 0]}, r"input_hw\.0: Input should be greater than 0"),
    ({"input_hw": [32, 32]}, "its network does not take images of 32 x 32"),
    ({"max_detections": "x"}, "max_detections: "),
    ({"batch": 0}, "batch: "),
    ({"score_threshold": None}, "score_threshold: "),
    ({"value_range": "bogus"}, "value_range"),
    ({"classes": {"names": ["a", "a"]}}, "class names must differ"),
    ({"colour": 1}, "colour: "),
    ({"max_detections": 0}, "max_detections: expected 1 or more, got 0"),
    ({"value_range": [5, 1]}, r"value_range: expected \[low, high\] with low < high, got \[5\.0, 1\.0\]"),
    ({"nms": False}, r"expected the outputs boxes, scores of 3 classes, as it says, .* labels .*, image_indices"),
    ({"any_size": True}, "its network does not take images of 32 x 64, as it says"),
    ({"task": "semantic"}, r"expected the outputs logits of 3 classes, as it says, its network has boxes \(\d+, 4\)"),
    ({"task": "instance"}, "expected the outputs boxes, scores, labels, masks, regions"),
]


def test_files_that_are_no_exports(yolo: Path, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(CheckpointError, match=r"text\.onnx: damaged, or not an ONNX file"):
        load_predictor(tmp_path / "text.onnx")
    with pytest.raises(CheckpointError, match="no such file"):
        load_predictor(tmp_path / "none.onnx")
    model = onnx.load(yolo)
    for name, text, line in (
        ("other", "{}", "not an export of detseg"),
        (KEY, "{", "what it says of the model is damaged"),
        (KEY, '{"format": 7}', "export format 7, this version reads format 1"),
    ):
        onnx.helper.set_model_props(model, {name: text})
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(CheckpointError, match=line):
            load_predictor(tmp_path / "changed.onnx")
    for changes, line in DAMAGES:
        content = json.loads(onnx.load(yolo).metadata_props[0].value) | changes
        onnx.helper.set_model_props(model, {KEY: json.dumps(content)})
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(CheckpointError, match=rf"changed\.onnx: .*damaged.*{line}"):
            load_predictor(tmp_path / "changed.onnx")
    with pytest.raises(ConfigError, match="device: expected auto, cpu"):
        load_predictor(yolo, "mps")
    with pytest.raises(ConfigError, match="is exported; compile and model are for checkpoints"):
        load_predictor(yolo, compile=True)


def test_a_description_comes_back() -> None:
    classes, limits = ClassTable(("cat", "dog"), (7, 9)), {"score_threshold": 0.05, "nms_iou": 0.5, "nms": True}
    more: dict[str, Any] = {**limits, "max_detections": 100, "value_range": (0, 4095), "padding": (0.5, 0.25, 0.125)}
    one = Description("instance", "mask_rcnn", classes, (64, 96), 1, False, 32, **more)
    assert Description.from_metadata({KEY: one.to_json()}, "") == one
