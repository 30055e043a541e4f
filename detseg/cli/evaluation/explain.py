"""`detseg explain`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detseg.atomic_write import check_writable
from detseg.cli.tool import DEVICES, ToolParser, score
from detseg.errors import ConfigError, DataError, require_training_extra
from detseg.messages import printable

if TYPE_CHECKING:
    from detseg.data.build import Split
    from detseg.explain.advice import Adviser
    from detseg.explain.misses import ImageMisses


def explain(argv: Sequence[str]) -> None:
    """Why objects were missed: detseg explain runs/mine [IMAGE [--object N]] [--split test] [data.image_size=512]"""
    from detseg.structures import SCORE_THRESHOLD

    what = (
        "Say which stage lost the objects that a detector missed, and the one setting to try: in an image, or counted"
    )
    parser = ToolParser("explain", f"{what} over a split.")
    run = "a run directory, whose best.ckpt counts, or a checkpoint"
    parser.add_argument("run", type=Path, metavar="RUN", help=run)
    image = "an image of the run's data (all of a split, counted); settings of data over those of the run"
    parser.add_argument("rest", nargs="*", metavar="IMAGE | key.key=value", help=image)
    number = "only this object of the image: its position among the annotations, from 0; of --pictures the N-th best"
    number += " detection, from 1"
    parser.add_argument("--object", type=int, metavar="N", help=number)
    which = "which images (val; of an image, that which has it)"
    parser.add_argument("--split", choices=("train", "val", "test"), help=which)
    threshold = f"detections below this score do not count, as of detseg predict ({SCORE_THRESHOLD})"
    parser.add_argument("--score", type=score, help=threshold)
    pictures = "of any image and any kind of model: write heat maps, feature maps and receptive fields there instead"
    parser.add_argument("--pictures", type=Path, metavar="DIR", help=pictures)
    parser.add_argument("--device", default="auto", help=DEVICES)
    arguments = parser.parse_intermixed_args(argv)
    overrides = [text for text in arguments.rest if "=" in text and not Path(text).exists()]
    images = [Path(text) for text in arguments.rest if text not in overrides]
    if len(images) > 1:
        raise ConfigError(f"{printable(str(images[1]))}: one image at a time; without an image a split is explained")
    if arguments.object is not None and not images:
        raise ConfigError("--object: is for one image; name it after the checkpoint")

    if arguments.pictures is not None:
        _write_pictures(arguments, images, overrides)
        return
    if arguments.score is None:
        arguments.score = SCORE_THRESHOLD
    require_training_extra("detseg explain")
    from detseg.explain.run import explain_image

    if not images:
        _explain_split(arguments.run, arguments, overrides)
        return
    options = (arguments.split, overrides, arguments.score, arguments.device)
    found, adviser = explain_image(arguments.run, images[0], *options)
    for line in _lines(images[0], found, adviser, arguments.object):
        print(printable(line))


def _lines(image: Path, found: ImageMisses, adviser: Adviser, number: int | None) -> list[str]:
    num_objects = len(found.found) + len(found.misses) + len(found.ignored)
    if number is None:
        lines = [f"{image}: {len(found.misses)} of {num_objects - len(found.ignored)} objects missed"]
        misses = found.misses
    elif not 0 <= number < num_objects:
        raise ConfigError(f"--object {number}: {image} has {num_objects} objects, counted from 0")
    elif number in found.ignored:
        return [f"object {number}: is crowd or difficult, which counts neither as found nor as missed"]
    elif number in found.found:
        place = found.found[number]
        return [f"object {number}, {place.name}: found (score {place.score:.2f}, IoU {place.iou:.2f})"]
    else:
        lines, misses = [], tuple(miss for miss in found.misses if miss.index == number)
    for miss in misses:
        lines += [*miss.lines(), f"  try {adviser.setting([miss])}"]
    return lines


def _write_pictures(arguments: argparse.Namespace, images: Sequence[Path], overrides: Sequence[str]) -> None:
    if not images:
        raise ConfigError("--pictures: are of one image; name it after the run")
    others = {"--split": arguments.split is not None, "--score": arguments.score is not None}
    others |= {"settings": bool(overrides)}
    for name, given in others.items():
        if given:
            raise ConfigError(f"{name}: not with --pictures, which need the image alone; leave out")
    check_writable(arguments.pictures, "--pictures")
    from detseg.explain.pictures import write_pictures
    from detseg.explain.run import object_sizes

    paths = write_pictures(
        arguments.run,
        images[0],
        arguments.pictures,
        object_number=arguments.object,
        device=arguments.device,
        object_sizes=object_sizes(arguments.run),
    )
    for path in paths:
        print(f"written: {printable(str(path))}")


def _explain_split(checkpoint: Path, arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    from detseg.atomic_write import write_text
    from detseg.checkpoint import run_checkpoint
    from detseg.evaluation.run import report_file
    from detseg.explain.run import explain_split
    from detseg.messages import console

    split: Split = arguments.split or "val"
    checkpoint = run_checkpoint(checkpoint)
    summary = explain_split(checkpoint, split, overrides, arguments.score, arguments.device)
    if summary.causes:
        console.print(summary.table())
    for line in summary.lines():
        print(printable(line))
    file = report_file(checkpoint, split, "explain")
    content = {"checkpoint": checkpoint.name, "split": split, "overrides": list(overrides), **summary.to_dict()}
    try:
        write_text(file, json.dumps(content, indent=2))
        print(f"written: {printable(str(file))}")
    except DataError as error:
        print(printable(f"warning: {error}"))
