"""Every segmentation config trains and validates a batch, on its own data if that is at hand, else on synthetic files.

Those of detectors are tried in ``test_experiment_settings.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.config.load import load_config
from detseg.data.shapes import write_shapes
from detseg.training.run import train
from tests.shared_data import shared_data

pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem.startswith(("fcn_", "unet_")))
QUICK = ("data.batch_size=2", "data.num_workers=0", "trainer.fast_dev_run=true", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "set"
    write_shapes(root, num_train=4, num_val=2, size=64, max_objects=3, seed=0)
    return root


def data_overrides(name: str, shapes: Path) -> list[str]:
    """Where a configuration finds files: the real set that it is made for, or the synthetic one in its layout."""
    real = {"unet_camvid": "camvid_small", "unet_nuclei": "dsb2018_nuclei"}
    if name in real:
        return [f"data.root={shared_data(real[name])}"]
    size = "data.image_size=64"
    if name.endswith("_shapes"):
        settings = ("num_train=4", "num_val=2", "size=64", "max_objects=3")
        return [size, f"data.root={shapes}", *(f"data.{setting}" for setting in settings)]
    return [size, f"data.root={shapes / 'voc'}", "data.years=[]", "data.train_split=train", "data.val_split=val"]


def model_overrides(path: Path) -> list[str]:
    return ["model.backbone.pretrained=false"] if "pretrained: true" in path.read_text(encoding="utf-8") else []


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_it_runs(path: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*QUICK, *data_overrides(path.stem, shapes), *model_overrides(path), f"run_dir={tmp_path / 'run'}"]
    train(load_config(path, overrides), path)
    assert "one batch of training and one of validation went through" in capsys.readouterr().out


def test_all_of_them_are_here() -> None:
    assert {"fcn_voc", "unet_voc", "unet_shapes", "unet_camvid", "unet_nuclei"} <= {path.stem for path in CONFIGS}
