"""Convolution blocks as prediction on a CPU computes them: normalisation folded into the convolution, and the whole
block in one call of oneDNN.

Batch normalisation with fixed statistics is one factor and one summand a channel (Ioffe and Szegedy 2015, section 3.1),
which go into the weights.  The folded weights are laid out once as oneDNN reads them, which it else does at every call,
and the activation is applied while the convolution's outputs are at hand: a nano model at 320 pixels takes three
quarters of the time.  Results differ from those of the plain blocks by rounding; so whatever must give the same numbers
(validation, evaluation, prediction) prepares its model.  On other devices blocks stay as they are.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detseg.models.blocks import ConvNormAct

Numbers = npt.NDArray[np.generic]

_ONEDNN_NAMES: dict[type[nn.Module], str] = {nn.SiLU: "swish", nn.ReLU: "relu"}
"""Activations that oneDNN's convolution can apply."""


_SAMPLES = 3
"""Numbers of each tensor by which changes are noticed that PyTorch does not count: the first, the middle, the last."""


def prepare(model: nn.Module) -> None:
    """Let the convolution blocks of a model on a CPU compute as above wherever there are no gradients.

    Parameters and buffers stay what they are.  A block that has changed (by training, by loading weights, in its parts)
    is prepared anew when it is next called; one whose parts have hooks computes by its parts, so that they are called.

    Args:
        model: in evaluation mode, on its device, in its memory format.
    """
    for block in _blocks(model):
        block.prepared = _prepared(block)


def release(model: nn.Module) -> None:
    """Let the blocks of a model compute by their parts again."""
    for block in _blocks(model):
        block.prepared = None


def _prepared(block: ConvNormAct) -> _Prepared | None:
    parts = tuple(block)
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Module)
    if block.training or len(parts) != 3 or not all(map(isinstance, parts, kinds)):
        return None
    tensors = [*block.parameters(), *block.buffers()]
    return _Prepared(block) if all(tensor.device.type == "cpu" for tensor in tensors) else None


class _Prepared:
    """What a block computes, out of the present values of its parts."""

    def __init__(self, block: ConvNormAct) -> None:
        self._modules = block._modules
        self._parts = tuple(block)
        convolution, norm, self._activation = cast(tuple[nn.Conv2d, nn.BatchNorm2d, nn.Module], self._parts)
        self._norm, self._eps = norm, norm.eps
        # The modules' own dictionaries: values may be replaced as well as changed, and this is asked at every call.
        self._sources = (convolution._parameters, norm._parameters, norm._buffers)
        self._tensors = self._present()
        self._versions = [_version(tensor) for tensor in self._tensors]
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        self._views = [_view(tensor) for tensor in self._tensors]
        self._samples = [_sampled(view) for view in self._views]
        with torch.no_grad():
            folded = fuse_conv_bn_eval(convolution, norm)
        self._weight, self._bias = folded.weight.detach(), cast(Tensor, folded.bias).detach()
        self._form = [list(folded.stride), list(cast(tuple[int, ...], folded.padding)), list(folded.dilation)]
        self._groups = folded.groups
        self._name = _ONEDNN_NAMES.get(type(self._activation), "")
        self._packed: Tensor | None = None
        if self._name and self._weight.dtype == torch.float32 and _has_onednn():
            self._packed = _packed(self._weight, self._form, self._groups)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied block is not prepared."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    @property
    def is_stale(self) -> bool:
        """Whether a part of the block has changed since.

        PyTorch counts changes of tensors, but not those by fused optimisers, through ``.data`` or through numpy: these
        show in a few of their numbers, which are looked at.
        """
        tensors = self._present()
        return (
            tuple(self._modules.values()) != self._parts
            or self._norm.eps != self._eps
            or len(tensors) != len(self._tensors)
            or any(map(operator.is_not, tensors, self._tensors))
            or [tensor.data_ptr() for tensor in tensors] != self._addresses
            or list(map(_version, tensors)) != self._versions
            or list(map(_sampled, self._views)) != self._samples
        )

    @property
    def is_watched(self) -> bool:
        """Whether hooks wait for a part of the block to be called."""
        return any(part._forward_hooks or part._forward_pre_hooks for part in self._parts)

    @staticmethod
    def again(block: ConvNormAct) -> _Prepared | None:
        """The block as it is now; None where it can only compute by its parts."""
        return _prepared(block)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            return _convolve(x, self._packed, self._bias, self._form, self._groups, self._name)
        stride, padding, dilation = self._form
        x = F.conv2d(x, self._weight, self._bias, stride, padding, dilation, self._groups)
        return cast(Tensor, self._activation(x))

    def _present(self) -> list[Tensor]:
        return [tensor for source in self._sources for tensor in source.values() if tensor is not None]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _view(tensor: Tensor) -> Numbers:
    """The numbers of a tensor where they lie; its order in memory does not matter here."""
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    return flat.numpy() if flat.dtype != torch.bfloat16 else flat.view(torch.int16).numpy()


def _sampled(view: Numbers) -> tuple[object, ...]:
    last = len(view) - 1
    return tuple(view.item(last * i // (_SAMPLES - 1)) for i in range(_SAMPLES)) if last >= 0 else ()


def _blocks(model: nn.Module) -> list[ConvNormAct]:
    return [module for module in model.modules() if isinstance(module, ConvNormAct)]


# The two operators are those that torch.compile's code for CPUs consists of; they have no other name in PyTorch.


def _packed(weight: Tensor, form: list[list[int]], groups: int) -> Tensor:
    stride, padding, dilation = form
    return cast(Tensor, torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, None))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, form: list[list[int]], groups: int, activation: str) -> Tensor:
    stride, padding, dilation = form
    return cast(
        Tensor,
        torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, activation, [], ""),
    )


@cache
def _has_onednn() -> bool:
    """Whether this PyTorch has the operators, and they compute what we expect."""
    with torch.random.fork_rng(devices=[]):
        convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    x, weight, bias = torch.linspace(-2, 2, 150).view(2, 3, 5, 5), convolution.weight.detach(), convolution.bias
    assert bias is not None
    expected = {"swish": F.silu, "relu": F.relu}
    form = [[2, 2], [1, 1], [1, 1]]
    with torch.no_grad():
        try:
            packed = _packed(weight, form, 1)
            return all(
                torch.allclose(_convolve(x, packed, bias, form, 1, name), activation(convolution(x)), atol=1e-5)
                for name, activation in expected.items()
            )
        except (AttributeError, RuntimeError):  # the operators have no promise of staying
            return False
