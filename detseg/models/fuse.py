"""Batch normalisation folded into convolutions, for networks that do not train.

With fixed statistics it is one factor and one summand a channel (Ioffe and Szegedy 2015, section 3.1), which go into
the weights and the bias of the convolution.  Results differ from those of the plain network by rounding; so whatever
gives numbers (validation, evaluation, prediction) computes with the folded network.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

Model = TypeVar("Model", bound=nn.Module)

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


@torch.no_grad()
def fuse(model: Model, device: torch.device | str) -> Model:
    """A copy of a model for prediction: evaluation mode, channels-last, batch normalisation folded into convolutions.

    Folded is what directly follows a convolution in an ``nn.Sequential``, which all of our own blocks are.  Other
    modules do not tell in which order they call their parts (timm's residual blocks), and keep their normalisation.

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
