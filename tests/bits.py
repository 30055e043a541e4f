"""Nested tensors and plain data as one digest, which is the same where every bit is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest_of(content: Any) -> str:
    """SHA-256 of the content, of its order in mappings, too."""
    return hashlib.sha256(repr(_plain(content)).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(content: Any) -> Any:
    match content:
        case Tensor():
            data = content.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            return str(content.dtype), tuple(content.shape), hashlib.sha256(data).hexdigest()
        case Mapping():
            return [(repr(key), _plain(value)) for key, value in content.items()]
        case list() | tuple():
            return [_plain(value) for value in content]
        case _:
            return repr(content)
