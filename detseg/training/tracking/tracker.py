"""What a tracker of a run is: one of Lightning's loggers that takes more than numbers; and TensorBoard's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from detseg.checkpoint import BEST, FOLDER
from detseg.checkpoint.provenance import RUN_FILE
from detseg.config.load import plain_to_yaml
from detseg.structures import UInt8Array


class Tracker:
    """What a logger of a run does besides ``log_metrics``; nothing where it has no place for it.

    Attributes:
        kind: as the setting ``tracking`` names it.
    """

    kind: ClassVar[str]

    def begin(self, settings: Mapping[str, Any], start: Mapping[str, Any]) -> str | None:
        """Open the run, or open it again; returns its id, by which a resumed run finds it (None: it needs none).

        Args:
            settings: as resolved.
            start: see ``describe_start``.

        Raises:
            ConfigError: it cannot be opened.
        """
        return None

    def show(self, name: str, image: UInt8Array, step: int) -> None:
        """Take down a picture, (H, W, 3) uint8 RGB."""

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """Take down how values are distributed."""

    def end(self, files: Sequence[Path]) -> None:
        """The run is over: keep these files with it."""

    @property
    def how_to_look(self) -> str:
        """What to type to see it, or its address; empty: there is nothing to see."""
        return ""


def trackers_of(trainer: L.Trainer) -> list[Tracker]:
    """Those of a trainer's loggers that are ours."""
    return [tracker for tracker in trainer.loggers if isinstance(tracker, Tracker)]


@contextmanager
def tracked(trainer: L.Trainer) -> Iterator[None]:
    """At the end of a training its trackers get the best checkpoint and the files of numbers and pictures; whatever
    happens, they are closed."""
    run_dir, files = Path(trainer.default_root_dir), list[Path]()
    try:
        yield
        names = (f"{FOLDER}/{BEST}", "config.yaml", RUN_FILE, "metrics.csv", "metrics.json")
        files = [run_dir / name for name in names] + sorted((run_dir / "pictures").glob("*.jpg"))
    finally:
        for tracker in trackers_of(trainer) if trainer.is_global_zero else ():
            tracker.end([file for file in files if file.is_file()])


class TensorBoardTracker(Tracker, TensorBoardLogger):
    """Event files in ``tensorboard/`` of the run directory."""

    kind = "tensorboard"

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir, name="", version=self.kind)

    def begin(self, settings: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        """Opens nothing: Lightning does with the first entry."""
        for name, plain in (("settings", settings), ("run", start)):
            text = "\n".join(f"    {line}" for line in plain_to_yaml(dict(plain)).splitlines())  # Markdown's code
            self.experiment.add_text(name, text)

    def show(self, name: str, image: UInt8Array, step: int) -> None:
        """See ``Tracker``."""
        self.experiment.add_image(name, image, step, dataformats="HWC")

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """See ``Tracker``."""
        self.experiment.add_histogram(name, values.float().cpu(), step)

    @property
    def how_to_look(self) -> str:
        """See ``Tracker``."""
        return f"tensorboard --logdir {shlex.quote(self.log_dir)}"
