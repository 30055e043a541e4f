"""The first batches of a normalisation that begins without statistics."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from detseg.training.optim.freezing import NORMALIZATION


class FreshNorms:
    """Lets normalisation that begins with made-up statistics (mean 0, variance 1) take the plain average of the batches
    seen so far, until its momentum takes over: a variance of 1 beside true ones of a thousandth would be felt for
    hundreds of steps, and a short training be evaluated with it.

    Args:
        model: its normalisations that have seen no batch yet are the fresh ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = {
            name: (module, float(module.momentum))
            for name, module in model.named_modules()
            if isinstance(module, NORMALIZATION) and module.momentum and not module.num_batches_tracked
        }

    @property
    def names(self) -> list[str]:
        """Which normalisations are still fresh."""
        return sorted(self._norms)

    def keep(self, names: Iterable[str]) -> None:
        """Only these are fresh: of a resumed run, whose weights come after the model is made."""
        wanted = set(names)
        for name, (module, momentum) in self._norms.items():
            if name not in wanted:
                module.momentum = momentum
        self._norms = {name: norm for name, norm in self._norms.items() if name in wanted}

    def prepare(self, num_batches: int) -> None:
        """Set the momentum for the batch that follows ``num_batches`` others."""
        share = 1 / (num_batches + 1)
        for module, momentum in self._norms.values():
            module.momentum = max(momentum, share)
        if all(share < momentum for _, momentum in self._norms.values()):
            self._norms = {}
