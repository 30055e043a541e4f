"""Tries changed files on a reader: every input must be read rightly or refused with one clear line.

Input k of a target is a function of (seed, target, k), so that each can be made again from these three.
"""

from __future__ import annotations

import random
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from detseg.errors import DetsegError
from tests.fuzz.mutator import Mutator

CPU_SECONDS = 10.0  # that an input may take; not by a clock, which counts other programs' work
MEMORY = 4 << 30  # bytes that an input may take beyond what the process holds: several times the largest image's pixels
LONGEST_LINE = 2000  # characters of one line of a message: some lists of names, but not a file's content


class NotTestedError(Exception):
    """The changed file is none that this target can be tried on."""


@dataclass(frozen=True)
class Target:
    """A reader and what to try on it; ``read`` checks what it got, and raises ``DetsegError`` where it refuses that."""

    name: str
    seeds: tuple[bytes, ...]  # valid files
    mutate: Mutator
    read: Callable[[bytes], None]
    where: str  # what each line of a message must have in it, so that users find the file

    def content(self, seed: int, number: int) -> bytes:
        if number < len(self.seeds):
            return self.seeds[number]
        rng = random.Random(f"{self.name}/{seed}/{number}")
        return self.mutate(rng.choice(self.seeds), rng)


class TooSlowError(BaseException):
    """An input took too much time; not an ``Exception``, which the reader under test might take for a damaged file."""


@dataclass(frozen=True)
class Failure:
    number: int  # of its run
    kind: str  # equal for failures at one place of the code
    details: str  # the traceback


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def try_inputs(target: Target, seed: int, numbers: Iterator[int]) -> Tally:
    tally = Tally()
    for number in numbers:
        end, failure = try_input(target, target.content(seed, number), number)
        tally.counts[end] += 1
        tally.failures += [failure] if failure else []
    return tally


def try_input(target: Target, content: bytes, number: int = 0) -> tuple[str, Failure | None]:
    """Which end an input comes to, and what there is to say where that is a failure."""
    raised: BaseException
    try:
        with warnings.catch_warnings(), limited_time():
            warnings.simplefilter("ignore")
            target.read(content)
    except NotTestedError:
        return "not tested", None
    except DetsegError as error:
        wrong, raised = _wrong_message(str(error), target.where), error
        if not wrong:
            return "refused", None
    except (Exception, TooSlowError) as error:  # these are what is looked for
        wrong, raised = type(error).__name__, error
    else:
        return "read", None
    details = "".join(traceback.format_exception(raised))
    return "failed", Failure(number, f"{wrong}: {_place(raised)}", details)


@contextmanager
def limited_time(seconds: float = CPU_SECONDS) -> Iterator[None]:
    """Raises ``TooSlowError`` inside once the process has worked so long; without effect where there are no timers."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlowError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def limited_memory(extra: int = MEMORY) -> Iterator[None]:
    """Makes larger allocations fail inside; without effect where the system cannot limit a process's memory."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(pages.read_text().split()[0]) * resource.getpagesize()
    with suppress(ValueError, OSError):  # a stricter limit is there already
        resource.setrlimit(resource.RLIMIT_AS, (held + extra, hard))
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _wrong_message(message: str, where: str) -> str:
    """What is wrong with a message that a user is to see on a terminal; nothing where it is good."""
    lines = message.split("\n")
    if not all(line.isprintable() for line in lines):
        return "message with control characters"
    if not all(where in line for line in lines):
        return "message without the file"
    if any(len(line) > LONGEST_LINE for line in lines):
        return "message too long"
    return ""


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/detseg/" in frame.filename] or list(frames)
    ends = [ours[-1], frames[-1]] if frames else []
    return " < ".join(dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(ends)))
