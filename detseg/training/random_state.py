"""The state of all random generators of a process as plain data and tensors.

Nothing of ours draws from it: each choice follows from the seed and its place in the run.  A model, transform or
callback of a user's may.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """The state now."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # the global one is meant
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": list(random.getstate()),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Bring back a ``random_state``; that of GPUs where there are as many."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002  # the global one is meant
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def seed_batch(seed: int, epoch: int, batch: int, rank: int) -> None:
    """Make what a model draws from torch follow from its place in the run, so that one that is resumed, and a replay of
    the step, draw what the whole run would have drawn.

    Args:
        seed: of the run.
        epoch: from 0.
        batch: number within the epoch, from 0.
        rank: number of the process.
    """
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch, batch, rank)).generate_state(1, np.uint64)[0]))
