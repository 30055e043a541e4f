"""What the commands say to mistakes: exactly one line, exit code 2, and no traceback unless it is asked for.

The messages of readers and settings are tested beside them; here are those that come from inside a run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.cli.deploy.predict import predict
from detseg.cli.evaluation.evaluate import evaluate
from detseg.cli.train import train
from detseg.data.images.read import readable_formats
from tests.cli.mistakes import Tool, assert_one_line, each_case, said
from tests.tiny import CLASSES, TinyRun, write_colors

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG, BEST = "tiny.yaml", "run/checkpoints/best.ckpt"
NOT_AN_IMAGE = (
    f"not an image, or damaged beyond recognition; read are {', '.join(readable_formats())}; replace the file or "
    "take it off the list"
)
NO_ZIP = "damaged or not a checkpoint: File is not a zip file; take another file of the run directory, or copy it again"


@pytest.fixture(scope="module")
def folder(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, its data and settings, and everything that can be wrong beside them."""
    root = tmp_path_factory.mktemp("wrong")
    (root / "run").symlink_to(tiny_run.run_dir)
    (root / CONFIG).write_bytes(tiny_run.config_path.read_bytes())
    (root / "cut.ckpt").write_bytes(tiny_run.best.read_bytes()[:1000])
    (root / "file").write_text("no folder")
    for split in ("train", "val"):
        (write_colors(root / f"unreadable_{split}") / "JPEGImages" / f"{split}03.png").write_bytes(b"no image")
    return root


TRAIN = f"""\
tiny.yaml data.root=nowhere
    nowhere: there is no such folder; set data.root to the folder of the data
tiny.yaml data.root=data/bccd
    data/bccd: there is no such folder; docs/data_formats.md, 'The sets of the examples', says where it comes from; or
    set data.root to where it is
tiny.yaml model.backbone.name=resnet1888 model.backbone.width=null model.backbone.depth=null
    model.backbone: timm has no model 'resnet1888' (did you mean 'resnet18' or 'resnet18d' or 'skresnet18'?); ours
    are csp_nano, csp_small, csp_medium, csp_large, unet
tiny.yaml trainer.max_epochs=1 run_dir=new data.root=unreadable_train
    unreadable_train/JPEGImages/train03.png: {NOT_AN_IMAGE}
tiny.yaml trainer.max_epochs=1 run_dir=new data.root=unreadable_train data.num_workers=1
    unreadable_train/JPEGImages/train03.png: {NOT_AN_IMAGE}
tiny.yaml trainer.max_epochs=1 run_dir=new data.root=unreadable_val
    unreadable_val/JPEGImages/val03.png: {NOT_AN_IMAGE}
tiny.yaml run_dir=file
    run_dir: file: file is no folder that you may write into; choose another one
tiny.yaml --resume=cut.ckpt
    cut.ckpt: {NO_ZIP}
tiny.yaml --resume=run/checkpoints/best.ckpt 'data.classes=[red, yellow, blue]' trainer.max_epochs=99
    the checkpoint's classes are {list(CLASSES)}, the data's are ['red', 'yellow', 'blue']; resume with the data
    that the run began with, or start a new run from its weights: model.weights=CHECKPOINT
"""

EVALUATE = f"""\
nowhere.ckpt
    nowhere.ckpt: no such checkpoint file; there are cut.ckpt
cut.ckpt
    cut.ckpt: {NO_ZIP}
run/checkpoints/best.ckpt data.root=unreadable_val
    unreadable_val/JPEGImages/val03.png: {NOT_AN_IMAGE}
run/checkpoints/best.ckpt data.root=unreadable_val data.num_workers=1
    unreadable_val/JPEGImages/val03.png: {NOT_AN_IMAGE}
run/checkpoints/best.ckpt --save-coco file
    file/ground_truth.json: could not be written (File exists); a file is where a folder must be, or a folder where a
    file; choose another place
"""

PREDICT = f"""\
run/checkpoints/best.ckpt unreadable_val/JPEGImages/val03.png --out new
    1 of 1 images were left out: unreadable_val/JPEGImages/val03.png: {NOT_AN_IMAGE}
run/checkpoints/best.ckpt unreadable_val/JPEGImages --out file
    file/results.jsonl: could not be written (File exists); a file is where a folder must be, or a folder where a file;
    choose another place
run/checkpoints/best.ckpt unreadable_val/JPEGImages --out new --tile 0 64
    argument --tile: expected a whole number of at least 1, got '0'; see detseg predict --help
run/checkpoints/best.ckpt unreadable_val/JPEGImages --out new --overlap 8
    overlap, full_image, merge: belong to tiles; give tile=(height, width) too, or leave them out
run/checkpoints/best.ckpt unreadable_val/JPEGImages --out new --flips up
    flips: expected horizontal, vertical or both, each once, got up
"""


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@each_case((train, TRAIN), (evaluate, EVALUATE), (predict, PREDICT))
def test_a_mistake_is_one_line(
    tool: Tool, argv: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_one_line(tool, argv, message, folder, tmp_path, capsys)


@pytest.mark.parametrize("device", ["cudax", "cuda:77"])
@pytest.mark.parametrize("tool", [evaluate, predict])
def test_a_device_that_is_not_there(tool: Tool, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    others = ["unreadable_val/JPEGImages/val00.png", "--out", "new"] if tool is predict else []
    code, error = said(tool, [BEST, *others, "--device", device], capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: device: expected auto, cpu, cuda, cuda:1, mps, ")
    assert f"got '{device}' (" in error


def test_debug_shows_where_it_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"run_dir={tmp_path / 'new'}", "data.root=unreadable_train", "data.num_workers=1"]
    code, error = said(train, ["--debug", CONFIG, *overrides], capsys)
    assert code == 2
    assert error.startswith("Traceback (most recent call last):")
    assert "In the loader:" in error  # what happened in the worker
    assert error.endswith(f"\nerror: unreadable_train/JPEGImages/train03.png: {NOT_AN_IMAGE}\n")


@pytest.mark.parametrize(("on_nan", "last"), [("stop", 2), ("skip", 3)])
def test_divergence_is_one_line(on_nan: str, last: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "new"
    argv = [CONFIG, "trainer.max_epochs=1", f"run_dir={run_dir}", "optimizer.lr=1e30"]
    code, line = said(train, [*argv, f"trainer.on_nan={on_nan}", "trainer.max_nan_steps=1"], capsys)
    assert (code, line.count("\n")) == (2, 1)
    assert line.startswith(f"error: epoch 1, step {last}: the loss is not finite (box nan, class nan, dfl nan); ")
    assert f"; details in {run_dir / f'nan_epoch001_step{last:05d}'}; " in line
    assert ": no sample is at fault; " in line or "samples are at fault: it is not the data; " in line
    assert len(list(run_dir.glob("nan_epoch001_step*/diagnosis.json"))) == last - 1
    assert line.endswith("lower optimizer.lr, or set trainer.precision=float32\n")
