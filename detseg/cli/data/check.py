"""`detseg check`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import experiment_parser, load_data_experiment, refuse_inside
from detseg.config.load import printed
from detseg.config.schema.experiment import ExperimentConfig
from detseg.config.schema.model import CustomModelConfig, MaskRcnnConfig
from detseg.errors import ConfigError, DataError, DetsegError, MissingSplitError, require_training_extra
from detseg.messages import counted, printable

if TYPE_CHECKING:
    from detseg.data.annotations.issues import DataIssue
    from detseg.data.annotations.model import PackedAnnotations
    from detseg.data.annotations.report import Example, Finding
    from detseg.data.checks.facts import Expected, SplitFacts
    from detseg.data.checks.repair import Changes
    from detseg.data.checks.run import Checked
    from detseg.structures import UInt8Array

_MOST_CLASSES, _MOST_PLACES = 20, 3  # in the terminal
# How files begin that this command has written, and may replace.
_PAGE_BEGIN = '<!doctype html>\n<html lang="en"><!-- detseg check -->'
_JSON_BEGIN = '{\n "version": 1,\n "severity": "'
_WRITTEN_AS = {"shapes": "coco"}  # by --fix; other layouts as what they are
_LONG = 60  # letters from which on a detail is said once, and each place has a line
_PICTURE_SIDE = 420  # pixels of the pictures in the page, at most
_CLOSE = 0.25  # of a side of the image: what is smaller is shown from nearby
_MARGIN, _LEAST_VIEW = 1.5, 120  # around it, in its own sides; pixels of the part that is shown, at least


def check(argv: Sequence[str]) -> int:
    """A data set → what is wrong with it, and what to do about it: detseg check DIR [--html page.html] [--fix OUT]

    Returns the exit code: 0 clean, 1 warnings, 2 errors.
    """
    what = "Say what a data set is, what is wrong with it and what to do about it."
    parser = experiment_parser("check", f"{what} Exit code: 0 clean, 1 warnings, 2 errors.", folders=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found to this file")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with pictures of the worst of each kind"
    )
    parser.add_argument("--fix", type=Path, metavar="OUT", help="write a repaired copy to this new folder")
    parser.add_argument(
        "--examples", type=int, metavar="N", help="the most places of each issue in --json (all, up to 10000)"
    )
    parser.add_argument("--fast", action="store_true", help="look at the annotations only: no image is opened")
    arguments = parser.parse_intermixed_args(argv)
    _refuse_arguments(arguments)
    warnings.filterwarnings("ignore", module="PIL")  # of odd images, of which reports say what matters
    require_training_extra("detseg check")
    target = str(arguments.config)
    config, names = load_data_experiment(arguments)
    if arguments.print_config:
        print(printed(config), end="")
        return 0
    from detseg.data.build import open_as_stated
    from detseg.data.checks.run import check_splits

    if arguments.fix:
        refuse_inside(arguments.fix, config)
    datasets, failed = open_as_stated(config, names)
    if arguments.fix:
        _refuse_drawn(datasets)
    expected = _expected(config, datasets)
    checked = check_splits(datasets, expected, open_images=not arguments.fast)
    for split, error in failed.items():
        _report_failure(checked, split, error)
    repaired = _repaired(checked)
    is_offered = not arguments.fix and isinstance(repaired, tuple) and bool(repaired[1].rows)
    _print(checked, config, target, _next_steps(checked, target, arguments.html is not None, is_offered))
    if arguments.json:
        from detseg.atomic_write import write_text

        write_text(arguments.json, json.dumps(checked.plain(arguments.examples), indent=1, ensure_ascii=False) + "\n")
        print(f"written: {printable(str(arguments.json))}")
    if arguments.html:
        from detseg.data.checks.page import write_page

        write_page(arguments.html, checked, target, _Pictures(checked).draw)
        print(f"written: {printable(str(arguments.html))}")
    if arguments.fix:
        _fix(checked, repaired, config.data.name, arguments.fix)
    return int(checked.severity)


def _refuse_arguments(arguments: argparse.Namespace) -> None:
    if arguments.fix and arguments.fast:
        raise ConfigError("--fix needs the images, which --fast does not open: leave one of them out")
    if arguments.fix and arguments.fix.exists() and (not arguments.fix.is_dir() or any(arguments.fix.iterdir())):
        raise ConfigError(f"--fix {arguments.fix}: there is something already; choose a new or empty folder")
    if arguments.examples is not None and arguments.examples < 0:
        raise ConfigError(f"--examples {arguments.examples}: expected 0 or more")
    if arguments.examples is not None and not arguments.json:
        raise ConfigError(f"--examples {arguments.examples}: is for --json FILE, which is not there; add it")
    if arguments.json and arguments.html and os.path.abspath(arguments.json) == os.path.abspath(arguments.html):
        raise ConfigError(f"--json and --html: both are {arguments.json}; choose two names")
    _refuse_others("--json", arguments.json, _JSON_BEGIN)
    _refuse_others("--html", arguments.html, _PAGE_BEGIN)


def _refuse_others(option: str, path: Path | None, begin: str) -> None:
    """A ConfigError if there is a file which does not begin as what the option writes."""
    if path is None or not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(begin)) == begin.encode():
                return
    raise ConfigError(f"{option} {path}: exists, and detseg check has not written it; choose another name")


def _refuse_drawn(datasets: dict[str, Any]) -> None:
    from detseg.data.datasets.segmentation import DrawnMasks

    for dataset in datasets.values():
        if isinstance(getattr(dataset, "masks", None), DrawnMasks):
            objects = f"the objects that these label maps are drawn from: detseg check {dataset.root} --fix OUT"
            raise ConfigError(f"--fix repairs {objects}")


def _report_failure(checked: Checked, split: str, error: DataError) -> None:
    from detseg.data.annotations.issues import DataIssue
    from detseg.data.annotations.report import DataReport, Example
    from detseg.data.checks.run import TOGETHER

    report: DataReport = checked.reports[TOGETHER]
    if split == "test" and isinstance(error, MissingSplitError):  # there need not be one
        report.note(f"test: not checked: {error}")
    else:
        report.add(DataIssue.CANNOT_OPEN, Example(split, detail=str(error)))


def _expected(config: ExperimentConfig, datasets: dict[str, Any]) -> Expected:
    """What the model of the settings asks of the data."""
    import numpy as np

    from detseg.config.schema.model import AnchorHeadConfig, FasterRcnnConfig, SegmentationLossConfig, YoloConfig
    from detseg.data.checks.facts import Expected
    from detseg.factory import build_model
    from detseg.models.layers import Normalize
    from detseg.tasks import kind_of
    from detseg.training.setup.recipe import complete

    config = complete(config, datasets.get("train"), logging.DEBUG)
    model, anchors, mean, std = config.model, None, None, None
    of_evaluation = config.data.input_hw, config.evaluation.max_detections
    if isinstance(model, CustomModelConfig):
        return Expected(*of_evaluation)
    # Weights of classes, which may have to be counted first, say nothing about what data fits.
    plain = {"loss": SegmentationLossConfig()} if hasattr(model, "loss") else {"class_weights": None}
    model = model.model_copy(update=plain)
    if isinstance(model, YoloConfig) and isinstance(model.head, AnchorHeadConfig):
        if (train := datasets.get("train")) is not None:
            with suppress(DataError):  # too few boxes to fit anchors to, which other checks say
                model = kind_of(model).settings_from_data(config.model_copy(update={"model": model}), train).model
        assert isinstance(model, YoloConfig)
        assert isinstance(model.head, AnchorHeadConfig)
        if model.head.anchors is None:
            return Expected(*of_evaluation)
        anchors = np.array(model.head.anchors)
    elif isinstance(model, FasterRcnnConfig | MaskRcnnConfig):
        sides = [side for level in model.rpn.anchor_sizes or [[2.0**k] for k in range(5, 10)] for side in level]
        ratios = np.sqrt(model.rpn.aspect_ratios or (0.5, 1.0, 2.0))
        anchors = np.array([[side / ratio, side * ratio] for side in sides for ratio in ratios])
    built = build_model(model, next(iter(datasets.values())).classes, load_pretrained=False)
    for part in built.modules():
        if isinstance(part, Normalize) and not part.is_identity:
            mean, std = tuple(part.mean.flatten().tolist()), tuple(part.std.flatten().tolist())
    return Expected(*of_evaluation, anchors, mean, std)


def _print(checked: Checked, config: ExperimentConfig, target: str, steps: Sequence[str]) -> None:
    from detseg.data.annotations.issues import Severity
    from detseg.data.checks.sizes import SIZE_NAMES

    numbers = checked.numbers
    parts = [f"{name} {counted(split.images, 'image')}" for name, split in numbers.items()]
    objects = sum(split.objects for split in numbers.values())
    kind = counted(objects, "object") if objects or not checked.of_maps else "label maps"
    classes = checked.class_names
    of = f"{len(classes)} {'class' if len(classes) == 1 else 'classes'}"
    print(f"{printable(target)}: {config.data.name}; {', '.join(parts)}; {kind} of {of}")
    counts = {name: dict(zip(classes, split.class_counts, strict=False)) for name, split in numbers.items()}
    for name in classes[:_MOST_CLASSES]:
        row = ", ".join(f"{split} {own.get(name, 0)}" for split, own in counts.items())
        print(f"  {printable(name)}: {row}")
    if len(classes) > _MOST_CLASSES:
        print(f"  and {len(classes) - _MOST_CLASSES} more")
    for name, report in checked.reports.items():
        for line in report.notes:
            print(f"  {name}: {printable(line)}" if name in numbers else f"  {printable(line)}")
    for name, split in numbers.items():
        if split.objects:
            sizes = ", ".join(f"{size}: {num}" for size, num in zip(SIZE_NAMES, split.sizes_in_input, strict=True))
            side = f"{checked.expected.input_hw[1]} x {checked.expected.input_hw[0]}"
            print(f"  {name}: objects by size in pixels of the input of {side}: {sizes}")
        if split.best_recall_of_anchors is not None:
            print(f"  {name}: best recall that the anchors allow: {split.best_recall_of_anchors:.3f}")
    for name, finding in checked.findings():
        _print_finding(name if name in numbers else "", finding)
    kinds = [finding.issue.severity for _, finding in checked.findings()]
    amounts = [(kinds.count(Severity.ERROR), "error"), (kinds.count(Severity.WARNING), "warning")]
    found = " and ".join(counted(number, name) for number, name in amounts if number)
    print(f"{found or 'nothing is wrong'}{'; next:' if steps else ''}")
    for line in steps:
        print(f"  {line}")


def _print_finding(split: str, finding: Finding) -> None:
    where = f"{split}: " if split else ""
    print(f"{finding.issue.severity.name.lower()}: {where}{finding.issue.text}: {finding.amount}")
    places, said = list[str](), ""
    for place in finding.examples[:_MOST_PLACES]:  # a sentence that holds for all of them is said once
        detail = "" if place.detail == said and len(said) > _LONG else place.detail
        places.append(printable(place.where) + (f" ({printable(detail)})" if detail else ""))
        said = place.detail
    more = ", ..." if len(finding.examples) > _MOST_PLACES else ""
    between = ",\n    " if any(len(place.detail) > _LONG for place in finding.examples[:_MOST_PLACES]) else ", "
    print(f"    {between.join(places)}{more}")
    if finding.issue.severity:
        print(f"    fix: {finding.issue.fix}")


def _next_steps(checked: Checked, target: str, has_page: bool, is_repairable: bool) -> list[str]:
    name = shlex.quote(target)
    steps = [] if checked.images_opened else [f"detseg check {name}    (looks at the images, too)"]
    if not has_page:
        steps.append(f"detseg check {name} --html check.html    (pictures of the worst)")
    if is_repairable:
        steps.append(f"detseg check {name} --fix REPAIRED    (a repaired copy)")
    if checked.severity < 2:
        steps.append(f"detseg train {name}" if not Path(target).is_dir() else f"detseg config new {name}")
    return steps


def _repaired(checked: Checked) -> tuple[Mapping[str, Any], Changes] | DetsegError:
    """The repaired splits and the changes, or why there can be none. Nothing is written: --fix is offered only if it
    would change something."""
    from detseg.data.checks.repair import REPAIRED, Changes, repair

    may_be = checked.images_opened and any(finding.issue in REPAIRED for _, finding in checked.findings())
    if not may_be:
        return {}, Changes()
    try:
        _refuse_drawn({split.name: split.dataset for split in checked.splits})
        return repair(checked)
    except (ConfigError, DataError) as error:
        return error


def _fix(checked: Checked, repaired: tuple[Mapping[str, Any], Changes] | DetsegError, layout: str, out: Path) -> None:
    """Write a repaired copy and the list of changes, and say what was done and what was not."""
    from detseg.data.annotations.issues import DataIssue
    from detseg.data.checks.repair import CHANGES_FILE, report_lines, unrepaired
    from detseg.data.formats.convert import WRITERS, unread_values, write_mask_folder

    if isinstance(repaired, DetsegError):
        raise repaired
    copies, changes = repaired
    if changes.rows:
        write = write_mask_folder if checked.of_maps else WRITERS[_WRITTEN_AS.get(layout, layout)]
        lost = write(copies, out, False)
        changes.write(out / CHANGES_FILE)
        amount = f"{counted(changes.numbers.total(), 'change')} in {CHANGES_FILE}"
        print(f"written: a repaired copy in {printable(str(out))}; {amount}")
        print(*(f"  {line}" for line in report_lines(changes)), sep="\n")
        for line in [*lost, *unread_values(split.dataset for split in checked.splits)]:
            print(f"  not kept: {printable(line)}")
        for name, finding in checked.findings():
            if finding.issue == DataIssue.UNLISTED:
                print(f"  not kept: {name}: {finding.issue.text}: {finding.count}")
    else:
        print("no copy is written: --fix repairs nothing of what was found")
    for name, issue, number in unrepaired(checked, changes):
        print(f"  not repaired: {name}: {issue.text}: {number}")
    if changes.rows:
        print(f"next:\n  detseg check {printable(shlex.quote(str(out)))}")


class _Pictures:
    """Pictures of places for the page: the objects at fault, from nearby where they are small."""

    def __init__(self, checked: Checked) -> None:
        self._splits = {split.name: split for split in checked.splits}

    def draw(self, split: str, issue: DataIssue, place: Example) -> list[bytes]:
        """The image of the place, and the one beside it, as JPEG files; none where they cannot be read."""
        from detseg.data.annotations.issues import DataIssue
        from detseg.data.annotations.report import Example

        if place.image is None or split not in self._splits:
            return []
        shown = [(self._splits[split], place)]
        if place.other is not None:
            shown.append((self._splits[place.other[0]], Example("", place.other[1])))
        with_masks = issue in (
            *(DataIssue.ROW_MAJOR, DataIssue.FILLED_HOLES, DataIssue.BOX_NOT_OF_MASK, DataIssue.AREA_NOT_OF_MASK),
        )
        is_relative = issue is DataIssue.RELATIVE
        return [data for facts, where in shown for data in self._draw(facts, where, with_masks, is_relative)]

    def _draw(self, split: SplitFacts, place: Example, with_masks: bool, is_relative: bool) -> list[bytes]:
        import cv2
        import numpy as np

        from detseg.data.images.read import read_image
        from detseg.draw import class_legend, draw_legend, draw_semantic

        assert place.image is not None
        names, legend = split.dataset.classes.names, list[tuple[str, str, tuple[int, int, int]]]()
        try:
            image = read_image(split.dataset.path(place.image), split.dataset.value_range)
        except DataError:
            return []
        packed = split.objects
        try:
            if packed is None:
                labels = split.dataset[place.image].semantic
                assert labels is not None
                picture, legend = draw_semantic(image, labels, names), class_legend(names, np.unique(labels).tolist())
            else:
                picture = _draw_objects(packed, names, image, place, with_masks, is_relative)
        except DataError:
            picture = image
        scale = _PICTURE_SIDE / max(picture.shape[:2])
        if scale < 1:
            size = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        picture = draw_legend(picture, legend)
        written, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        return [data.tobytes()] if written else []


def _draw_objects(
    packed: PackedAnnotations,
    names: Sequence[str],
    image: UInt8Array,
    place: Example,
    with_masks: bool,
    is_relative: bool,
) -> UInt8Array:
    """The objects of a place, all of an image if it names none; with their masks, or from nearby if they are small;
    relative boxes where they are meant."""
    import numpy as np

    from detseg.draw import draw_boxes

    assert place.image is not None
    begin, end = packed.offsets[place.image : place.image + 2].tolist()
    inside = np.array(place.rows or range(end - begin), dtype=np.int64)
    scale = np.array(image.shape[1::-1] * 2) if is_relative else 1.0
    boxes, labels = _drawable(packed.boxes[begin + inside] * scale, image.shape[:2]), packed.labels[begin + inside]
    if with_masks and packed.hw(place.image) == image.shape[:2]:
        drawn = np.zeros(len(packed.labels), dtype=np.bool_)
        drawn[begin + inside] = True
        chosen = packed.keep_objects(drawn).image(place.image).masks  # others may have none
        return draw_boxes(image, boxes, labels, names, masks=chosen, named=len(names) > 1)
    top, left, bottom, right = _view(boxes if place.rows else boxes[:0], image.shape[:2])
    part = np.ascontiguousarray(image[top:bottom, left:right])
    return draw_boxes(part, boxes - np.array([left, top, left, top]), labels, names, named=len(names) > 1)


def _drawable(boxes: Any, hw: tuple[int, ...]) -> Any:
    """Boxes with ordered corners, of at least a pixel, near enough to the image to be drawn."""
    import numpy as np

    low = np.minimum(boxes[:, :2], boxes[:, 2:]).clip(-1, np.array([hw[1], hw[0]]) - 1)
    high = np.maximum(np.maximum(boxes[:, :2], boxes[:, 2:]).clip(0, [hw[1] + 1, hw[0] + 1]), low + 1)
    return np.concatenate([low, high], axis=1)


def _view(boxes: Any, hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the part of an image to show: around the first box if it is small, else all."""
    if not len(boxes):
        return 0, 0, hw[0], hw[1]
    left, top, right, bottom = boxes[0].tolist()
    side = max(right - left, bottom - top)
    if side > _CLOSE * max(hw):
        return 0, 0, hw[0], hw[1]
    half = max(side * (0.5 + _MARGIN), _LEAST_VIEW / 2)
    x, y = (left + right) / 2, (top + bottom) / 2
    return (int(max(y - half, 0)), int(max(x - half, 0)), int(min(y + half + 1, hw[0])), int(min(x + half + 1, hw[1])))
