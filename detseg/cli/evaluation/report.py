"""`detseg report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.cli.tool import DEVICES, ToolParser
from detseg.errors import ConfigError, require_training_extra
from detseg.messages import printable


def report(argv: Sequence[str]) -> None:
    """A run → a page: how good it is, and what goes wrong: detseg report runs/yolo_voc [--split test]"""
    what = (
        "Write a page on a model, or on a file of detections: how good, how sure, which errors, which labels to check."
    )
    parser = ToolParser("report", what)
    run = "a run directory, whose best.ckpt counts, or a checkpoint"
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help=run)
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings over those of the run")
    parser.add_argument("--split", choices=("train", "val", "test"), help="which images (val)")
    parser.add_argument("--device", help=DEVICES)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (report, in the run directory)")
    results = "instead of a run: detections of any program in COCO's results format, with --annotations"
    parser.add_argument("--results", type=Path, metavar="JSON", help=results)
    parser.add_argument("--annotations", type=Path, metavar="JSON", help="the truth for --results, in COCO's format")
    parser.add_argument("--images", type=Path, metavar="DIR", help="the images of --annotations, for pictures")
    arguments = parser.parse_intermixed_args(argv)
    overrides: list[str] = arguments.overrides
    of_results = arguments.results is not None or arguments.annotations is not None
    if of_results and arguments.run is not None:  # no place among the arguments tells the two apart
        overrides = [str(arguments.run), *overrides]
    _check(arguments.results, arguments.annotations, arguments.run, overrides, of_results)
    for name in ("split", "device") if of_results else ("images",):
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name}: is for {'a run' if of_results else '--results'}; leave it out")

    require_training_extra("detseg report")
    from detseg.evaluation.report.run import report as write_report
    from detseg.evaluation.report.run import report_results

    if of_results:
        out = arguments.out or arguments.results.with_name(f"{arguments.results.stem}_report")
        page = report_results(arguments.results, arguments.annotations, out, arguments.images, overrides)
    else:
        page = write_report(
            arguments.run, arguments.split or "val", arguments.out, overrides, arguments.device or "auto"
        )
    print(f"written: {printable(str(page))}")


def _check(
    results: Path | None, annotations: Path | None, run: Path | None, overrides: Sequence[str], of_results: bool
) -> None:
    if not of_results:
        if run is None:
            raise ConfigError("no run given, and no --results with --annotations; see detseg report --help")
        return
    if results is None or annotations is None:
        raise ConfigError("--results, the detections, and --annotations, the truth, go together; give both")
    if wrong := [text for text in overrides if "=" not in text]:
        raise ConfigError(f"{wrong[0]}: --results are scored without a run; leave it out")
