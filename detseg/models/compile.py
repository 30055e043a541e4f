"""torch.compile for the networks in a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from weakref import WeakSet

import torch
from torch import nn

_NETWORKS = ("backbone", "neck", "head", "auxiliary")
"""The parts of detectors and segmenters that compute maps from images or maps; not every model has all."""

_VECTOR_BITS = {"AVX2": 256, "AVX512": 512}
"""Bits of a CPU's vectors.  Unless they are set, torch 2.14 takes code for other vectors from its cache, which gives
wrong numbers: that of AVX-512 on a CPU with AVX2 only."""

_compiled: WeakSet[nn.Module] = WeakSet()
"""The networks that ``compile_networks`` was called for; torch has no public name that tells."""


def compile_networks(model: nn.Module) -> None:
    """Have the networks in a model compiled, each by itself, when first called.

    Training calls ``model.losses``, prediction ``model.predict``, not the model itself: compiling the model would do
    nothing there.
    """
    bits = _VECTOR_BITS.get(torch.backends.cpu.get_cpu_capability())
    options = None if bits is None else {"cpp.simdlen": bits}
    for name in _NETWORKS:
        network = getattr(model, name, None)
        if network is not None:
            network.compile(options=options)
            _compiled.add(network)


def settling(model: nn.Module, fresh: bool) -> AbstractContextManager[object]:
    """A context in which a model's compiled networks run eagerly, if ``fresh``.

    While batch normalisation averages its first batches its momentum changes with every step, and torch would compile
    again for each value until it gives up.

    Args:
        model: with or without compiled networks.
        fresh: whether some of its normalisation averages its first batches.
    """
    compiled = any(getattr(model, name, None) in _compiled for name in _NETWORKS)
    return torch.compiler.set_stance("force_eager") if fresh and compiled else nullcontext()
