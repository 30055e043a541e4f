"""`python -m tests.kill_at_random --kills 50`: kill runs at random moments, and see whether they end as they should."""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.kills import Run, Setup, kill_at_random, result_of


def main() -> None:
    """Kill runs of three models, and say how many ended as they should."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, places, identical = random.Random(arguments.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as scratch:
        references = {}
        for name in ("yolo", "unet", "mask_rcnn"):
            setup, run_dir = Setup.write(name, Path(scratch) / name), Path(scratch) / name / "whole"
            run = Run(setup, run_dir).started()
            begin = time.monotonic()
            assert run.wait() == 0
            references[name] = (setup, time.monotonic() - begin, result_of(run_dir))
        table = csv.writer(sys.stdout)
        table.writerow(["kill", "model", "killed in", "same weights and metrics"])
        tries = kills = 0
        while kills < arguments.kills:
            tries += 1
            setup, seconds, expected = list(references.values())[kills % 3]
            run_dir = setup.config.parent / f"try{tries}"
            place = kill_at_random(setup, run_dir, seconds, rng)
            if place is None:
                continue
            kills += 1
            same = result_of(run_dir) == expected
            identical += same
            places[place] += 1
            table.writerow([kills, setup.name, place, "yes" if same else "NO"])
            sys.stdout.flush()
    print(f"{kills} kills in {tries} tries: {identical} ended in identical weights, optimiser and metrics")
    print(", ".join(f"{place}: {count}" for place, count in places.most_common()))
    sys.exit(identical != kills)


if __name__ == "__main__":
    main()
