"""`detseg convert`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detseg.cli.tool import ToolParser, load_data_experiment, refuse_inside
from detseg.errors import DataError, require_training_extra
from detseg.messages import counted, printable

_MAPS = "mask_folder"
_FORMATS = ("voc", "coco", "yolo", "labelme", "cvat", _MAPS)


def convert(argv: Sequence[str]) -> None:
    """A data set → a copy in another format: detseg convert SRC DST --to yolo [--images link]"""
    parser = ToolParser("convert", "Write a copy of a data set in another format, and say what that cannot hold.")
    parser.add_argument("config", type=Path, metavar="SRC", help="the folder of the data, or a configuration file")
    parser.add_argument("out", type=Path, metavar="DST", help="a new or an empty folder")
    parser.add_argument("overrides", nargs="*", metavar="key.key=value", help="settings that replace those of SRC")
    parser.add_argument("--to", required=True, choices=_FORMATS, help="the format to write")
    images = "copy: copies of the image files; link: symbolic links to them (copy)"
    parser.add_argument("--images", choices=("copy", "link"), default="copy", help=images)
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is wrong, instead of stopping")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise DataError(f"{arguments.out}: expected a new or an empty folder, but it holds files; choose another")
    require_training_extra("detseg convert")
    is_folder, maps = arguments.config.is_dir(), arguments.to == _MAPS
    config, splits = load_data_experiment(arguments, needs=("maps",) if maps else ("boxes",))
    refuse_inside(arguments.out, config)
    chosen = [text.partition("=")[0] for text in arguments.overrides]
    whole = is_folder and not {"data.fraction", "data.val_fraction"} & set(chosen)
    if not whole and config.data.val_fraction is not None:
        splits = ["train", "val", *(["test"] if "test" in splits or not is_folder else [])]
    from detseg.data.build import open_as_stated
    from detseg.data.datasets.segmentation import without_wrong_maps

    datasets, errors = open_as_stated(config, splits, maps, whole)
    for name, error in errors.items():
        if is_folder:  # a configuration names splits that need not be there
            raise error
        print(printable(f"{name}: not converted: {error}"))
    datasets = {name: without_wrong_maps(dataset) for name, dataset in datasets.items()} if maps else datasets
    _say_findings(datasets, arguments.skip_bad, config.data.on_missing == "skip")
    datasets = {name: _without_wrong(dataset) for name, dataset in datasets.items()}
    from detseg.data.formats.convert import WRITERS, count_written, unread_values, write_mask_folder

    write: Callable[..., list[str]] = write_mask_folder if maps else WRITERS[arguments.to]
    lost = write(datasets, arguments.out, arguments.images == "link") + unread_values(datasets.values())
    print(*(printable(f"not held by {arguments.to}: {line}") for line in lost), sep="\n", end="\n" if lost else "")
    written, objects = count_written(datasets, arguments.to)
    numbers = ", ".join(f"{name} {counted(number, 'image')}" for name, number in written.items())
    print(printable(f"written: {arguments.out}: {numbers}" + (f", of {counted(objects, 'object')}" if objects else "")))
    out, file = (shlex.quote(text) for text in (str(arguments.out), f"{arguments.out.name}.yaml"))
    print(printable(f"next: detseg config new {out} > {file}"))


def _without_wrong(dataset: Any) -> Any:
    """A set of objects without those whose boxes are wrong, of which a line says how many there are."""
    import numpy as np

    from detseg.data.annotations.issues import Severity
    from detseg.data.annotations.report import box_issues
    from detseg.data.datasets.detection import DetectionDataset

    if not isinstance(dataset, DetectionDataset):
        return dataset
    of_errors = [rows for issue, rows in box_issues(dataset.packed).items() if issue.severity == Severity.ERROR]
    wrong = np.any(of_errors, axis=0)
    if not wrong.any():
        return dataset
    print(printable(f"{dataset.name}: objects left out, as their boxes are wrong: {int(wrong.sum())}"))
    packed = dataset.packed.keep_objects(~wrong)
    return DetectionDataset(packed, dataset.root, dataset.classes, dataset.report, dataset.name)


def _say_findings(datasets: dict[str, Any], skip_bad: bool, skip_missing: bool) -> None:
    """Print what readers found and left out; a DataError if something is wrong, unless that may be left out."""
    from detseg.data.annotations.issues import DataIssue, Severity

    said = (DataIssue.LEFT_OUT, DataIssue.NO_LABEL_FILE, DataIssue.OTHER_NAMES)  # though they are no warnings
    total = 0
    for dataset in datasets.values():
        for line in dataset.report.notes:
            print(printable(f"{dataset.name}: {line}"))
        for finding in dataset.report.findings():
            severity = finding.issue.severity
            if severity or finding.issue in said:
                reason = next((example.detail for example in finding.examples if example.detail), finding.issue.fix)
                tail = f"; {reason}" if severity == Severity.ERROR else ""
                print(printable(f"{severity.name.lower()}: {dataset.name}: {finding.line}{tail}"))
            accepted = skip_missing and finding.issue == DataIssue.MISSING_IMAGE
            total += finding.count if severity == Severity.ERROR and not accepted else 0
    if total and not skip_bad:
        what = f"{counted(total, 'error')} in the annotations, listed above"
        raise DataError(f"{what}; correct them, or leave out what is wrong with --skip-bad")
