"""Names of devices, and what a machine says that lacks one."""

from __future__ import annotations

import pytest
import torch

from detseg.ops.processes import resolve_device


def test_known_names() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:63"])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(ValueError, match="expected auto, cpu, cuda") as caught:
        resolve_device(device)
    assert repr(device) in str(caught.value)
    assert "\n" not in str(caught.value)
