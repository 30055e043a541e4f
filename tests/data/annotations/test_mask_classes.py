"""The file that names the classes of masks, and what happens where it contradicts what they are labelled by."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.config.schema.data import VocConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.data.build import open_semantic_split
from detseg.errors import CheckpointError, ClassTableError
from detseg.evaluation import open_split_for
from detseg.structures import ClassTable
from tests.data.formats.mask_layouts import lines_of, write_voc_masks

TRAINED = ClassTable(("sky", "road"), (0, 1))


@pytest.fixture
def voc(tmp_path: Path) -> VocConfig:
    """A set of two classes, to be evaluated on."""
    write_voc_masks(tmp_path, {"a": [[0, 1]]}, {"train": "a", "val": "a"})
    return VocConfig(name="voc", root=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\nsky\n", r"2 classes, road, sky; expected 2, sky, road \(label 0 is 'road', expected 'sky'\)"),
        ("sky\nroad\ntree\n", r"3 classes, sky, road, tree; expected 2, sky, road; values"),
        ("# two\nsky\nroad\n", ""),
    ],
)
def test_other_classes_than_the_given_tables_are_refused(voc: VocConfig, text: str, message: str) -> None:
    (voc.root / "classes.txt").write_text(text)
    if not message:
        assert open_semantic_split(voc, "val", TRAINED).report.lines() == []
        return
    with pytest.raises(ClassTableError, match=r"classes\.txt: " + message):
        open_semantic_split(voc, "val", TRAINED)


def test_names_of_the_user_go_before_the_file_and_this_is_said(voc: VocConfig) -> None:
    (voc.root / "classes.txt").write_text("himmel\nweg\n")
    renamed = voc.model_copy(update={"classes": ("sky", "road")})
    train = open_semantic_split(renamed, "train")
    val = open_semantic_split(renamed, "val", train.classes)
    assert train.classes.names == val.classes.names == ("sky", "road")
    for dataset in (train, val):
        assert "classes.txt names himmel, weg; data.classes overrides it: sky, road" in lines_of(dataset.report)
    (voc.root / "classes.txt").write_text("0 sky\n1 road\n")  # told to set data.classes, one is not told again
    assert open_semantic_split(renamed, "val", train.classes).report.lines() == []


def test_evaluation_names_the_checkpoint(voc: VocConfig) -> None:
    (voc.root / "classes.txt").write_text("road\nsky\n")
    config = ExperimentConfig.model_validate({"model": {"name": "unet"}, "data": voc.model_dump(mode="json")})
    with pytest.raises(
        CheckpointError, match=r"classes\.txt: .*label 0 is 'road'.*table is that of best\.ckpt: sky, road\)"
    ):
        open_split_for(config, "val", TRAINED, Path("best.ckpt"))
