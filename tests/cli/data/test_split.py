"""`detseg split` for every format: what it writes opens, holds each image once, and replaces nothing."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.cli.data.convert import convert
from detseg.cli.tool import run_tool
from detseg.config.load import load_config
from detseg.data.build import open_semantic_split, open_split
from detseg.data.formats.recognise import recognise
from tests.data.formats.layouts import coco_content, save_image, save_mask
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


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo", "labelme", "cvat"])
def test_folds_in_the_way_of_each_format(layout: str, coco: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    assert run_tool(convert, [str(coco), str(root), "--to", layout, "--images", "link"]) == 0
    if layout == "cvat":  # its only XML file, so that no other may be taken for it
        (root / "annotations.xml").rename(root / "task.xml")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = recognise(root, "boxes")
    assert main(["split", str(root), "--folds", "3", "--group", "none", "--out", str(root / "new")]) == 0
    again = recognise(root, "boxes")
    assert (again.settings, again.layout.counts) == (found.settings, found.layout.counts)
    assert sum(line.startswith("of detseg split, not taken: new") for line in again.lines) == 1
    assert main(["split", str(root), "--group", "none"]) == 0
    folds = [opened(root / "new" / f"fold{number}.yaml") for number in (1, 2, 3)]
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(folds[0]["train"] + folds[0]["val"])
    assert [len(fold["val"]) for fold in folds] == [11, 11, 11]
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in folds)
    assert {path: path.read_bytes() for path in before} == before
    if layout == "yolo":
        assert "train: new/fold1_train.txt" in (root / "new" / "data_fold1.yaml").read_text()
    if layout == "cvat":
        text = (root / "splits_new_fold1_val.xml").read_text(encoding="utf-8")
        assert text.count("<image ") == 11
        assert text.partition("<image ")[0].strip() == (root / "task.xml").read_text().partition("<image ")[0].strip()


def test_files_of_one_name_in_several_folders(tmp_path: Path) -> None:
    """Roboflow's train, valid and test, in which the images have the same names, too."""
    for name in ("train", "valid", "test"):
        content = coco_content()
        content["images"] = [content["images"][0] | {"id": number, "file_name": f"{number}.png"} for number in range(4)]
        for image in content["images"]:
            save_image(tmp_path / name / image["file_name"], (10, 20))
        (tmp_path / name / "_annotations.coco.json").write_text(json.dumps(content))
    argv = ["split", str(tmp_path), "--val", "0.5", "--test", "0.25", "--group", "none"]
    assert main(argv) == 0
    data = load_config(tmp_path / "splits" / "split.yaml").data
    parts = [open_split(data, "train"), open_split(data, "val"), open_split(data, "test")]
    names = [part.path(index) for part in parts for index in range(len(part))]
    assert (len(names), len(set(names)), [len(part) for part in parts]) == (12, 12, [3, 6, 3])


MASKS = {
    "a mask for each class, in folders": ("images/{}", "masks/cat/{}", ""),
    "a mask for each class, by name": ("images/{}", "masks/{}_cat", ""),
    "beside the images": ("train/{} valid/{}", "train/{}_mask valid/{}_mask", ""),
    "folders in two folders": ("images/train/{} images/val/{}", "masks/train/{} masks/val/{}", ""),
    "two folders in folders": ("train/images/{} val/images/{}", "train/masks/{} val/masks/{}", "lists cannot tell"),
}


@pytest.mark.parametrize(("images", "masks", "error"), MASKS.values(), ids=list(MASKS))
def test_masks(images: str, masks: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    places = list(zip(images.split(), masks.split(), strict=True))
    for (image, mask), number in itertools.product(places, range(6)):
        save_image(tmp_path / f"{image.format(number)}.jpg", (4, 6))
        value = number * ("val" in image)  # so that a mask of another folder is seen
        for name in {mask, mask.replace("cat", "dog")}:
            save_mask(tmp_path / f"{name.format(number)}.png", [[0, 1, 1, 0, 0, value > 2]] * 4)
    assert main(["split", str(tmp_path), "--val", "0.5", "--group", "none"]) == (2 if error else 0)
    assert error in capsys.readouterr().err
    if error:
        return
    data = load_config(tmp_path / "splits" / "split.yaml").data
    train = open_semantic_split(data, "train")
    found = {
        part.path(i).relative_to(tmp_path).as_posix(): int(part.semantic(i).astype(bool).sum())
        for part in (train, open_semantic_split(data, "val", train.classes))
        for i in range(len(part))
    }
    assert found == {
        f"{image.format(number)}.jpg": 12 if number > 2 and "val" in image else 8
        for image, _ in places
        for number in range(6)
    }


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
    "a seed": (["--seed", "-1"], "argument --seed: expected a whole number from 0, got '-1'"),
    "no match": (["--group", "p(\\d+)_"], "--group: 'p(\\d+)_' matches no path of an image, such as "),
    "many folds": (["--folds", "40", "--group", "none"], "33 images cannot fill 40 parts; ask for fewer"),
    "other files": (["--out", "."], ".: holds other files than those of detseg split; choose a new folder with --out"),
    "one group": (["--group", "jpg"], "--group jpg: 33 images in 1 group leave val empty; take --group none"),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=list(WRONG))
def test_mistakes(
    argv: list[str], message: str, coco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(coco)
    assert main(["split", str(coco), *argv]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (coco / "splits").exists()


def test_generated_images_are_not_divided(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["split", "yolo_shapes"]) == 2
    message = (
        "error: data.name: shapes is not divided into files, but coco, cvat, voc, yolo, labelme, mask_folder are\n"
    )
    assert capsys.readouterr().err == message
