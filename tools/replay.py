"""Make a step again: `python tools/replay.py …` is `detseg replay …` (detseg/cli/replay.py)."""

import sys

from detseg.cli.replay import main
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(main))
