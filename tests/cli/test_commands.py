"""The `detseg` command: sub-commands, exit codes, one-line errors, examples by name, new files, settings in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.cli.tool import run_tool
from detseg.cli.train import train
from detseg.config.load import load_config
from detseg.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SHAPES = str(ROOT / "configs" / "yolo_shapes.yaml")
RUN = "import sys; from detseg.cli.tool import run_tool; sys.exit(run_tool("


def out_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_help_names_every_command_and_each_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = out_of(capsys)
    assert text == out_of(capsys, "--help")
    assert max(map(len, text.splitlines())) <= 80
    names = ("train", "tune", "evaluate", "report", "compare", "explain", "predict", "find-lr", "benchmark")
    names += ("export-weights", "config")
    for command in names:
        assert f"  {command} " in text
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        help_ = capsys.readouterr().out
        assert help_.startswith(f"usage: detseg {command} ")
        assert help_.count("\n") <= {"train": 24, "predict": 90}.get(command, 40)


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "detseg", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("detseg 0.")
    shim = subprocess.run([sys.executable, "tools/train.py", "x.yaml"], capture_output=True, text=True, cwd=ROOT)
    assert (shim.returncode, shim.stderr) == (2, "error: x.yaml: no such configuration file\n")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["trian"], "there is no command 'trian' (did you mean 'train'?); the commands are train, "),
        (["train"], "no configuration file given, such as configs/yolo_shapes.yaml; see --help"),
        (["train", "--foo", SHAPES], "unrecognized arguments: --foo; see "),
        (["train", SHAPES, "--run-dir"], "argument --run-dir: expected one argument; see "),
        (["train", SHAPES, "trainer.max_epochs", "3"], "argument 'trainer.max_epochs': expected an override such as "),
        (["train", "seed=1", SHAPES], "argument 'seed=1': expected the configuration file before any override"),
        (["train", "--resume", SHAPES], "argument --resume: "),
        (
            ["train", SHAPES, "--resume", "seed=1"],
            "argument --resume: 'seed=1' is no checkpoint; put --resume last, or ",
        ),
        (["train", SHAPES, "modle.x=1"], "override modle.x=1: modle: unknown key (did you mean 'model'?)"),
        (["train", "yolo_shape"], "'yolo_shape' is neither a file nor an example (did you mean 'yolo_shapes'?)"),
        (
            ["predict", "x.ckpt", "a.png", "--out", "new", "--score", "30"],
            "argument --score: expected a number from 0 to 1",
        ),
        (["benchmark", SHAPES, "data.root=nowhere", "--checkpoint", "no.ckpt"], "no.ckpt: no such checkpoint file"),
        (["tune", SHAPES, "--trials", "3"], "--space: is missing; see detseg tune --help"),
        (["tune", SHAPES, "--space", "no.yaml", "--trials", "0"], "argument --trials: expected a whole number of at"),
        (["tune", SHAPES, "--space", "no.yaml", "--trials", "3"], "no.yaml: no such configuration file"),
        (["tune", SHAPES, "--time", "0", "--trials", "3"], "argument --time: expected a number above 0, got '0'"),
        (["config", "explain", "model.heda"], "there is no setting 'model.heda' (did you mean 'model.head'?)"),
        (
            ["config", "new", "extra"],
            "'extra': `detseg config new` takes a folder of data, and there is none of this",
        ),
        (["config", "new", ".", "--data", "voc"], "--data is for a file without DIR, whose layout is found out; leave"),
        (
            ["config", "explain", "--model", "fcn"],
            "--model, --data and --budget are for `config new`",
        ),
        (["config", "new", "--model", "mask_rcnn"], "--data voc: has not what mask_rcnn learns; take coco or "),
        (["config", "new", "--model", "yolo", "--data", "mask_folder"], "--data mask_folder: has not what yolo learns"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_examples_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(examples) > 15
    monkeypatch.chdir(tmp_path)
    for path in examples:
        assert "  root: data" in out_of(capsys, "train", path.stem, "--print-config"), path
        assert load_config(path.stem) == load_config(path)  # as detseg.train does


BOXES = ("voc", "coco", "yolo", "labelme", "cvat", "auto", "shapes")
LAYOUTS = {"yolo": BOXES, "faster_rcnn": BOXES, "mask_rcnn": BOXES[1:]}
LAYOUTS |= dict.fromkeys(("fcn", "unet"), (*BOXES, "mask_folder"))


@pytest.mark.parametrize(("model", "data"), [(model, data) for model, layouts in LAYOUTS.items() for data in layouts])
def test_a_new_file_is_settings(model: str, data: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text := out_of(capsys, "config", "new", "--model", model, "--data", data), encoding="utf-8")
    assert ("SegmentationClass" in text) == (data == "voc" and model in ("fcn", "unet"))
    config = load_config(file)
    assert (config.model.name, config.data.name) == (model, data)


def test_settings_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    one = out_of(capsys, "config", "explain", "trainer.max_epochs")
    chosen = "(left out: may be chosen from the data)"
    assert f"  trainer.max_epochs: a whole number of at least 1; default 100 {chosen}\n      Passes" in one
    assert set(one.splitlines()) < set(out_of(capsys, "config", "explain", "trainer").splitlines())
    assert "model.backbone.name" in out_of(capsys, "config", "explain")


def test_print_config_prints_what_loads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--run-dir", "a b", SHAPES, "seed=3", "--print-config", "trainer.max_epochs=7", "--resume"]
    assert run_tool(train, argv) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    config = load_config(path)
    assert (config.seed, config.trainer.max_epochs, config.run_dir) == (3, 7, Path("a b"))
    (text,) = {out_of(capsys, command, SHAPES, "--print-config") for command in ("train", "check", "show", "split")}
    assert "  num_train: " in text


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def run(error: BaseException, *argv: str) -> tuple[int, str]:
        def tool(argv: Sequence[str]) -> None:
            raise error

        return run_tool(tool, argv), capsys.readouterr().err

    name = DataError("a\x1b[31m\nerror: b.jpg: unreadable")  # all of it the name of a file
    assert run(name) == (2, "error: a\\x1b[31m\\nerror: b.jpg: unreadable\n")
    assert "Traceback" in run(name, "--debug")[1]
    assert run(KeyboardInterrupt()) == (130, "interrupted\n")
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_a_letter_that_the_terminal_does_not_have_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", f"{RUN}lambda argv: print('b\u00efld')))"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b\\xefld\n", "")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-c", f"{RUN}lambda argv: print('x' * 10**6), []))"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_ctrl_c_while_the_commands_load_has_no_traceback() -> None:
    code = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "detseg.cli.tune":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from detseg.cli import main
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_several_mistakes_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "a\nerror: b.yaml"
    config.write_text("data: {name: voc, root: x}\nmodel: {name: yolo}\nsed: 1\nrun_dirr: x\n")
    assert run_tool(train, [str(config), "--print-config"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"error: {tmp_path}/a\\nerror: b.yaml: ") for line in lines)
