"""What importing detseg costs: a predictor needs none of the training libraries, and settings need no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINING_LIBRARIES = ("lightning", "pytorch_lightning", "albumentations", "pycocotools", "msgspec", "tensorboard")


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_probe_sees_an_import() -> None:
    assert "pycocotools" in imported_by("import pycocotools")


def test_importing_needs_no_training_library() -> None:
    found = imported_by("import detseg.structures, detseg.draw, detseg.factory, detseg.tasks, detseg.predict.files")
    assert not found & set(TRAINING_LIBRARIES)


def test_wrong_settings_are_reported_before_torch_loads() -> None:
    assert "torch" not in imported_by("import detseg.config.load, detseg.errors, detseg.predict, detseg.structures")


PROCESS_STATE = """
import gc, importlib, os, pkgutil, sys, warnings
environment, filters = dict(os.environ), list(warnings.filters)
import detseg

names = ["detseg", *(module.name for module in pkgutil.walk_packages(detseg.__path__, "detseg."))]
for name in names:  # a first time for the libraries, which may do as they like
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "detseg"]:
    del sys.modules[name]
os.environ.clear()
os.environ.update(environment)
warnings.filters[:] = filters  # what is there already would not be added again
for name in names:
    importlib.import_module(name)
    changed = {key for key in os.environ.keys() | environment if os.environ.get(key) != environment.get(key)}
    assert not changed, (name, changed)
    assert warnings.filters == filters, (name, warnings.filters[:3])
    assert gc.isenabled() and gc.get_freeze_count() == 0, name
print(len(names))
"""


def test_importing_changes_nothing_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS_STATE], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 120
