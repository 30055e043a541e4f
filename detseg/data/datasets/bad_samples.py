"""Training samples that cannot be read: what takes their place, and the list of them.

The place of a bad sample is taken by another one that depends on (seed, epoch, index) alone, so that the sample stream
stays the same for any number of workers and processes, and in a resumed run.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detseg.data.datasets.contract import SampleSource, file_of
from detseg.data.loading.sampling import Stream, random_stream
from detseg.errors import DataError
from detseg.messages import one_line
from detseg.structures import Sample
from detseg.whole_files import atomic_write

_MAX_DRAWS = 100
"""Replacements that may be bad in a row; so many are, unless nearly all of the data is bad, by no chance."""

_EXAMPLES = 3
"""Files that a message names."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that was skipped.

    Attributes:
        index: position in the data set.
        file: its image; the position where the source knows no files.
        reason: what is wrong, as one line.
    """

    index: int
    file: str
    reason: str


def replaced(
    read: Callable[[int], Sample], source: SampleSource, seed: int, epoch: int, index: int
) -> tuple[Sample, list[BadSample]]:
    """Sample ``index``, or where that is bad the one that takes its place in an epoch.

    Args:
        read: reads and checks a sample; a DataError means that it is bad.
        source: the samples.
        seed: of everything random.
        epoch: 0-based.
        index: position in the data set.

    Returns:
        the sample, and what was bad on the way to it.

    Raises:
        DataError: nothing but bad samples was drawn.
    """
    rng = None
    bad: dict[int, BadSample] = {}
    drawn = index
    for _ in range(_MAX_DRAWS):
        if drawn not in bad:
            try:
                return read(drawn), list(bad.values())
            except DataError as error:
                bad[drawn] = BadSample(drawn, file_of(source, drawn), one_line(error))
        rng = rng or random_stream(Stream.REPLACEMENT, seed, epoch, index)
        drawn = int(rng.integers(len(source)))
    raise DataError(
        f"no replacement for a bad sample was found: of {len(bad)} samples drawn at random none can be read; "
        f"{bad[index].reason}"
    )


@dataclass
class BadSampleList:
    """The bad samples of a training set that were met so far, each once, and the file that holds them.

    Attributes:
        num_samples: length of the training set.
        max_share: largest share of it that may be bad.
        file: a CSV file, written anew, whole or not at all, whenever one comes to the list; None: none is written.
    """

    num_samples: int
    max_share: float
    file: Path | None = None
    _found: dict[int, BadSample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, samples: Iterable[BadSample]) -> None:
        """Take samples on the list, and refuse to go on when more are bad than may be.

        Raises:
            DataError: they are.
        """
        self.take(samples)
        self.check()

    def take(self, samples: Iterable[BadSample]) -> None:
        """Take samples on the list, however many."""
        new = {sample.index: sample for sample in samples if sample.index not in self._found}
        if new:
            self._found |= new
            self.write()

    def check(self) -> None:
        """Refuse to go on when more samples are bad than may be.

        Raises:
            DataError: they are.
        """
        if len(self) <= self.max_share * self.num_samples:
            return
        listed = "" if self.file is None else f"; {self.file} lists them with the reasons"
        raise DataError(
            f"{self._counted()} cannot be read, more than data.max_bad_fraction={self.max_share:g}: {self._examples()}"
            f"{listed}; mend or remove the files, or raise data.max_bad_fraction"
        )

    def write(self) -> None:
        """Write the file, if there is to be one, in the order of the data set; where the list is empty, remove it."""
        if self.file is None:
            return
        if not self._found:
            self.file.unlink(missing_ok=True)
            return
        with atomic_write(self.file, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "file", "reason"])
            writer.writerows([item.index, item.file, item.reason] for item in self._in_order())

    def state(self) -> list[dict[str, Any]]:
        """The list as plain data."""
        return [{"index": item.index, "file": item.file, "reason": item.reason} for item in self._in_order()]

    def load(self, state: Iterable[dict[str, Any]]) -> None:
        """Go on with the list of ``state``."""
        self._found = {int(row["index"]): BadSample(int(row["index"]), row["file"], row["reason"]) for row in state}

    def lines(self) -> list[str]:
        """What the end of a run says of them; nothing where there are none."""
        if not self._found:
            return []
        line = f"bad data: {self._counted()} could not be read, and others took their place: {self._examples()}"
        return [line if self.file is None else f"{line}; {self.file.name} lists them with the reasons"]

    def _in_order(self) -> list[BadSample]:
        return [self._found[index] for index in sorted(self._found)]

    def _counted(self) -> str:
        return f"{len(self)} of {self.num_samples} training samples ({len(self) / self.num_samples:.2%})"

    def _examples(self) -> str:
        names = [item.file for item in self._in_order()]
        return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
