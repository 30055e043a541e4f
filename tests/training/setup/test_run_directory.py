"""Folders of runs: numbered where the user names none, never written into twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.errors import CheckpointError, ConfigError
from detseg.training.setup.run_directory import claim, claimed, new_run, resumed_run

CONFIG = Path("configs/yolo_x.yaml")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(path: str) -> Path:
    (Path(path) / "checkpoints").mkdir(parents=True)
    checkpoint = Path(path) / "checkpoints" / "last.ckpt"
    checkpoint.write_text("")
    return checkpoint


def test_a_new_run_is_named_after_its_config_and_numbered() -> None:
    assert new_run(None, CONFIG) == Path("runs/yolo_x")
    make_run("runs/yolo_x")
    assert new_run(None, CONFIG) == Path("runs/yolo_x-2")
    make_run("runs/yolo_x-2")
    make_run("runs/yolo_x-11")  # 3 to 10 were deleted: numbers grow, whatever is gone
    make_run("runs/yolo_x-old")
    assert new_run(None, CONFIG) == Path("runs/yolo_x-12")


def test_a_folder_holds_one_run() -> None:
    Path("mine").mkdir()
    assert new_run(Path("mine"), CONFIG) == Path("mine")
    claim(Path("mine"))
    without = "belongs to a run without a checkpoint yet, running or broken off; choose another folder, or delete it"
    with pytest.raises(ConfigError, match=f"^run_dir: mine {without}$"):  # of two that begin at once
        claim(Path("mine"))
    with claimed(Path("broken off")), claimed(Path("whole")):
        Path("whole/checkpoints/last.ckpt").touch()
    assert (Path("broken off").exists(), Path("whole").exists()) == (False, True)


def test_a_checkpoint_does_not_go_on_in_the_folder_of_another_run() -> None:
    checkpoint = make_run("mine")
    make_run("other")
    with pytest.raises(CheckpointError, match=r"belongs to .*mine, but run_dir other holds another run; leave run_dir"):
        resumed_run(Path("other"), CONFIG, str(checkpoint))
    assert resumed_run(Path("mine"), CONFIG, str(checkpoint)) == (Path("mine"), checkpoint)


def test_resume_takes_the_latest_run_of_the_config_or_the_named_folder_or_checkpoint() -> None:
    make_run("runs/yolo_x")
    latest, checkpoint = make_run("runs/yolo_x-10"), make_run("mine")
    make_run("runs/yolo_x-9")
    claim(Path("runs/yolo_x-11"))  # and broken off before it saved
    assert resumed_run(None, CONFIG, "last") == (Path("runs/yolo_x-10"), latest)
    assert resumed_run(Path("mine"), CONFIG, "last") == (Path("mine"), checkpoint)
    assert resumed_run(None, CONFIG, "mine/checkpoints/last.ckpt") == (Path("mine").resolve(), checkpoint)
    assert resumed_run(Path("other"), CONFIG, "mine/checkpoints/last.ckpt") == (Path("other"), checkpoint)


def test_resume_without_a_run_is_one_line() -> None:
    last = r"runs/yolo_x/checkpoints/last\.ckpt: no such checkpoint to resume from; name one: --resume=CKPT"
    for resume, message in (("last", last), ("a.ckpt", r"a\.ckpt: no such checkpoint file")):
        with pytest.raises(CheckpointError, match=f"^{message}$"):
            resumed_run(None, CONFIG, resume)


def test_a_run_that_was_moved_is_not_split_by_its_own_settings() -> None:
    checkpoint = make_run("new")
    message = r"config\.yaml: lies in a run directory, but says run_dir old, which is not there; .*: run_dir=/.*/new$"
    for resume in ("last", "auto", str(checkpoint)):
        with pytest.raises(CheckpointError, match=message):
            resumed_run(Path("old"), Path("new/config.yaml"), resume)
        assert resumed_run(Path("new"), Path("new/config.yaml"), resume)[1] == checkpoint


def test_auto_goes_on_where_there_is_a_checkpoint_and_begins_where_there_is_none() -> None:
    assert resumed_run(None, CONFIG, "auto") == (Path("runs/yolo_x"), None)
    assert resumed_run(Path("mine"), CONFIG, "auto") == (Path("mine"), None)
    claim(Path("mine"))  # and was killed
    assert resumed_run(Path("mine"), CONFIG, "auto") == (Path("mine"), None)
    claim(Path("mine"), again=True)
    (Path("mine") / "checkpoints" / "previous.ckpt").write_text("")  # killed between two renamings
    found = (Path("mine"), Path("mine/checkpoints/previous.ckpt"))
    assert resumed_run(Path("mine"), CONFIG, "auto") == resumed_run(Path("mine"), CONFIG, "last") == found
    latest = make_run("runs/yolo_x-4")
    assert resumed_run(None, CONFIG, "auto") == (Path("runs/yolo_x-4"), latest)
