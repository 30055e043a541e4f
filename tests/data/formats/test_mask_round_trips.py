"""`detseg convert --to mask_folder`: random values or colours, prefixes and suffixes → the same labels and names."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detseg.cli.data.convert import convert
from detseg.cli.tool import run_tool
from detseg.config.schema.data import AutoConfig, DataConfig, MaskFolderConfig
from detseg.data.annotations.report import DataReport
from detseg.data.build import open_semantic_split, resolve_layout
from detseg.data.datasets.segmentation import SegmentationDataset
from detseg.data.formats.convert import write_mask_folder
from tests.data.formats.layouts import save_image

IGNORED = 255
NAMES = [
    "sky",
    "a b",
    "é日本",
    "# road",
    "1 car",
    "x: y",
]  # classes.txt takes #, and numbers on all lines, for no names
Rows = list[list[int]]


@dataclass(frozen=True)
class MaskSet:
    names: tuple[str, ...]
    codes: tuple[int, ...] | tuple[tuple[int, int, int], ...]  # the value or colour of each class, last that of ignored
    affixes: tuple[str, str, str, str]  # before and behind the names of images, of masks
    maps: dict[str, dict[str, Rows]]  # split → stem → labels

    @property
    def has_colors(self) -> bool:
        return isinstance(self.codes[0], tuple)

    def write(self, root: Path) -> MaskFolderConfig:
        """Write images and masks; returns the settings that read them."""
        keys = ("image_prefix", "image_suffix", "mask_prefix", "mask_suffix")
        before, behind, mask_before, mask_behind = self.affixes
        for split, maps in self.maps.items():
            for stem, rows in maps.items():
                folder, _, base = stem.rpartition("/")
                save_image(root / split / "images" / folder / f"{before}{base}{behind}.png", np.shape(rows)[:2])
                path = root / split / "masks" / folder / f"{mask_before}{base}{mask_behind}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                codes = [self.codes[-1 if label == IGNORED else label] for row in rows for label in row]
                Image.fromarray(np.array(codes, np.uint8).reshape(*np.shape(rows), *[3] * self.has_colors)).save(path)
        coded = {"mask_values": self.codes[:-1], "ignore_index": self.codes[-1]}
        if self.has_colors:
            coded = {"mask_colors": self.codes[:-1], "ignore_colors": self.codes[-1:]}
        content = {"name": "mask_folder", "root": root, "classes": self.names}
        return MaskFolderConfig.model_validate(content | dict(zip(keys, self.affixes, strict=True)) | coded)


@st.composite
def mask_sets(draw: st.DrawFn) -> MaskSet:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    number, byte = len(names) + 1, st.integers(0, 255)
    code: st.SearchStrategy[int | tuple[int, int, int]] = st.tuples(byte, byte, byte) if draw(st.booleans()) else byte
    codes = draw(st.lists(code, min_size=number, max_size=number, unique=True))
    if draw(st.booleans()):
        codes = [*range(number - 1), IGNORED]
    affixes = draw(
        st.sampled_from([("", "", "", ""), ("image_", "", "gt_", ""), ("", "_im", "", "_mask"), ("a ", "_b", "", "é")])
    )
    label, maps = st.sampled_from([*range(len(names)), IGNORED]), dict[str, dict[str, Rows]]()
    for split in ("train", "val"):
        stems = draw(
            st.lists(st.sampled_from(["1", "2", "x/1", "x/é b", "x y/3"]), min_size=1, max_size=3, unique=True)
        )
        maps[split] = {}
        for stem in stems:
            width = draw(st.integers(2, 4))
            rows = draw(st.lists(st.lists(label, min_size=width, max_size=width), min_size=1, max_size=3))
            maps[split][stem] = [[0, 1, *rows[0][2:]], *rows[1:]]  # two classes: masks of one are refused
    return MaskSet(tuple(names), tuple(codes), affixes, maps)  # type: ignore[arg-type]  # all of one kind


def labels(dataset: SegmentationDataset) -> dict[str, Rows]:
    return {dataset.packed.path(index): dataset.semantic(index).tolist() for index in range(len(dataset))}


def opened(config: DataConfig) -> dict[str, SegmentationDataset]:
    train = open_semantic_split(config, "train", report=DataReport(True))
    return {"train": train, "val": open_semantic_split(config, "val", train.classes, DataReport(True))}


@settings(max_examples=10, deadline=None, derandomize=True)
@given(mask_sets())
@example(
    MaskSet(("sky", "# road"), (7, 0, 29), ("", "", "", "_m"), {"train": {"1": [[0, 1, 255]]}, "val": {"1": [[0, 1]]}})
)
def test_labels_and_names_stay(made: MaskSet) -> None:
    before, behind = made.affixes[:2]
    with tempfile.TemporaryDirectory() as folder:
        source, target = opened(made.write(Path(folder, "source"))), Path(folder, "copy")
        lines = write_mask_folder(source, target)
        auto = AutoConfig(name="auto", root=target)
        found = opened(resolve_layout(auto, "maps").model_copy(update={"val_fraction": None}))
        for split, maps in made.maps.items():
            expected = {
                re.sub(r"([^/]*)$", rf"{before}\1{behind}.png", stem, count=1): rows for stem, rows in maps.items()
            }
            assert found[split].classes.names == made.names
            assert labels(found[split]) == labels(source[split]) == expected
    numbered = not made.has_colors and made.codes[:-1] != tuple(range(len(made.names)))
    assert lines == (
        [f"values of the classes, {list(made.codes[:-1])}: written as 0 to {len(made.names) - 1}"] if numbered else []
    )


def test_the_command(tmp_path: Path) -> None:
    """Colours and names that differ on both sides; the copy is read without any setting."""
    maps = {"train": {"x/1": [[0, 1, 255]], "2": [[1, 0]]}, "val": {"3": [[1, 1, 0]]}}
    made = MaskSet(("sky", "a b"), ((9, 8, 7), (0, 0, 0), (1, 1, 1)), ("im_", "", "gt_", "_m"), maps)
    data = made.write(tmp_path / "source").model_dump(mode="json", exclude_unset=True)
    config = {"model": {"name": "unet"}, "data": data}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    argv = [str(tmp_path / "c.yaml"), str(tmp_path / "copy"), "--to", "mask_folder", "--images", "link"]
    assert run_tool(convert, argv) == 0
    found = opened(resolve_layout(AutoConfig(name="auto", root=tmp_path / "copy"), "maps"))
    assert labels(found["train"]) == {"im_2.png": [[1, 0]], "x/im_1.png": [[0, 1, 255]]}
    assert labels(found["val"]) == {"im_3.png": [[1, 1, 0]]}
    assert found["train"].classes.names == ("sky", "a b")


def test_masks_that_are_wrong_stop_a_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mask of one image is cut short, that of another is not of its size."""
    maps: dict[str, dict[str, Rows]] = {"train": {"1": [[0, 1]], "2": [[1, 0]], "3": [[1, 1]]}, "val": {"4": [[0, 1]]}}
    MaskSet(("sky", "road"), (0, 1, 255), ("", "", "", ""), maps).write(tmp_path / "source")
    (tmp_path / "source/classes.txt").write_text("sky\nroad\n")
    (tmp_path / "source/train/masks/1.png").write_bytes(b"no image")
    save_image(tmp_path / "source/train/images/3.png", (5, 5))
    argv = [str(tmp_path / "source"), str(tmp_path / "copy"), "--to", "mask_folder"]
    assert run_tool(convert, argv) == 2
    assert not (tmp_path / "copy").exists()
    printed = capsys.readouterr()
    assert "label maps that cannot be read: 2 (1.png, 3.png)" in printed.out
    assert "2 errors in the annotations, listed above" in printed.err
    assert run_tool(convert, [*argv, "--skip-bad"]) == 0
    assert "train 1 image, val 1 image" in capsys.readouterr().out
