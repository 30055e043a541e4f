"""Train a model: `python tools/train.py …` is `detseg train …` (detseg/cli/commands.py)."""

import sys

from detseg.cli.commands import train
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(train))
