"""No checkpoint runs code, whichever tool reads it, and none takes more memory or time than its file is large."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from detseg.checkpoint import read_raw_checkpoint
from detseg.cli.deploy.export_weights import export_weights
from detseg.cli.deploy.predict import predict
from detseg.cli.evaluation.evaluate import evaluate
from detseg.cli.train import train
from detseg.errors import CheckpointError, DetsegError
from detseg.factory.torchvision_weights import TORCHVISION_WEIGHTS, load_torchvision_weights, weights_path
from detseg.predict import load_predictor
from detseg.structures import ClassTable
from tests.cli.mistakes import said
from tests.factory.torchvision_models import LIGHT
from tests.security import hostile
from tests.tiny import write_colors, write_config

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What would be there if something ran."""
    return tmp_path / "exploded"


def test_the_bombs_are_live(target: Path) -> None:
    """They do go off where pickles are trusted, or the tests below would prove nothing."""
    for name in ("a pickle", "an old pickle"):
        pickle.loads(hostile.CODE[name](target))  # noqa: S301 - to see that it is a bomb
        assert target.exists()
        target.unlink()


@pytest.mark.parametrize("name", hostile.CODE)
def test_no_tool_runs_its_code(name: str, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = tmp_path / "bomb.ckpt"
    bomb.write_bytes(hostile.CODE[name](target))
    picture = tmp_path / "a.png"
    picture.write_bytes(hostile.png_that_declares(4, 4))
    calls = [
        (evaluate, [str(bomb)]),
        (predict, [str(bomb), str(picture), "--out", str(tmp_path / "out")]),
        (export_weights, [str(bomb), str(tmp_path / "out.safetensors")]),
    ]
    for tool, arguments in calls:
        code, message = said(tool, arguments, capsys)
        assert (code, message.count("\n")) == (2, 1), message
        assert message.startswith(f"error: {bomb}: ")
        assert "damaged" in message
    for read in (load_predictor, read_raw_checkpoint):
        with pytest.raises(CheckpointError):
            read(bomb)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


def test_no_run_is_resumed_from_code(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "tiny.yaml", write_colors(tmp_path / "colors", {"train": 4, "val": 2}))
    bomb = tmp_path / "run" / "checkpoints" / "last.ckpt"
    bomb.parent.mkdir(parents=True)
    bomb.write_bytes(hostile.CODE["in torch's zip"](target))
    for resume in ("--resume", f"--resume={bomb}"):
        code, message = said(train, [str(config), f"run_dir={tmp_path / 'run'}", resume], capsys)
        assert code == 2
        assert message.count("\n") == 1, message
        assert f"{bomb}: holds more than tensors and plain data" in message
    assert not target.exists()
    assert [path.name for path in bomb.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("name", hostile.CODE)
def test_right_weights_run_no_code(name: str, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        weights = TORCHVISION_WEIGHTS[LIGHT]
        path = weights_path(weights)
        path.parent.mkdir()
        path.write_bytes(hostile.CODE[name](target))
        with pytest.raises(DetsegError, match=r"SHA-256 does not begin with the digits in its name"):
            load_torchvision_weights(torch.nn.Identity(), weights, True)
        collision = "detseg.factory.torchvision_weights.has_hash_of_name"  # of 32 bits
        monkeypatch.setattr(collision, lambda path: True)
        with pytest.raises(DetsegError, match="is damaged, torch reads no weights in it"):
            load_torchvision_weights(torch.nn.Identity(), weights, True)
    finally:
        torch.hub.set_dir(before)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hostile.compressed_bomb(), "it holds compressed records or folders"),
        (hostile.overlapping_bomb(), r"its records say \d{9,} bytes, and the file has \d{6,7}"),
    ],
    ids=["compressed", "overlapping"],
)
def test_growing_archives_refused(content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grows.ckpt"
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", None)  # who calls it dies of a TypeError
    with pytest.raises(CheckpointError, match=rf"grows\.ckpt: damaged or not a checkpoint: {reason}; take another"):
        read_raw_checkpoint(path)


@pytest.mark.parametrize("extra", [hostile.laughing_lists(), torch.zeros(1).expand(10**12)], ids=["lists", "a number"])
def test_what_pretends_to_be_large_is_not_walked_through(extra: object, tmp_path: Path) -> None:
    path = tmp_path / "large.ckpt"
    path.write_bytes(hostile.in_torch_zip(hostile.innocent(extra=extra)))
    assert path.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"large\.ckpt: .*it pretends to hold far more than its file does"):
        read_raw_checkpoint(path)


def test_a_checkpoint_that_is_none_of_these_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.ckpt"
    path.write_bytes(hostile.in_torch_zip(hostile.innocent()))
    before = hashlib.sha256(path.read_bytes()).digest()
    assert read_raw_checkpoint(path)["epoch"] == 0
    assert hashlib.sha256(path.read_bytes()).digest() == before


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31mred", "two\nlines", "\u202eevil", "\ud800", "nul\0"])
def test_class_names_that_are_no_text_are_refused(name: str, tmp_path: Path) -> None:
    content = hostile.innocent()
    content["detseg"]["classes"]["names"] = [name]
    path = tmp_path / "names.ckpt"
    path.write_bytes(hostile.in_torch_zip(content))
    with pytest.raises(CheckpointError, match=r"names\.ckpt: an entry is missing or malformed") as caught:
        load_predictor(path, "cpu")
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="class names must be text without control characters"):
        ClassTable((name,))
