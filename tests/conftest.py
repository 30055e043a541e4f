"""Fixtures that several folders of tests share."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.tiny import TinyRun, train_tiny_run, write_ellipses, write_instance_config, write_segmentation_config

# An example that takes long says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="module")
def _free_memory() -> Iterator[None]:
    """Returns memory to the system after each module: glibc keeps what freed tensors leave, gigabytes in the end."""
    yield
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One finished training, made once; whoever writes into it works on a copy."""
    return train_tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_segmentation(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished training of a U-Net, made once; whoever writes into it works on a copy."""
    return train_tiny_run(tmp_path_factory.mktemp("tiny_segmentation"), write_segmentation_config, metric="mIoU")


@pytest.fixture(scope="session")
def tiny_instances(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished training of a Mask R-CNN, made once; whoever writes into it works on a copy."""
    folder = tmp_path_factory.mktemp("tiny_instances")
    return train_tiny_run(folder, write_instance_config, write_ellipses, metric="mask_AP")
