"""The first batches of a batch norm that begins without statistics."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from detseg.training.optim.freezing import NORMALIZATION


class BatchNormWarmup:
    """Lets batch norm that has seen no batch (``num_batches_tracked`` is 0, mean 0 and variance 1 are made up) take the
    plain average of its batches until its momentum takes over: a variance of 1 beside true ones of a thousandth would
    be felt for hundreds of steps.

    Args:
        model: what trains.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = {
            name: (module, float(module.momentum))
            for name, module in model.named_modules()
            if isinstance(module, NORMALIZATION) and module.momentum and not module.num_batches_tracked
        }

    @property
    def names(self) -> list[str]:
        """Which are still in their warm-up."""
        return sorted(self._norms)

    def keep(self, names: Iterable[str]) -> None:
        """Only these still are: of a resumed run, whose weights come after the model is made."""
        wanted = set(names)
        for name in self._norms.keys() - wanted:
            module, momentum = self._norms.pop(name)
            module.momentum = momentum

    def prepare(self, num_batches: int) -> None:
        """Set the momentum for the batch that follows ``num_batches`` others."""
        fraction = 1 / (num_batches + 1)
        for module, momentum in self._norms.values():
            module.momentum = max(momentum, fraction)
        if all(fraction < momentum for _, momentum in self._norms.values()):
            self._norms = {}
