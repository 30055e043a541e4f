"""`detseg split`."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import experiment_parser, load_data_experiment
from detseg.config.load import plain_to_yaml, printed
from detseg.config.schema.data import CustomDataConfig
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError, DataError, require_training_extra
from detseg.messages import aligned, counted, printable

if TYPE_CHECKING:
    from detseg.data.split_files import Members, Source
    from detseg.structures import IntArray


def split(argv: Sequence[str]) -> None:
    """A data set → lists of its parts and a configuration: detseg split DIR --val 0.2 [--test 0.1] [--folds 5]"""
    parser = experiment_parser(
        "split",
        "Divide a data set into parts with the classes in proportion, and write lists of them as its format has "
        "splits; images stay where they are, no file is changed. A test split stays, unless --test is given.",
        folders=True,
    )
    parser.add_argument("--val", type=_fraction, metavar="X", help="fraction of the images to validate on (0.2)")
    parser.add_argument("--test", type=_fraction, metavar="X", help="fraction to test on (none)")
    parser.add_argument("--folds", type=_folds, metavar="K", help="K parts, each of which validates once")
    group = "what stays together: near-duplicates, none, or a regular expression whose match in a path names the group"
    parser.add_argument("--group", default="near-duplicates", help=f"{group} (near-duplicates)")
    parser.add_argument("--seed", type=_seed, default=0, help="another seed gives other parts (0)")
    parser.add_argument("--out", type=Path, metavar="OUT", help="where to write (splits in the folder of the data)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.folds and arguments.val:
        raise ConfigError("--val: with --folds each of the K parts validates once; leave one of them out")
    fractions = _fractions(arguments)
    require_training_extra("detseg split")
    config, splits = load_data_experiment(arguments)
    if arguments.print_config:
        print(printed(config), end="")
        return
    out = _place(config, arguments.out)
    sources = _sources(config, [name for name in splits if name != "test" or arguments.test])
    members = _members(sources)
    parts = _divide(sources, members, fractions, arguments)
    _write(config, sources, members, parts, list(fractions), out)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def _folds(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 2 to 100, got {text!r}")
    return int(text)


def _fractions(arguments: argparse.Namespace) -> dict[str, float]:
    """The parts and their fractions."""
    test = {"test": arguments.test} if arguments.test else {}
    rest = 1 - (arguments.test or 0)
    if arguments.folds:
        return {f"fold{k}": rest / arguments.folds for k in range(1, arguments.folds + 1)} | test
    val = arguments.val or 0.2
    if val >= rest:
        raise ConfigError(f"--val, --test: {val:g} and {arguments.test:g} leave nothing to train on; lower them")
    return {"train": rest - val, "val": val, **test}


def _place(config: ExperimentConfig, out: Path | None) -> Path:
    """The folder to write to; an error if the layout is not divided, or files of something else lie there."""
    from detseg.data.images.tree import has_parts
    from detseg.data.split_files import DIVIDED

    if config.data.name not in DIVIDED or isinstance(config.data, CustomDataConfig):
        raise ConfigError(f"data.name: {config.data.name} is not divided into files, but {', '.join(DIVIDED)} are")
    out = out or config.data.root / "splits"
    of_lists = config.data.name in ("yolo", "labelme", "mask_folder")
    if of_lists and not out.resolve().is_relative_to(config.data.root.resolve()):
        raise ConfigError(f"--out {out}: lists of {config.data.name} lie in the folder of the data, {config.data.root}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not has_parts(os.listdir(out)))):
        raise ConfigError(f"{out}: holds other files than those of detseg split; choose a new folder with --out")
    return out


def _sources(config: ExperimentConfig, splits: Sequence[str]) -> list[Source]:
    """The splits that can be opened, whole; a split other than the first that cannot is said."""
    from detseg.data.build import open_sources

    sources, errors = open_sources(config, splits)
    for name, message in errors.items():
        print(printable(f"{name}: not opened: {message}"))
    for source in sources:
        for line in source.dataset.report.lines():
            print(printable(f"{source.dataset.name}: {line}"))
    return sources


def _members(sources: Sequence[Source]) -> Members:
    """All images, each file once."""
    found: dict[Path, tuple[int, int]] = {}
    for number, source in enumerate(sources):
        for index in range(len(source.dataset)):
            found.setdefault(source.dataset.path(index), (number, index))
    return list(found.values())


def _divide(
    sources: Sequence[Source], members: Members, fractions: dict[str, float], arguments: argparse.Namespace
) -> IntArray:
    """The part of each image."""
    import numpy as np

    from detseg.data.splits import class_counts, image_groups, stratified_parts

    counts = [class_counts(source.dataset) for source in sources]
    paths = [sources[number].dataset.path(index) for number, index in members]
    if len(paths) < len(fractions):
        raise DataError(f"{counted(len(paths), 'image')} cannot fill {len(fractions)} parts; ask for fewer")
    groups, kept = image_groups(paths, arguments.group, "--group")
    chosen = np.stack([counts[number][index] for number, index in members])
    parts = stratified_parts(chosen, list(fractions.values()), groups, arguments.seed)
    print(f"{counted(len(members), 'image')}, seed {arguments.seed}{kept}")
    if empty := [name for number, name in enumerate(fractions) if not (parts == number).any()]:
        what = f"{counted(len(members), 'image')} in {counted(len(set(groups.tolist())), 'group')}"
        raise DataError(f"--group {arguments.group}: {what} leave {', '.join(empty)} empty; take --group none")
    _print_table(chosen, parts, list(fractions), sources[0].dataset.classes.names)
    return parts


def _print_table(counts: IntArray, parts: IntArray, names: Sequence[str], classes: Sequence[str]) -> None:
    rows = [["", *names], ["images", *(str(int((parts == k).sum())) for k in range(len(names)))]]
    shown = [(label, name) for label, name in enumerate(classes) if counts[:, label].any()]
    for label, name in shown:
        column = [counts[parts == k, label] for k in range(len(names))]
        rows.append([printable(name), *(f"{int(own.sum())} in {int((own > 0).sum())}" for own in column)])
    for line in aligned(rows):
        print(f"  {line}")
    absent = len(classes) - len(shown)
    print(f"  (objects, in so many images{f'; {absent} classes have none' if absent else ''})")


def _write(
    config: ExperimentConfig,
    sources: Sequence[Source],
    members: Members,
    parts: IntArray,
    names: Sequence[str],
    out: Path,
) -> None:
    """Write the files of all parts and the configurations; a DataError if one exists already."""
    from detseg.atomic_write import write_text
    from detseg.data.split_files import data_yaml, part_files

    settings = config.model_dump(mode="json", exclude_defaults=True)
    data, root = settings["data"], Path(settings["data"]["root"])
    own = {name: [m for m, part in zip(members, parts, strict=True) if part == k] for k, name in enumerate(names)}
    experiments = {"split": {name: name for name in names}}
    if folds := [name for name in names if name.startswith("fold")]:
        for name in folds:
            own[f"{name}_train"] = [m for other in folds if other != name for m in own[other]]
        own |= {f"{name}_val": own.pop(name) for name in folds}
        test = {"test": "test"} if "test" in names else {}
        experiments = {name: {"train": f"{name}_train", "val": f"{name}_val", **test} for name in folds}
    classes = sources[0].dataset.classes.names
    of_objects = data["name"] in ("voc", "labelme") and not hasattr(sources[0].dataset, "masks")
    if "classes" not in data and (of_objects or data.get("mask_per_class")):
        data["classes"] = list(classes)  # they are those of the training part otherwise, which may lack one
    of_parts, files = part_files(data["name"], root, sources, own, out)
    configs = dict[Path, str]()
    for name, splits in experiments.items():
        chosen: dict[str, Any] = {key: value for key, value in data.items() if key != "val_fraction"}
        for split_name, part in splits.items():
            chosen |= {key.format(split_name): value for key, value in of_parts[part].items()}
        configs[out / f"{name}.yaml"] = plain_to_yaml(settings | {"data": chosen})
        if data["name"] == "yolo" and config.data.classes is None:
            lists = {split_name: chosen[f"{split_name}_split"] for split_name in splits}
            file = out / ("data.yaml" if name == "split" else f"data_{name}.yaml")
            files[file] = data_yaml(root, classes, lists)
    if existing := [path for path in [*configs, *files] if path.exists()]:
        raise DataError(f"{existing[0]}: exists already; remove it, or choose another place with --out")
    for path, text in (files | configs).items():
        write_text(path, text)
    print(*(printable(f"written: {path}") for path in [*files, *configs]), sep="\n")
    print(printable(f"next: detseg train {shlex.quote(str(next(iter(configs))))}"))
