"""The setting `tracking` → Lightning's loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from detseg.checkpoint.provenance import read_run_file
from detseg.errors import MissingExtraError
from detseg.training.tracking.services import MlflowTracker, WandbTracker
from detseg.training.tracking.tracker import TensorBoardTracker


def build_trackers(kinds: Sequence[str], run_dir: Path, tags: Mapping[str, str]) -> list[Logger]:
    """The loggers that the settings ask for.

    Args:
        kinds: the setting ``tracking``; ``csv`` is written by ``RunFiles``. MLflow and Weights & Biases are for the
            first process alone.
        run_dir: of the run; where it has begun already, its trackers go on.
        tags: of the run.

    Raises:
        ConfigError: MLflow's database cannot be opened.
        CheckpointError: the run's ``run.json`` is damaged.
        MissingExtraError: a package is not installed.
    """
    if missing := [kind for kind in kinds if kind in ("mlflow", "wandb") and find_spec(kind) is None]:
        raise MissingExtraError(f'tracking: {" and ".join(missing)} not installed: pip install "detseg[tracking]"')
    is_first = int(getattr(rank_zero_only, "rank", 0)) == 0
    ids = read_run_file(run_dir)["trackers"]
    built: list[Logger] = []
    for kind in dict.fromkeys(kinds):
        match kind:
            case "tensorboard":
                built.append(TensorBoardTracker(run_dir))
            case "mlflow" if is_first:
                built.append(MlflowTracker(run_dir, tags, ids.get(kind)))
            case "wandb" if is_first:
                built.append(WandbTracker(run_dir, tags, ids.get(kind)))
    return built
