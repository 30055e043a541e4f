"""Image files below folders: every folder once, whatever links lead to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detseg.data.formats.mask_folder import read_mask_folder
from detseg.data.images.find import find_images
from detseg.predict.files import find_sources
from tests.data.formats.mask_layouts import BINARY, save_image, save_mask

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


def test_a_folder_of_masks_may_serve_several_folders_of_images(tmp_path: Path) -> None:
    images = write(tmp_path, {})
    save_mask(tmp_path / "masks" / "0.png", [[0, 0]])
    save_mask(tmp_path / "masks" / "a" / "1.png", [[0, 1]])
    (tmp_path / "masks" / "b").symlink_to(tmp_path / "masks" / "a", target_is_directory=True)
    dataset = read_mask_folder(images, tmp_path / "masks", BINARY)
    assert [dataset.semantic(index).tolist() for index in range(3)] == [[[0, 0]], [[0, 1]], [[0, 1]]]


def test_names_alone_decide(tmp_path: Path) -> None:
    (tmp_path / "folder.PNG").mkdir()
    for name in ("a.PNG", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")  # an error once it is read, not overlooked
    assert [path.name for path in find_images(tmp_path)] == ["a.PNG", "gone.jpg"]
