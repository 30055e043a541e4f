"""Export weights: `python tools/export_weights.py …` is `detseg export-weights …`."""

import sys

from detseg.cli.deploy.export_weights import export_weights
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(export_weights))
