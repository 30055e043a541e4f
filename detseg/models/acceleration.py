"""The same networks, faster: batch normalisation folded where nothing trains, and torch.compile."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

Model = TypeVar("Model", bound=nn.Module)

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)

_NETWORKS = ("backbone", "neck", "head", "auxiliary")
"""The parts of detectors and segmenters that compute maps from images or maps; not every model has all."""

_VECTOR_BITS = {"AVX2": 256, "AVX512": 512}
"""Bits of a CPU's vectors. Unless they are set, torch 2.14 takes code for other vectors from its cache, which gives
wrong numbers: that of AVX-512 on a CPU with AVX2 only."""

_compiled: WeakSet[nn.Module] = WeakSet()
"""The networks that ``compile_networks`` was called for; torch has no public name that tells."""


@torch.no_grad()
def fuse(model: Model, device: torch.device | str) -> Model:
    """A copy of a model for prediction: evaluation mode, channels-last, batch normalisation folded into convolutions.

    With fixed statistics it is one factor and one summand a channel (Ioffe and Szegedy 2015, section 3.1).  Results
    differ from the plain network's by rounding; so whatever gives numbers computes with the folded network.  Folded is
    what directly follows a convolution in an ``nn.Sequential``, as in all of our own blocks.  Other modules do not tell
    in which order they call their parts (timm's residual blocks), and keep their normalisation.

    Args:
        model: stays as it is; the copy takes as much memory again.
        device: where the copy computes.
    """
    fused = copy.deepcopy(model).eval().to(device).to(memory_format=torch.channels_last)
    for block in fused.modules():
        if isinstance(block, nn.Sequential) and type(block).forward is nn.Sequential.forward:
            for i, (convolution, norm) in enumerate(pairwise(list[Any](block))):
                # Exactly these types: timm's normalisation, which inherits from them, holds an activation, too.
                if type(convolution) is nn.Conv2d and type(norm) in _NORMS and norm.running_mean is not None:
                    block[i], block[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return fused


def compile_networks(model: nn.Module) -> None:
    """Have the networks in a model compiled, each by itself, when first called.

    Training calls ``model.losses``, prediction ``model.predict``: compiling the model itself would do nothing there.
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

    That is while some of its batch normalisation averages its first batches: its momentum changes with every step, and
    torch would compile again for each value until it gives up.
    """
    compiled = any(getattr(model, name, None) in _compiled for name in _NETWORKS)
    return torch.compiler.set_stance("force_eager") if fresh and compiled else nullcontext()
