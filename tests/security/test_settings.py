"""Settings of a file name no class and grow beyond no bound; those of a checkpoint reach out to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.cli.deploy.predict import predict
from detseg.cli.evaluation.evaluate import evaluate
from detseg.cli.train import train
from detseg.config.load import config_from_dict, load_config
from detseg.errors import ConfigError
from detseg.evaluation import evaluate_checkpoint
from tests.cli.mistakes import Tool, said
from tests.predict.networks import write_unet
from tests.security.hostile import in_torch_zip, innocent, png_that_declares

pytestmark = pytest.mark.filterwarnings("ignore")


def said_of(argv: list[str], tool: Tool, capsys: pytest.CaptureFixture[str]) -> str:
    code, message = said(tool, argv, capsys)
    assert (code, message.count("\n")) == (2, 1), message
    return message


LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def hostile(target: Path) -> dict[str, tuple[str, str]]:
    """Text of a file, and what is said of it."""
    return {
        "a function": (f"seed: !!python/object/apply:os.system ['touch {target}']\n", "tags (!) are not allowed"),
        "a class": (f"seed: !!python/object/new:open ['{target}', w]\n", "tags (!) are not allowed"),
        "a module": ("seed: !!python/module:os\n", "tags (!) are not allowed"),
        "a tag of our own": ("seed: !include /etc/passwd\n", "tags (!) are not allowed"),
        "a short tag": (f"%TAG ! tag:yaml.org,2002:python/\n---\nseed: !object/apply:os.system [{target}]\n", "tags"),
        "a billion laughs": (LAUGHS, "anchors (&) and aliases (*) are not allowed"),
        "a list that holds itself": ("seed: &a [*a]\n", "anchors (&) and aliases (*) are not allowed"),
        "a merge": ("a: &a {seed: 1}\n<<: *a\n", "anchors (&) and aliases (*) are not allowed"),
        "a depth of 10^5": ("seed: " + "[" * 100_000 + "\n", "nested deeper than 30 levels"),
        "a mapping of depth 10^5": ("{a: " * 100_000, "nested deeper than 30 levels"),
        "a number of a million digits": ("seed: " + "9" * 1_000_000 + "\n", "a whole number beyond 64 bits"),
        "control characters": ('data: {name: shapes}\nseed: "\\e[2J\\e[31m"\n', "seed: expected a whole number"),
        "control characters in a key": ('data: {name: shapes}\n"\\e[2J": 1\n', "unknown key"),
    }


@pytest.mark.parametrize("name", hostile(Path()))
def test_hostile_settings_are_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "exploded"
    text, reason = hostile(target)[name]
    path = tmp_path / "hostile.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert reason in str(caught.value)
    message = said_of([str(path)], train, capsys)
    assert message.startswith(f"error: {path}")
    assert message.rstrip("\n").isprintable()
    assert len(message) < 500
    assert not target.exists()


def test_overrides_are_read_by_the_same_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, target = tmp_path / "good.yaml", tmp_path / "exploded"
    path.write_text("seed: 1\n")
    for value in (f"!!python/object/apply:os.system ['touch {target}']", "&a [*a]", "[" * 100_000, "\x1b[31m"):
        assert said_of([str(path), f"seed={value}"], train, capsys).startswith("error: override seed=")
    assert not target.exists()


def a_checkpoint(folder: Path, **data: Any) -> Path:
    """A sound one but for some settings of its data."""
    path = write_unet(folder / "x.ckpt")
    content = torch.load(path, weights_only=True)
    content["detseg"]["config"]["data"] |= data
    torch.save(content, path)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that something was to be downloaded into."""
    folders: list[Path] = []
    monkeypatch.setattr("detseg.data.build.download_voc", lambda root, *_: folders.append(root))
    return folders


def test_only_who_calls_may_download(tmp_path: Path, asked: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "chosen"
    path = a_checkpoint(tmp_path, root=str(root), years=["2007"], val_split="2007:val", download=True)
    assert said(evaluate, [str(path), "--device=cpu"], capsys)[0] == 2
    with pytest.raises(ValueError, match="chosen"):
        evaluate_checkpoint(path, "val", device="cpu")
    assert asked == []
    assert said(evaluate, [str(path), "--device=cpu", "data.download=true"], capsys)[0] == 2
    assert asked == [root]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", [10**6, 10**6]),
        ("image_size", 65536),
        ("batch_size", 10**9),
        ("batch_size", 10**400),
        ("num_workers", 10**6),
        ("augmentation", {"multi_scale": [1, 10**9]}),
    ],
    ids=["sides", "side", "batch", "batch of many digits", "workers", "scale"],
)
def test_absurd_sizes_are_one_line(key: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = a_checkpoint(tmp_path, **{key: value})
    (tmp_path / "a.png").write_bytes(png_that_declares(4, 4))
    for tool, arguments in ((evaluate, []), (predict, [str(tmp_path / "a.png"), "--out", str(tmp_path / "out")])):
        assert said_of([str(path), *arguments, "--device=cpu"], tool, capsys).startswith(f"error: {path}: ")


def test_settings_without_data_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(in_torch_zip(innocent()))
    for overrides in ([], ["data.name=coco"]):
        assert said_of([str(path), *overrides], evaluate, capsys).startswith(f"error: {path}: ")


@pytest.mark.parametrize("key", ["seed", "data.batch_size", "trainer.accumulate_grad_batches", "trainer.max_epochs"])
def test_no_setting_is_beyond_64_bits(key: str) -> None:
    settings: dict[str, Any] = {"data": {"name": "shapes"}}
    section, _, name = key.rpartition(".")
    (settings.setdefault(section, {}) if section else settings)[name] = 2**63
    with pytest.raises(ConfigError, match=r"^x: the configuration is not plain data: a whole number beyond 64 bits$"):
        config_from_dict(settings, "x")


def test_a_scale_times_the_side_has_a_bound() -> None:
    data = {"name": "shapes", "image_size": 8192, "augmentation": {"multi_scale": [1, 2]}}
    with pytest.raises(ConfigError, match=r"data\.augmentation\.multi_scale: makes 8192 more than 13376 pixels"):
        config_from_dict({"data": data}, "x")
