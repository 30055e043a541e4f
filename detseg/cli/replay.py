"""Find the sample that made a step's numbers wrong: detseg replay runs/x/nan_epoch003_step00120"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import ToolParser


def main(argv: Sequence[str]) -> None:
    """Arguments → bundle → the step once more → who is at fault."""
    parser = ToolParser(
        "replay",
        "Make a step whose loss or gradient was not finite once more on the CPU, and say which sample and term did it.",
    )
    parser.add_argument("bundle", type=Path, help="the folder nan_epoch..._step... of a run directory")
    parser.add_argument("overrides", nargs="*", metavar="data.key=value", help="where the data lies by now")
    arguments = parser.parse_intermixed_args(argv)

    from detseg.experiment.replay import replay  # loads torch; the arguments are valid by now

    replay(arguments.bundle, arguments.overrides)
