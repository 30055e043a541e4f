"""Whether a run that goes on sees the data that it began with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from detseg.data.datasets.fingerprint import Fingerprint
from detseg.errors import CheckpointError

logger = logging.getLogger("detseg")


@dataclass(frozen=True)
class DataGuard:
    """Compares the data of today with that of a checkpoint.

    Attributes:
        fingerprints: of each data set by its name, ``train`` and ``val``; kept in every checkpoint.
        on_change: what happens when they differ.
    """

    fingerprints: dict[str, Fingerprint]
    on_change: Literal["error", "warn"]

    def check(self, then: Mapping[str, Mapping[str, object]] | None) -> None:
        """Compare.

        Args:
            then: the fingerprints that the checkpoint holds; None: it is of a version that kept none.

        Raises:
            CheckpointError: the data is another, and that is an error.
        """
        now, then = self.fingerprints, then or {}
        if any(then[name].get("version") != now[name]["version"] for name in now if name in then):
            logger.warning(
                "the data was not compared with that of the run's start: another version of detseg wrote it down"
            )
            return
        changes = [line for name in now for line in _changes(name, then.get(name, {}), now[name])]
        if not changes:
            return
        message = f"the data is not what the run began with: {'; '.join(changes)}"
        if self.on_change == "error":
            raise CheckpointError(f"{message}; bring the data back, or go on with what it is now: data.on_change=warn")
        logger.warning(f"{message}; the run goes on with what it is now (data.on_change=warn)")


def _changes(name: str, then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """What differs between two fingerprints of the same version; nothing where ``then`` is empty."""
    if then.get("images", now["images"]) != now["images"]:
        yield f"{name}: {then['images']} images, now {now['images']}"  # so that all digests differ as well
        return
    what = {
        "names": "the names of the images, or their order, changed",
        "annotations": "the annotations changed",
        "files": "the image files changed (sizes)",
        "masks": "the mask files changed (sizes)",
        "pipeline": "the pipeline of data.augmentation.albumentations changed",
    }
    for key, line in what.items():
        if then.get(key, now[key]) != now[key]:
            yield f"{name}: {line}"
