"""Fixtures that several folders of tests share."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.tiny import TinyRun, train_tiny_run, write_ellipses, write_instance_config, write_segmentation_config

# An example that takes long says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


# Modules that take longest come first: at the end the processes that share modules out would wait for one of them.
_LONGEST = {
    *("test_docs_examples", "test_kills", "test_python_api", "test_train_process", "test_torchvision_parity"),
    *("test_segmenters", "test_detectors", "test_benchmark", "test_many_devices", "test_multi_node", "test_trainer"),
    *("test_sample_stream", "test_progress", "test_readers", "test_batch_size"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in _LONGEST)  # the order is otherwise that of names


@pytest.fixture(autouse=True, scope="module")
def _free_memory() -> Iterator[None]:
    """Returns memory to the system after each module: glibc keeps what freed tensors leave, gigabytes in the end."""
    yield
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def made_once(factory: pytest.TempPathFactory, name: str, *how: Any) -> TinyRun:
    """What ``train_tiny_run`` leaves, for all of pytest-xdist's processes; whoever writes into it works on a copy."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        run = TinyRun(folder / "tiny.yaml", folder / "colors", folder / "run")
        return run if run.best.exists() else train_tiny_run(run, *how)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished training of a detector."""
    return made_once(tmp_path_factory, "tiny")


@pytest.fixture(scope="session")
def tiny_segmentation(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished training of a U-Net."""
    return made_once(tmp_path_factory, "tiny_segmentation", write_segmentation_config, "mIoU")


@pytest.fixture(scope="session")
def tiny_instances(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished training of a Mask R-CNN."""
    return made_once(tmp_path_factory, "tiny_instances", write_instance_config, "mask_AP", write_ellipses)
