"""`detseg split` for every format: what it writes opens, holds each image once, and replaces nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.cli.convert import convert
from detseg.cli.tool import run_tool
from detseg.config.load import load_config
from detseg.data.build import open_semantic_split, open_split
from tests.shared_data import shared_data


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """One COCO file of 33 images, with keys that only COCO's own tools use."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(shared_data("coco_mini/images"))
    shutil.copy(shared_data("coco_mini/annotations/instances_all.json"), root / "annotations.json")
    return root


def opened(config: Path) -> dict[str, list[str]]:
    data = load_config(config).data
    train = open_split(data, "train")
    parts = {"train": train, "val": open_split(data, "val", train.classes)}
    return {name: [Path(part.path(i)).name for i in range(len(part))] for name, part in parts.items()}


def test_coco_parts_keep_every_key(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (coco / "annotations.json").read_bytes()
    assert main(["split", str(coco), "--val", "0.25", "--test", "0.1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"next: detseg train {coco}/splits/split.yaml\n")
    assert "images             22       8       3" not in out  # columns are as wide as their numbers
    assert [line.split() for line in out.splitlines() if line.startswith("  images")] == [["images", "22", "8", "3"]]
    source = json.loads(before)
    parts = [json.loads((coco / "splits" / f"{name}.json").read_text()) for name in ("train", "val", "test")]
    for key in ("images", "annotations"):
        entries = [entry for part in parts for entry in part[key]]
        assert sorted(entries, key=lambda entry: entry["id"]) == sorted(source[key], key=lambda entry: entry["id"])
    assert all({**part, "images": 0, "annotations": 0} == {**source, "images": 0, "annotations": 0} for part in parts)
    names = opened(coco / "splits" / "split.yaml")
    assert [len(part) for part in names.values()] == [22, 8]
    assert not set(names["train"]) & set(names["val"])
    assert (coco / "annotations.json").read_bytes() == before
    assert main(["split", str(coco), "--val", "0.25"]) == 2
    assert f"error: {coco}/splits/split.yaml: exists already; remove it, or choose another place with --out" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("layout", ["voc", "yolo", "labelme", "cvat"])
def test_folds_in_the_way_of_each_format(layout: str, coco: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    assert run_tool(convert, [str(coco), str(root), "--to", layout, "--images", "link"]) == 0
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["split", str(root), "--folds", "3", "--group", "none"]) == 0
    folds = [opened(root / "splits" / f"fold{number}.yaml") for number in (1, 2, 3)]
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(folds[0]["train"] + folds[0]["val"])
    assert [len(fold["val"]) for fold in folds] == [11, 11, 11]
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in folds)
    assert {path: path.read_bytes() for path in before} == before
    if layout == "yolo":
        assert "train: splits/fold1_train.txt" in (root / "splits" / "data_fold1.yaml").read_text()
    if layout == "cvat":
        text = (root / "splits_fold1_val.xml").read_text(encoding="utf-8")
        assert text.count("<image ") == 11
        assert (
            text.partition("<image ")[0].strip()
            == (root / "annotations.xml").read_text().partition("<image ")[0].strip()
        )


def test_near_duplicates_and_groups_by_name(tmp_path: Path) -> None:
    root = tmp_path / "bccd"
    for name in ("Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for number in (*range(30, 40), 41, 43):
        for path in shared_data("bccd").glob(f"*/BloodImage_000{number}.*"):
            (root / path.parent.name / path.name).symlink_to(path)
    assert main(["split", str(root), "--val", "0.4"]) == 0  # XML without lists
    names = opened(root / "splits" / "split.yaml")
    pair = {"BloodImage_00037.jpg", "BloodImage_00038.jpg"}
    assert pair <= set(names["train"]) or pair <= set(names["val"])
    assert main(["split", str(root), "--val", "0.5", "--group", r"_000(\d)", "--out", str(root / "by_ten")]) == 0
    names = opened(root / "by_ten" / "split.yaml")
    assert {frozenset(name[:14] for name in part) for part in names.values()} == {frozenset({"BloodImage_000"})} or all(
        len({name[14] for name in part}) == 1 for part in names.values()
    )


def test_masks_of_voc(tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    shutil.copytree(shared_data("camvid_small"), root, copy_function=lambda a, b: Path(b).symlink_to(a))
    shutil.copytree(shared_data("camvid_small/ImageSets"), root / "sets")
    assert main(["split", str(root), "--val", "0.3", "--group", "none"]) == 0
    data = load_config(root / "splits" / "split.yaml").data
    train = open_semantic_split(data, "train")
    assert (len(train), len(open_semantic_split(data, "val", train.classes))) == (328, 140)


WRONG: dict[str, tuple[list[str], str]] = {
    "a fraction": (["--val", "1.5"], "argument --val: expected a number between 0 and 1, got '1.5'"),
    "too much": (["--val", "0.5", "--test", "0.5"], "--val, --test: 0.5 and 0.5 leave nothing to train on"),
    "both": (["--folds", "3", "--val", "0.1"], "--val: with --folds each of the K parts validates once"),
    "one fold": (["--folds", "1"], "argument --folds: expected a whole number from 2 to 100, got '1'"),
    "a pattern": (["--group", "("], "--group: expected near-duplicates, none or a regular expression, got '('"),
    "one group": (["--group", "jpg"], "--group jpg: 33 images in 1 group leave val empty; take --group none"),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=list(WRONG))
def test_mistakes(argv: list[str], message: str, coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", str(coco), *argv]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (coco / "splits").exists()
