"""Time a training on this machine: `python tools/benchmark.py …` is `detseg benchmark …` (detseg/cli/commands.py)."""

import sys

from detseg.cli.commands import benchmark
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(benchmark))
