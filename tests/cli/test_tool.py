"""The command line: exit codes, one line on stderr, flags anywhere among the overrides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from detseg.cli.tool import run_tool
from detseg.cli.train import main
from detseg.config.load import load_config
from detseg.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SHAPES = str(ROOT / "configs" / "yolo_shapes.yaml")
RUN = "import sys; from detseg.cli.tool import run_tool; sys.exit(run_tool("


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "no configuration file given, such as configs/yolo_shapes.yaml; see --help"),
        (["--foo", SHAPES], "unrecognized arguments: --foo; see "),
        ([SHAPES, "--run-dir"], "argument --run-dir: expected one argument; see "),
        ([SHAPES, "trainer.max_epochs", "3"], "argument 'trainer.max_epochs': expected an override such as "),
        (["seed=1", SHAPES], "argument 'seed=1': expected the configuration file before any override"),
        (["--resume", SHAPES], "argument --resume: "),
        ([SHAPES, "--resume", "seed=1"], "argument --resume: 'seed=1' is no checkpoint; put --resume last, or "),
        ([SHAPES, "modle.x=1"], "override modle.x=1: modle: unknown key (did you mean 'model'?)"),
    ],
)
def test_wrong_arguments_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool(main, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1


def test_print_config_prints_what_loads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--run-dir", "a b", SHAPES, "seed=3", "--print-config", "trainer.max_epochs=7", "--resume"]
    assert run_tool(main, argv) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    config = load_config(path)
    assert (config.seed, config.trainer.max_epochs, config.run_dir) == (3, 7, Path("a b"))


def test_help_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_tool(main, ["--help"])
    assert "detseg config explain" in (text := capsys.readouterr().out)
    assert text.count("\n") <= 24


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


def test_several_mistakes_are_a_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "a\nerror: b.yaml"
    config.write_text("data: {name: voc, root: x}\nmodel: {name: yolo}\nsed: 1\nrun_dirr: x\n")
    assert run_tool(main, [str(config), "--print-config"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"error: {tmp_path}/a\\nerror: b.yaml: ") for line in lines)
