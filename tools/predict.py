"""Predict for images: `python tools/predict.py …` is `detseg predict …` (detseg/cli/deploy/predict.py)."""

import sys

from detseg.cli.deploy.predict import predict
from detseg.cli.tool import run_tool

if __name__ == "__main__":
    sys.exit(run_tool(predict))
