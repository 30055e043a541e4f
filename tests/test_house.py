"""The project keeps the rules of the house; and each rule is shown to catch what it forbids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]
RULES: list[Rule] = [
    house.import_direction,
    house.import_direction_in_data,
    house.import_circles,
    house.folder_sizes,
    house.library_borders,
    house.sizes,
    house.names,
    house.dangerous_calls,
    house.reaches_out,
    house.private_names,
    house.silenced_checks,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_project_keeps(rule: Rule) -> None:
    violations = rule(ROOT)
    assert not violations, "\n" + "\n".join(violations)


def test_the_project_is_really_read() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in house.python_files(ROOT, "detseg", "tools", "tests")}
    assert {"detseg/structures/__init__.py", "detseg/ops/boxes.py", "tools/demo.py", "tests/house.py"} <= found


CLEAN = '"""A module."""\n\nfrom detseg.ops.boxes import box_area\n'


def make_project(root: Path, path: str, text: str) -> Path:
    """A small project that keeps every rule, but for the one file given."""
    files = {
        "detseg/__init__.py": "",
        "detseg/ops/boxes.py": '"""Boxes."""\n\nimport torch\n',
        "detseg/data/build.py": CLEAN + "from detseg.config.schema.data import VocConfig\n",
        "detseg/data/formats/voc.py": CLEAN,
        "detseg/data/augment/albumentations_steps.py": '"""The one place."""\n\nimport albumentations as A\n',
        "detseg/models/yolo.py": CLEAN,
        "detseg/config/schema/data.py": '"""Settings."""\n\nfrom detseg.errors import ConfigError\n',
        "detseg/structures.py": CLEAN,
        "detseg/errors.py": '"""Errors."""\n',
        "detseg/training/task.py": CLEAN + "import lightning\n\nfrom detseg.metrics.coco import evaluate\n",
        "detseg/metrics/coco.py": CLEAN + "from pycocotools.coco import COCO\n",
        "detseg/training/run.py": CLEAN + "from lightning import Trainer\n\nfrom detseg.training.task import Task\n",
        "detseg/cli/train.py": CLEAN + "from detseg.training.run import fit\n",
        "tools/train.py": '"""Train."""\n\nfrom detseg.cli.train import main\n',
    } | {path: text}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


def test_a_clean_project_breaks_no_rule(tmp_path: Path) -> None:
    project = make_project(tmp_path, "detseg/factory.py", CLEAN)
    assert [rule(project) for rule in RULES] == [[]] * len(RULES)


LAZY = '"""M."""\n\n\ndef load():\n    """Load."""\n    {}\n'

DIRECTION, BORDERS, CALLS = house.import_direction, house.library_borders, house.dangerous_calls
COCO, NET, PREDICT, DRAW = "detseg/data/formats/coco.py", "detseg/models/net.py", "detseg/predict.py", "detseg/draw.py"
WRONG: list[tuple[Rule, str, str, str]] = [
    (DIRECTION, "detseg/ops/masks.py", "from detseg.structures import Sample\n", "ops must not import struct"),
    (DIRECTION, NET, "from ..config import data\n", "models must not import config"),
    (DIRECTION, COCO, "from detseg import models\n", "data must not import models"),
    (DIRECTION, COCO, LAZY.format("from detseg.models import yolo"), ":6: data must not"),
    (DIRECTION, "detseg/metrics/voc.py", "from detseg.data.formats.voc import x\n", "metrics must not import data"),
    (DIRECTION, "detseg/training/optim/averages.py", "import detseg.cli.train\n", "training must not import cli"),
    (DIRECTION, PREDICT, "import detseg.training.task\n", "predict must not import training"),
    (DIRECTION, NET, "from detseg import Predictor\n", "must not import __init__"),
    (DIRECTION, COCO, "import tools.train\n", "data must not import tools"),
    (DIRECTION, "detseg/things.py", "", "'things' has no rule"),
    (
        house.import_direction_in_data,
        "detseg/data/images/read.py",
        LAZY.format("from detseg.data.formats import voc"),
        "data/images must not import data/formats",
    ),
    (house.import_direction_in_data, COCO, "from detseg.config.schema import data\n", "must not import settings"),
    (house.import_circles, "detseg/config/schema/data.py", "from detseg.data import build\n", "in a circle"),
    (house.import_circles, "detseg/errors.py", LAZY.format("import detseg.config.schema.data"), "in a circle"),
    (house.folder_sizes, "detseg/things/__init__.py", "", "a folder of 0 entries, at least 3"),
    (BORDERS, PREDICT, LAZY.format("import lightning as L"), ":6: lightning is imported"),
    (BORDERS, PREDICT, "import pytorch_lightning\n", "lightning is imported"),
    (BORDERS, COCO, "from pycocotools.coco import COCO\n", "pycocotools is imported"),
    (BORDERS, "tools/predict.py", "import lightning\n", "lightning is imported"),
    (BORDERS, "detseg/config/load.py", "import torch\n", "torch is imported"),
    (house.sizes, "detseg/data/long.py", "x = 1\n" * 601, "601 lines"),
    (house.sizes, "tests/test_long.py", "class T:\n  def f():\n" + "    x = 1\n" * 59, "f has 60 lines"),
    (house.names, "detseg/data/box_utils.py", "", "'box_utils'"),
    (house.names, "detseg/common/boxes.py", "", "'common'"),
    (house.names, "tests/helpers.py", "", "'helpers'"),
    (CALLS, "detseg/config/load.py", "x = eval('1')\n", "eval() is called"),
    (CALLS, "tools/run.py", "exec('1')\n", "exec() is called"),
    (CALLS, "detseg/factory.py", "import importlib\nimportlib.import_module('x')\n", ":2: importlib"),
    (CALLS, "detseg/factory.py", "from importlib import import_module\n", "is imported"),
    (CALLS, PREDICT, LAZY.format("import pickle"), ":6: pickle is imported"),
    (CALLS, PREDICT, "import torch\ntorch.load('x')\n", "without weights_only=True"),
    (CALLS, PREDICT, "torch.load('x', weights_only=False)\n", "without weights_only=True"),
    (CALLS, PREDICT, "from torch import load\n", "torch.load is imported"),
    (CALLS, COCO, "np.load('x', allow_pickle=True)\n", "with allow_pickle"),
    (house.reaches_out, PREDICT, LAZY.format("from urllib import request"), ":6: urllib.request is imp"),
    (house.reaches_out, "tools/train.py", "import requests.adapters\n", "requests is imported, which only nobody may"),
    (house.reaches_out, COCO, "import os\nos.system('pip install x')\n", ":2: os.system() is called"),
    (house.reaches_out, "detseg/factory.py", "torch.hub.load_state_dict_from_url('x')\n", "is called"),
    (house.private_names, DRAW, "import torch\ntorch._foreach_copy_([], [])\n", ":2: torch._foreach_copy_"),
    (house.private_names, DRAW, "from lightning.pytorch.strategies import _Launcher\n", "_Launcher is priv"),
    *[
        (house.silenced_checks, "tests/test_x.py", text, "needs a code and a reason")
        for text in ("x  # type: ignore\n", "x  # type: ignore[misc]\n", "x  # noqa: E402, N812\n", "# ruff: noqa\n")
    ],
]


@pytest.mark.parametrize(("rule", "path", "text", "message"), WRONG, ids=[f"{w[0].__name__}-{w[1]}" for w in WRONG])
def test_rule_catches(rule: Rule, path: str, text: str, message: str, tmp_path: Path) -> None:
    violations = rule(make_project(tmp_path, path, text))
    assert len(violations) == 1, violations
    assert path in violations[0]
    assert message in violations[0]


def test_a_folder_has_at_most_twelve_files_and_folders(tmp_path: Path) -> None:
    for number in range(house.MOST_ENTRIES):
        project = make_project(tmp_path, f"detseg/things/part{number}.py", CLEAN)
    assert house.folder_sizes(project) == []
    make_project(tmp_path, "detseg/things/more/part.py", CLEAN)
    assert house.folder_sizes(project) == ["detseg/things: 13 entries, at most 12"]


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in house.python_files(ROOT, "detseg")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


RIGHT: list[tuple[Rule, str, str]] = [
    (CALLS, PREDICT, "model.eval()\ntorch.compile(model)\nre.compile('x')\n"),
    (CALLS, PREDICT, "torch.load('x', map_location='cpu', weights_only=True)\n"),
    (house.reaches_out, "detseg/data/download.py", "import urllib.request\n"),
    (house.reaches_out, "detseg/factory.py", "from urllib.parse import urlparse\nimport segmentation\n"),
    (house.private_names, DRAW, "import os\nos._exit(0)\nos.__file__\nself._x = x\n"),
    (house.silenced_checks, DRAW, "x = 1  # noqa: E402, N812  # the library must see the setting\n"),
    (house.silenced_checks, DRAW, "x = 1  # noqa: S301 - our own bytes\n"),
    (house.silenced_checks, DRAW, "x = 1  # type: ignore[attr-defined]  # ships no types\n"),
    (house.sizes, "detseg/data/long.py", "x = 1\n" * 600),
    (house.sizes, "detseg/data/long.py", "def f():\n" + "    x = 1\n" * 58),
]


@pytest.mark.parametrize(("rule", "path", "text"), RIGHT)
def test_rule_lets_pass(rule: Rule, path: str, text: str, tmp_path: Path) -> None:
    assert rule(make_project(tmp_path, path, text)) == []
