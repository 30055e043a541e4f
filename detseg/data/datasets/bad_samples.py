"""Training samples that cannot be read: what takes their place, and the list of them.

Another sample that depends on (seed, epoch, index) alone takes the place of a bad one, so that the sample stream is the
same for any number of workers and processes, and in a resumed run.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detseg.atomic_write import atomic_write
from detseg.data.datasets.contract import SampleSource, file_of
from detseg.errors import DataError
from detseg.messages import one_line
from detseg.ops.random_streams import Stream, random_stream
from detseg.structures import Sample

_MAX_DRAWS = 100  # samples that are tried for one place: none can be read only where nearly all of the data is bad


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that was skipped: position in the data set, file as ``file_of`` names it, what is wrong in one line."""

    index: int
    file: str
    reason: str


def read_or_replace(
    read: Callable[[int], Sample], source: SampleSource, seed: int, epoch: int, index: int
) -> tuple[Sample, list[BadSample]]:
    """Read sample ``index``, or, where that raises a DataError, a random one in its place; → the sample, and the bad
    ones that were met. A DataError if all that were tried are bad."""
    bad: dict[int, BadSample] = {}
    rng, drawn = None, index
    for _ in range(_MAX_DRAWS):
        if drawn not in bad:
            try:
                return read(drawn), list(bad.values())
            except DataError as error:
                bad[drawn] = BadSample(drawn, file_of(source, drawn), one_line(error))
        rng = rng or random_stream(Stream.REPLACEMENT, seed, epoch, index)
        drawn = int(rng.integers(len(source)))
    raise DataError(
        f"no replacement for a bad sample was found: none of {len(bad)} samples drawn at random can be read; "
        f"{bad[index].reason}"
    )


@dataclass
class BadSampleList:
    """The bad samples of a training set that were met so far, each once, and a CSV file that lists them."""

    num_samples: int  # length of the training set
    max_fraction: float  # of it that may be bad
    file: Path | None = None  # the CSV file, replaced atomically whenever a sample is added
    _found: dict[int, BadSample] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, samples: Iterable[BadSample]) -> None:
        """``take`` samples, then ``check``."""
        self.take(samples)
        self.check()

    def take(self, samples: Iterable[BadSample]) -> None:
        """Add samples to the list and the file, however many there are."""
        num_before = len(self)
        for sample in samples:
            self._found.setdefault(sample.index, sample)
        if len(self) > num_before:
            self.write()

    def check(self) -> None:
        """Raise a DataError if more samples are bad than allowed."""
        if len(self) > self.max_fraction * self.num_samples:
            summary = self._summary(f"cannot be read, more than data.max_bad_fraction={self.max_fraction:g}", self.file)
            raise DataError(f"{summary}; fix or remove the files, or raise data.max_bad_fraction")

    def write(self) -> None:
        """Write the file in the order of the data set; remove it if the list is empty."""
        if self.file is not None and not self._found:
            self.file.unlink(missing_ok=True)
        elif self.file is not None:
            with atomic_write(self.file, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                writer = csv.DictWriter(file, ("index", "file", "reason"))
                writer.writeheader()
                writer.writerows(self.state())

    def state(self) -> list[dict[str, Any]]:
        """The list as plain data, in the order of the data set."""
        return [asdict(self._found[index]) for index in sorted(self._found)]

    def load(self, state: Iterable[dict[str, Any]]) -> None:
        """Replace the list by that of ``state``."""
        self._found = {row["index"]: BadSample(**row) for row in state}

    def lines(self) -> list[str]:
        """The message at the end of a run; none if there are no bad samples."""
        summary = self._summary("could not be read and were replaced by others", self.file and self.file.name)
        return [f"bad data: {summary}"] if self._found else []

    def _summary(self, what: str, file: Path | str | None) -> str:
        names = [row["file"] for row in self.state()]
        examples = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        counted = f"{len(self)} of {self.num_samples} training samples ({len(self) / self.num_samples:.2%})"
        return f"{counted} {what}: {examples}" + ("" if file is None else f"; {file} lists them with the reasons")
