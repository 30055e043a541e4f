"""`detseg compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detseg.atomic_write import check_writable, write_text
from detseg.cli.tool import DEVICES, ToolParser
from detseg.errors import ConfigError, require_training_extra
from detseg.messages import printable


def compare(argv: Sequence[str]) -> None:
    """Runs → is the difference real: detseg compare runs/a runs/b [runs/c] [--split test]"""
    what = "Score two models or more on the same images: which is better, by how much, and is the difference real?"
    parser = ToolParser("compare", what)
    which = "run directories, whose best.ckpt counts, or checkpoints; those that differ in the seed alone are one model"
    parser.add_argument("runs", nargs="+", metavar="RUN", help=which)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="which images (val)")
    parser.add_argument("--device", default="auto", help=DEVICES)
    out = "the page (comparison.html), which is replaced where it is there, as is the JSON file beside it"
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), metavar="FILE.html", help=out)
    arguments = parser.parse_intermixed_args(argv)
    overrides = [text for text in arguments.runs if "=" in text and not Path(text).exists()]
    runs = [Path(text) for text in arguments.runs if text not in overrides]
    page: Path = arguments.out
    if page.suffix.lower() != ".html" or page.is_dir():
        raise ConfigError(f"--out {page}: expected the name of an HTML file, such as comparison.html")
    check_writable(page.parent, "--out")

    require_training_extra("detseg compare")
    from detseg.evaluation.compare import compare as compared
    from detseg.evaluation.compare_page import page_of
    from detseg.messages import console

    found = compared(runs, arguments.split, overrides, arguments.device)
    for one in found:
        console.print(one.table())
        print(printable(one.verdict))
    table = page.with_suffix(".json")
    write_text(table, json.dumps([one.to_dict() for one in found], indent=2))
    write_text(page, page_of(found, arguments.split))
    print(f"written: {printable(str(page))}, {printable(str(table))}")
