"""Names of devices, and what a machine says that lacks one."""

from __future__ import annotations

import pytest
import torch

from detseg.errors import ConfigError
from detseg.predict import find_device


def test_known_names() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:63"])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda") as caught:
        find_device(device)
    assert repr(device) in str(caught.value)
    assert "\n" not in str(caught.value)
