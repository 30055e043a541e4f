"""Time a training on this machine: `python tools/benchmark.py …` is `detseg benchmark …` (detseg/cli/benchmark.py)."""

import sys

from detseg.cli.benchmark import benchmark
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(benchmark))
