"""Train a model: `python tools/train.py …` is `detseg train …` (detseg/cli/train.py)."""

import sys

from detseg.cli.tool import run_tool
from detseg.cli.train import train

if __name__ == "__main__":
    sys.exit(run_tool(train))
