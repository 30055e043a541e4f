"""Names of devices."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> torch.device:
    """The device of a name (``cpu``, ``cuda``, ``cuda:1``, ``mps``); ``auto``: a CUDA GPU if there is one.

    Raises:
        ValueError: there is no such device on this machine or in this build of torch.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch asserts when it is built without CUDA
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: expected auto, cpu, cuda, cuda:1, mps, ... as this machine has them, got {device!r} ({reason})"
        ) from error
    return resolved
