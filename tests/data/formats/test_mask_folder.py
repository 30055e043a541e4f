"""Pairs of images and masks in folders; image files below folders: every folder once, whatever links lead to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detseg.data.annotations.issues import DataIssue
from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.images.find import find_images
from detseg.errors import DataError
from detseg.predict.files import find_sources
from tests.data.formats.layouts import BINARY, save_image, save_mask, write_pairs
from tests.shared_data import shared_data


def test_pairs_by_name_in_folders_of_folders(tmp_path: Path) -> None:
    folders = write_pairs(tmp_path, {"b": [[0, 1]], "town/x.1": [[1]], "town/a": [[1, 0]], "field/a": [[0]]})
    dataset = read_mask_folder(*folders, BINARY)
    found = {dataset.packed.path(index): dataset.semantic(index).tolist() for index in range(len(dataset))}
    assert found == {"b.jpg": [[0, 1]], "field/a.jpg": [[0]], "town/a.jpg": [[1, 0]], "town/x.1.jpg": [[1]]}
    assert [dataset.image_id(index) for index in range(4)] == [1, 2, 3, 4]
    assert dataset[2].path == str(tmp_path / "images" / "town" / "a.jpg")
    assert dataset.report.lines() == []


def test_suffix_and_masks_without_an_image(tmp_path: Path) -> None:
    images, masks = write_pairs(tmp_path, {"a": [[0, 1]], "b": [[1, 1]]}, suffix="_mask")
    save_mask(masks / "c_mask.png", [[0, 1]])
    save_mask(masks / "._a_mask.png", [[0, 1]])  # what some systems leave in archives
    dataset = read_mask_folder(images, masks, BINARY, "_mask")
    assert len(dataset) == 2
    assert dataset.report.lines() == ["masks without an image (not read): 1 (c_mask.png)"]


def test_one_folder_for_both(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / f"{stem}.png", (1, 2))
        save_mask(tmp_path / f"{stem}_m.png", [[0, 1]])
    dataset = read_mask_folder(tmp_path, tmp_path, BINARY, "_m")
    assert [dataset.path(index).name for index in range(len(dataset))] == ["a.png", "b.png"]
    assert dataset.report.lines() == []
    with pytest.raises(DataError, match=r"images and masks lie in one folder; set data\.mask_suffix"):
        read_mask_folder(tmp_path, tmp_path, BINARY)
    for stem in ("a", "b", "a_m", "b_m"):
        save_mask(tmp_path / "masks" / f"{stem}.png", [[0, 1]])
    assert len(read_mask_folder(tmp_path, tmp_path / "masks", BINARY)) == 4  # the masks are no images


def test_missing_folders_and_masks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; set data\.root and the masks folder"):
        read_mask_folder(tmp_path, tmp_path / "nowhere", BINARY)
    root = shared_data("formats", "common_semantic_segmentation_dataset", "non_standard_dataset")
    with pytest.raises(DataError, match=r"2 of 2 images have no mask: image_0001\.png, image_0002\.png"):
        read_mask_folder(root / "images", root / "masks", BINARY)


def test_real_colour_masks() -> None:
    root = shared_data("formats", "common_semantic_segmentation_dataset", "dataset")
    meta = json.loads((root / "dataset_meta.json").read_text())
    names = list(meta["label_map"].values())
    colors = [tuple(color) for color in meta["segmentation_colors"]]
    dataset = read_mask_folder(root / "images", root / "masks", names, colors=colors)
    assert dataset.semantic(0).tolist() == [[3, 3, 5, 3, 3]]  # (0, 128, 192) is the fourth, (128, 64, 128) the sixth
    assert dataset.semantic(1).tolist() == [[1, 1, 1, 4, 4]]
    assert dataset.report.examples(DataIssue.ABSENT) == ["Void", "Archway"]
    with pytest.raises(DataError, match=r"0001\.png: the mask is RGB, .*data\.mask_colors"):
        read_mask_folder(root / "images", root / "masks", names)
    with pytest.raises(
        DataError, match=r"0001\.png: 1 colour.*: \(128, 64, 128\) \(1 px\), nearest Archway \(192, 0, "
    ):
        read_mask_folder(root / "images", root / "masks", names[:5], colors=colors[:5])


LINKS: dict[str, tuple[dict[str, str], list[str]]] = {
    "to the folder itself": ({"images/loop": "images"}, []),
    "to a parent": ({"images/a/up": "images", "images/a/top": ".", "images/a/root": "/"}, []),
    "to a real sub-folder": ({"images/_first": "images/a", "images/z": "images/a"}, []),
    "one to an outside folder": ({"images/more": "far"}, ["more/1.png", "more/deep/2.png"]),
    "two to one outside folder": ({"images/m": "far", "images/n": "far"}, ["m/1.png", "m/deep/2.png"]),
    "to a folder in another linked one": ({"images/m": "far/deep", "images/n": "far"}, ["m/2.png", "n/1.png"]),
    "to itself": ({"images/x": "images/x"}, []),
    "two folders in a circle": ({"images/a/x": "images/b", "images/b/y": "images/a"}, []),
    "two outside folders in a circle": (
        {"images/m": "far", "far/to": "near", "near/fro": "far"},
        ["m/1.png", "m/deep/2.png", "m/to/3.png"],
    ),
}
"""Links in a folder ``images`` (link → target); the images that they add."""

OWN = ["0.png", "a/1.png", "b/1.png"]


def write(root: Path, links: Mapping[str, str]) -> Path:
    """A folder ``images`` with the images ``OWN`` and the links, ``masks`` for all, and two folders outside."""
    for name in [*(f"images/{own}" for own in OWN), "far/1.png", "far/deep/2.png", "near/3.png"]:
        save_image(root / name, (1, 2))
    for link, target in links.items():
        (root / link).symlink_to(root / target, target_is_directory=True)
    return root / "images"


@pytest.mark.parametrize(("links", "added"), LINKS.values(), ids=list(LINKS))
def test_links_to_folders_are_followed_once(links: Mapping[str, str], added: list[str], tmp_path: Path) -> None:
    images = write(tmp_path, links)
    expected = sorted(OWN + added)
    assert [path.as_posix() for path in find_images(images)] == expected
    assert [relative.as_posix() for _, relative in find_sources([images])] == expected
    for name in expected:
        save_mask(tmp_path / "masks" / name, [[0, 1]])
    dataset = read_mask_folder(images, tmp_path / "masks", BINARY)
    assert [dataset.packed.path(index) for index in range(len(dataset))] == expected


def test_links_between_masks_and_images_are_not_followed(tmp_path: Path) -> None:
    """Each of the two folders has a link to the other, and to the one that holds both."""
    images = write(tmp_path, {"images/masks": "masks", "images/all": "."})
    for name in OWN:
        save_mask(tmp_path / "masks" / name, [[0, 1]])
    (tmp_path / "masks" / "images").symlink_to(images, target_is_directory=True)
    dataset = read_mask_folder(images, tmp_path / "masks", BINARY)
    assert len(dataset) == 3
    assert all(np.array_equal(dataset.semantic(index), [[0, 1]]) for index in range(3))


def test_names_alone_decide(tmp_path: Path) -> None:
    (tmp_path / "folder.PNG").mkdir()
    for name in ("a.PNG", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")  # an error once it is read, not overlooked
    assert [path.name for path in find_images(tmp_path)] == ["a.PNG", "gone.jpg"]
