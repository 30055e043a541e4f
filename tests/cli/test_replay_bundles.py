"""Bundles that are damaged, foreign or hostile: `tools/replay.py` says one line, and nothing else happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detseg.cli import replay as tool
from tests.broken_runs import BrokenRun, broken_yolo, content, edit_json
from tests.cli.mistakes import said

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def nan_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokenRun]:
    """A run with a sound bundle."""
    with pytest.MonkeyPatch.context() as patch:
        yield broken_yolo(tmp_path_factory.mktemp("nan"), patch)


@pytest.fixture
def copied(nan_run: BrokenRun, tmp_path: Path) -> Path:
    """A copy of its bundle."""
    return Path(shutil.copytree(nan_run.bundle, tmp_path / "bundle"))


def wrong_sample(bundle: Path, **changes: Any) -> dict[str, Any]:
    """The batches of a bundle whose first sample is another one."""
    batch = content(bundle)["batches"][0]
    return {"batches": [batch | {"samples": [batch["samples"][0] | changes, *batch["samples"][1:]]}]}


WRONG: list[tuple[str, Callable[[Path], None], str]] = [
    ("no folder", shutil.rmtree, "not a bundle of a step, which is a folder of bundle.json and weights.safetensors"),
    (
        "no json",
        lambda b: write(b, "{"),
        "bundle.json: damaged, or not a bundle of this version of detseg (Invalid JSON",
    ),
    ("deep json", lambda b: write(b, "[" * 10**5), "bundle.json: damaged, or not a bundle"),
    ("another format", lambda b: edit_json(b, format=2), "not a bundle of this version of detseg (format: "),
    ("unknown key", lambda b: edit_json(b, more=1), "not a bundle of this version of detseg (more: "),
    ("escapes", lambda b: edit_json(b, **{"\x1b[2J": 1}), r"(\x1b[2J: "),
    ("negative seed", lambda b: edit_json(b, seed=-1), "not a bundle of this version of detseg (seed: "),
    ("no settings", lambda b: edit_json(b, config={}), "cannot be replayed, as its run had no settings"),
    ("wrong settings", lambda b: edit_json(b, config=content(b)["config"] | {"x": 1}), "bundle.json: x: unknown key"),
    (
        "other classes",
        lambda b: edit_json(b, class_names=["a", "b", "c"]),
        "its classes are ['a', 'b', 'c'], the data's",
    ),
    (
        "other data",
        lambda b: edit_json(b, num_samples=99),
        "the run had 99 training images, the data has 16; set data.root",
    ),
    ("no batch", lambda b: edit_json(b, batches=[]), "cannot be replayed"),
    (
        "index",
        lambda b: edit_json(b, **wrong_sample(b, index=16)),
        "its samples are not those that its own settings deal",
    ),
    (
        "size",
        lambda b: edit_json(b, **wrong_sample(b, height=10**6)),
        "its samples are not those that its own settings",
    ),
    (
        "four gigapixels",
        lambda b: edit_json(b, config=other_data(b, image_size=65536), **wrong_sample(b, height=65536, width=65536)),
        "bundle.json: data.image_size: expected a whole number from 32 to 13376",
    ),
    ("digits", lambda b: edit_json(b, accumulate_batches=10**400), "of this version of detseg (accumulate_batches: "),
    ("epoch", lambda b: edit_json(b, epoch=10**400), "of this version of detseg (epoch: "),
    (
        "number",
        lambda b: edit_json(b, batches=[content(b)["batches"][0] | {"number": 10**18}]),
        "an epoch of its settings has 8 batches, it says 1000000000000000001",
    ),
    ("random", lambda b: edit_json(b, python_state=[9, None]), "its random state is damaged"),
    (
        "ids",
        lambda b: edit_json(b, source_ids=[1, 1, 1]),
        "bundle.json: expected 3 different source ids, got [1, 1, 1]",
    ),
    (
        "cut weights",
        lambda b: cut(b / "weights.safetensors"),
        "weights.safetensors: damaged, or not a safetensors file (",
    ),
    (
        "pickle",
        lambda b: torch.save({}, b / "weights.safetensors"),
        "weights.safetensors: damaged, or not a safetensors",
    ),
    ("other weights", lambda b: swap_weights(b, {}), "its weights do not fit its own settings (Missing key(s)"),
    ("no random", lambda b: swap_weights(b, None), "weights.safetensors: not the weights of a bundle"),
]


def other_data(bundle: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a bundle with others of its data."""
    config = content(bundle)["config"]
    return dict(config | {"data": config["data"] | changes})


def write(bundle: Path, text: str) -> None:
    (bundle / "bundle.json").write_text(text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def swap_weights(bundle: Path, weights: dict[str, Tensor] | None) -> None:
    """Another model in a bundle; None: nothing at all."""
    path = bundle / "weights.safetensors"
    random = {name: value for name, value in load_file(path).items() if name.startswith("random.")}
    save_file({} if weights is None else random | {"model.other": torch.zeros(1)}, path)


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_bundle_that_is_none_is_one_line(
    damage: Callable[[Path], None], message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copied)
    code, error = said(tool, [str(copied)], capsys)
    assert code == 2
    assert error.startswith(f"error: {copied}")
    assert message in error
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error


def test_only_who_calls_may_download(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("detseg.data.build.download_voc", lambda root, *_: asked.append(root))
    root = tmp_path / "chosen"
    edit_json(copied, config=other_data(copied, root=str(root), train_split="2007:train", download=True))
    assert said(tool, [str(copied)], capsys)[0] == 2
    assert asked == []
    assert said(tool, [str(copied), "data.download=true"], capsys)[0] == 2
    assert asked == [root]


def test_only_the_data_can_be_set(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "error: override seed=1: the bundle decides; only data.* can be changed\n"
    assert said(tool, [str(copied), "seed=1"], capsys) == (2, line)
