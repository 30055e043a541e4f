"""Evaluate a checkpoint: `python tools/evaluate.py …` is `detseg evaluate …` (detseg/cli/evaluation/evaluate.py)."""

import sys

from detseg.cli.evaluation.evaluate import evaluate
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(evaluate))
