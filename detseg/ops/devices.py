"""Names of devices."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> torch.device:
    """The device that ``device`` names (``cpu``, ``cuda``, ``cuda:1``, ``mps``); ``auto``: the GPU if there is one.

    Raises:
        ValueError: no such kind of device.
    """
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device: expected auto, cpu, cuda, cuda:1, mps, ..., got {device!r}") from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
