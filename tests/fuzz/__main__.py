"""Long runs: ``python -m tests.fuzz --seconds 600 --seed 1``; ``make fuzz`` does that.

Prints what became of the inputs of each target. An input is made again, and its traceback shown, by ``--targets NAME
--seed N --input K``.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.campaign import Tally, Target, limited_memory, try_inputs
from tests.fuzz.targets import TARGETS

STUCK = 120.0  # seconds by the clock after which the process is ended: code that no signal interrupts hangs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="in all, by the clock (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other inputs (default 1)")
    parser.add_argument("--targets", default=",".join(TARGETS), help=f"some of {','.join(TARGETS)}")
    parser.add_argument("--input", type=int, help="only this input of its run, with its traceback")
    args = parser.parse_args()
    names = args.targets.split(",")
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"--targets: there is no {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    faulthandler.enable()
    failed = False
    with tempfile.TemporaryDirectory() as scratch, limited_memory():
        for name in names:
            target, start = TARGETS[name](Path(scratch) / name), time.monotonic()
            one = [] if args.input is None else [args.input]
            end = start + args.seconds / len(names)
            numbers = one or itertools.takewhile(lambda _, end=end: time.monotonic() < end, itertools.count())
            tally = try_inputs(target, args.seed, _watched(iter(numbers), target, args.seed))
            _report(target, args.seed, tally, time.monotonic() - start)
            if one and tally.failures:
                print(tally.failures[0].details)
            failed |= bool(tally.failures)
    return 1 if failed else 0


def _watched(numbers: Iterator[int], target: Target, seed: int) -> Iterator[int]:
    """The numbers; the process ends, and says where it was, if one takes far too long."""
    for number in numbers:
        faulthandler.dump_traceback_later(STUCK, exit=True)
        sys.stdout.write(f"\r{target.name} --seed {seed} --input {number}" if sys.stdout.isatty() else "")
        yield number
    faulthandler.cancel_dump_traceback_later()


def _report(target: Target, seed: int, tally: Tally, seconds: float) -> None:
    counts = ", ".join(f"{count} {end}" for end, count in sorted(tally.counts.items()))
    print(f"\r{target.name}: {tally.counts.total()} inputs in {seconds:.0f} s (seed {seed}): {counts}", flush=True)
    for kind, count in Counter(failure.kind for failure in tally.failures).most_common():
        first = next(failure.number for failure in tally.failures if failure.kind == kind)
        again = f"--targets {target.name} --seed {seed} --input {first}"
        print(f"  FAILED {count} times: {kind}\n    again: {again}")


if __name__ == "__main__":
    sys.exit(main())
