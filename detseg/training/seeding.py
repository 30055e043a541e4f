"""Random generators of a process: their seed, that of a batch, and their state as plain data and tensors.

Nothing of ours draws from numpy's or Python's global generator; a user's model, transform or callback may.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global generators; unlike Lightning's function, it leaves the environment."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one is meant
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of torch's (with its GPUs'), numpy's and Python's global generators."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # the global one is meant
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": list(random.getstate()),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore a ``random_state``; that of GPUs only where there are as many."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002  # the global one is meant
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def seed_batch(seed: int, epoch: int, batch: int, rank: int) -> None:
    """Seed torch by a batch's place in the run (all from 0), so that a resumed run or a diagnosis draws the same."""
    torch.manual_seed(int(np.random.SeedSequence((seed, epoch, batch, rank)).generate_state(1, np.uint64)[0]))
