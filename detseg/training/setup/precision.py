"""Which number format the training computes in."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device_type: str) -> Literal["float32", "bfloat16"]:
    """What ``auto`` means on a device: bfloat16 where it is computed natively, float32 elsewhere.

    Args:
        precision: the setting.
        device_type: ``cpu``, ``cuda``, ``mps``, ...
    """
    if precision != "auto":
        return precision
    if device_type == "cuda":
        # Emulated bfloat16 (before Ampere) is slower than float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device_type == "cpu" and _cpu_multiplies_bfloat16()
    return "bfloat16" if native else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    # Public since torch 2.10; on older versions only the private predicates exist.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    predicates = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in predicates)
