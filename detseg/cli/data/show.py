"""`detseg show`."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detseg.cli.tool import experiment_parser, load_data_experiment, refuse_inside
from detseg.config.load import printed
from detseg.config.schema.experiment import ExperimentConfig
from detseg.errors import ConfigError, DataError, require_training_extra
from detseg.messages import aligned, counted, printable

if TYPE_CHECKING:
    from detseg.data.augment.audit import AuditRow, AugmentationAudit
    from detseg.structures import Batch, UInt8Array
    from detseg.tasks import AnyDataset

    Drawn = list[tuple[UInt8Array, set[int], str]]
    """Pictures with the labels that each shows, and its name; "" for what is made of several images."""

_COLUMNS, _MOST_NAMED = 4, 30  # of the sheet; classes in its legend
_PAPER = (255, 255, 255)  # names of images are written on it
_MOST, _MOST_AUDITED = 200, 1_000_000  # images on a sheet: JPEG holds 65 535 rows
_AUDITED = 500  # samples that the audit looks at, if not told otherwise


def show(argv: Sequence[str]) -> None:
    """A data set → a sheet of samples: detseg show DIR | CONFIG [--split val] [--augmented] [--out sheet.jpg]"""
    what = "Draw samples of a data set with their annotations on one sheet."
    parser = experiment_parser("show", what, folders=True)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="which images (train)")
    what = "show training samples as the network sees them, and say what each step of the augmentation does to objects"
    parser.add_argument("--augmented", action="store_true", help=what)
    number = partial(_positive, most=_MOST)
    parser.add_argument(
        "--number", type=number, default=16, metavar="N", help=f"images on the sheet, at most {_MOST} (16)"
    )
    audited = f"--augmented: samples that the table of steps is made from ({_AUDITED}, or all if they are fewer)"
    parser.add_argument("--audit", type=partial(_positive, most=_MOST_AUDITED), metavar="N", help=audited)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the sheet (show_SPLIT.jpg, show_SPLIT_augmented.jpg)")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.audit and (not arguments.augmented or arguments.split != "train"):
        raise ConfigError("--audit: it is for the table of the augmentation: give it with --augmented, for train")
    out: Path = arguments.out or Path(f"show_{arguments.split}{'_augmented' if arguments.augmented else ''}.jpg")
    require_training_extra("detseg show")
    from detseg.draw import can_be_written, write_image

    if not can_be_written(out):
        raise ConfigError(f"--out {out}: expected the name of an image file, such as sheet.jpg or sheet.png")
    config, _ = load_data_experiment(arguments, needs=("outlines", "boxes", "maps"))
    if arguments.print_config:
        print(printed(config), end="")
        return
    refuse_inside(out, config)
    config, dataset = _opened(config, arguments.split)
    for line in dataset.report.lines():
        print(f"{printable(dataset.name)}: {line}")
    if not arguments.augmented:
        drawn = _raw(dataset, arguments.number)
    elif arguments.split == "train":
        drawn, audit = _augmented(config, dataset, arguments.number, arguments.audit or _AUDITED)
        print(*_audit_lines(audit, len(dataset), config.seed), sep="\n")
    else:
        drawn = _letterboxed(config, dataset, arguments.number)
        print(f"images of {arguments.split} are not augmented: they are letterboxed only")
    done = "replaced" if out.exists() else "written"
    write_image(out, _sheet(drawn, dataset))
    there = f"{counted(len(dataset), 'image')} of {arguments.split}"
    amount = f"{counted(len(drawn), 'sample')} from" if arguments.augmented else f"{len(drawn)} of"
    print(f"{done}: {printable(str(out))} ({amount} {there})")


def _positive(text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {most}, got {text!r}")
    return int(text)


def _opened(config: ExperimentConfig, split: Any) -> tuple[ExperimentConfig, AnyDataset]:
    """The settings of a training, and the split."""
    from detseg.tasks import kind_of
    from detseg.training.setup.recipe import complete

    kind = kind_of(config.model)
    train_set = kind.open_dataset(config.data, "train")
    dataset = train_set if split == "train" else kind.open_dataset(config.data, split, train_set.classes)
    return complete(config, train_set, logging.DEBUG), dataset


def _raw(dataset: AnyDataset, number: int) -> Drawn:
    """Images evenly spread over the set, with their annotations as they are stated."""
    import numpy as np

    from detseg.draw import draw_boxes, draw_semantic

    drawn: Drawn = []
    step = max(len(dataset) / number, 1)
    for index in [int(k * step) for k in range(min(number, len(dataset)))]:
        try:
            sample, stated = dataset[index], dataset.annotations(index)
        except DataError as error:
            print(f"left out: {printable(str(error))}")
            continue
        names = dataset.classes.names
        if sample.semantic is not None:
            picture, labels = draw_semantic(sample.image, sample.semantic, names), np.unique(sample.semantic).tolist()
        else:
            several = len(names) > 1  # the legend names the only class
            picture = draw_boxes(sample.image, stated.boxes, stated.labels, names, masks=stated.masks, named=several)
            labels = stated.labels.tolist()
        drawn.append((picture, set(labels), dataset.packed.path(index)))
    if not drawn:
        raise DataError(f"{dataset.name}: none of the images could be read")
    return drawn


def _augmented(
    config: ExperimentConfig, dataset: AnyDataset, number: int, num_audited: int
) -> tuple[Drawn, AugmentationAudit]:
    """The first samples of the training's first epoch, and the audit of these or more."""
    from detseg.data.augment.audit import AugmentationAudit
    from detseg.data.loading.examples import TrainDataset
    from detseg.training.setup.build import build_data

    data = config.data.model_copy(update={"num_workers": 0})
    if data.batch_size == "auto":
        data = data.model_copy(update={"batch_size": 16})
    loader: Any = build_data(config.model_copy(update={"data": data}), dataset, dataset).train_dataloader()
    examples = loader.dataset
    assert isinstance(examples, TrainDataset)
    audit, drawn = AugmentationAudit(examples.config, data.input_hw), list[tuple[Any, set[int], str]]()
    examples.observe(audit)
    for batch in loader:
        drawn += _drawn(config, batch, dataset, number - len(drawn))
        if audit.num_images >= num_audited and len(drawn) >= number:
            break
    return drawn, audit


def _letterboxed(config: ExperimentConfig, dataset: AnyDataset, number: int) -> Drawn:
    """Images as validation sees them."""
    from detseg.data.loading.loader import eval_loader

    first = dataset.subset(range(min(number, len(dataset))))
    loader = eval_loader(first, input_hw=config.data.input_hw, batch_size=4, num_workers=0)
    whole = (replace(batch, letterboxes=[]) for batch in loader)  # with the padding, which the network sees
    drawn = [entry for batch in whole for entry in _drawn(config, batch, dataset, len(batch))]
    return [(picture, labels, first.packed.path(i)) for i, (picture, labels, _) in enumerate(drawn)]


def _drawn(config: ExperimentConfig, batch: Batch, dataset: AnyDataset, limit: int) -> Drawn:
    from detseg.tasks import kind_of

    maps = [target.labels for target in batch.targets] if batch.semantic is None else batch.semantic
    pictures = kind_of(config.model).draw_targets(batch, dataset.classes, limit)
    return [(picture, set(labels.ravel().tolist()), "") for picture, labels in zip(pictures, maps, strict=False)]


def _sheet(drawn: Drawn, dataset: AnyDataset) -> UInt8Array:
    from detseg.draw import class_legend, contact_sheet, draw_legend

    legend = class_legend(dataset.classes.names, set[int]().union(*(labels for _, labels, _ in drawn)))
    pictures = [draw_legend(picture, [(name, "", _PAPER)]) if name else picture for picture, _, name in drawn]
    return contact_sheet(pictures, _COLUMNS, legend=legend[:_MOST_NAMED])


_HEADER = ("step", "images", "", "objects", "dropped", "", "area kept", "< 1 px", "< min_box_size")


def _audit_lines(audit: AugmentationAudit, num_in_set: int, seed: int) -> list[str]:
    num = audit.num_images
    part = "the first epoch" if num >= num_in_set else f"the first {num} samples of the first epoch, of {num_in_set}"
    table = [_HEADER, *(_cells(name, audit.row(name), num) for name in audit.names)]
    return [f"augmentation, as the training of seed {seed} applies it in {part}:", *aligned(table)]


def _cells(name: str, row: AuditRow, num_images: int) -> tuple[str, ...]:
    share = f"{row.images / max(num_images, 1):.0%}"
    if not row.objects:
        return (name, str(row.images), share, *[""] * (len(_HEADER) - 3))
    kept = "" if math.isnan(row.fraction_kept) or not row.area_kept else f"{row.fraction_kept:.1%}"
    dropped = f"{row.dropped / row.objects:.1%}"
    small = (str(row.below_pixel), str(row.below_min))
    return (name, str(row.images), share, str(row.objects), str(row.dropped), dropped, kept, *small)
