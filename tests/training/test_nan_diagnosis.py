"""Steps whose numbers are not finite because of one known sample: what the failing process finds out about them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detseg.config.schema.experiment import AdamWConfig
from detseg.errors import DetsegError
from detseg.factory import build_model
from detseg.models.interface import LossTerms
from detseg.ops.processes import shared_normaliser
from detseg.structures import Batch, BoxTargets
from detseg.tasks import kind_of
from detseg.training.nan import StepGuard
from detseg.training.setup.build import build_data, open_data
from detseg.training.task import Task
from tests.forked import run_together
from tests.tiny import CLASSES, tiny_config, write_colors, write_config
from tests.training.stub import SILENT, OneWeight, batch_of, fit, task_of

pytestmark = pytest.mark.filterwarnings("ignore")
YELLOW = CLASSES.index("yellow")
ODD_ONE = 5
"""Position of the only image with a yellow object."""


def batch_with(*greys: int, first_index: int = 0) -> Batch:
    """A batch of images of one grey value each, as ``batch_of`` makes one."""
    parts = [batch_of(grey) for grey in greys]
    return replace(
        parts[0],
        images=torch.cat([part.images for part in parts]),
        targets=[target for part in parts for target in part.targets],
        indices=list(range(first_index, first_index + len(greys))),
    )


class Judged(OneWeight):
    """Adds a term that a function of the images' mean grey values, (B,) in 0 to 255, and the weight gives."""

    def __init__(self, term: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.term = term
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.seen: list[tuple[int, float]] = []

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        self.norm(images)
        assert self.norm.num_batches_tracked is not None
        self.seen.append((int(self.norm.num_batches_tracked), float(torch.rand(1))))
        greys = (images * 255).mean(dim=(1, 2, 3)).round()
        return super().losses(images, targets) | {"term": self.term(greys, self.weight)}


def nan_for_seven(greys: Tensor, weight: Tensor) -> Tensor:
    return weight * torch.where(greys == 7, float("nan"), 1.0).mean()


def stopped(task: Task, batch: Batch, folder: Path, **options: Any) -> tuple[str, Path]:
    """The error of a training on a batch, and the folder of the diagnosis."""
    with pytest.raises(DetsegError) as caught:
        fit(task, [batch], folder, **options)
    (found,) = folder.glob("nan_*")
    return str(caught.value), found


@pytest.mark.parametrize(
    ("term", "verdict", "images"),
    [
        (nan_for_seven, "(term nan, first 0.2196, second 0.2196); at fault: sample 1: term nan; ", [1]),
        # The slope of a root is infinite at 0.
        (
            lambda greys, weight: (weight * (greys != 7)).sqrt().mean(),
            "at fault: sample 1: gradient of term; gradient not finite in 1 of 1 parameters, first weight; ",
            [1],
        ),
        (
            lambda greys, weight: weight * (float("inf") if len(greys) > 1 else 1.0),
            "(term inf, first 0.2196, second 0.2196); no sample is at fault alone: samples 0, 1, 2; ",
            [],
        ),
        (
            lambda greys, weight: weight * float("nan"),
            "; all 3 samples are at fault: it is not the data; ",
            [0, 1, 2],
        ),
    ],
    ids=["term", "gradient", "together", "all"],
)
def test_the_line_names_samples_and_terms_and_their_images_are_left(
    term: Callable[[Tensor, Tensor], Tensor], verdict: str, images: list[int], tmp_path: Path
) -> None:
    message, folder = stopped(task_of(Judged(term)), batch_with(129, 7, 200), tmp_path)
    assert verdict in message
    assert len(message.splitlines()) == 1
    assert sorted(path.name for path in folder.glob("*.png")) == [f"batch00000_sample{i:07d}.png" for i in images]


def test_each_sample_has_seed_buffers_and_weights_of_the_step(tmp_path: Path) -> None:
    model = Judged(nan_for_seven)
    modes = [module.training for module in model.modules()]
    task = task_of(model, guard=StepGuard("skip", 3))
    batches = [batch_with(9, 129), batch_with(129, 7, 200), batch_with(7, 7), batch_with(9, 9)]
    fit(task, batches, tmp_path, limit_val_batches=0)
    first, step, *alone = model.seen[:5]
    assert first[0] == 1
    assert alone == [step] * 3
    assert step[0] == 2
    # A second skipped step is not looked into; then the statistics are those of a run without both.
    assert [number for number, _ in model.seen[5:7]] == [2, 2]
    assert [module.training for module in model.modules()] == modes
    second = json.loads((tmp_path / "nan_epoch001_step00003" / "diagnosis.json").read_text())
    assert second["samples_alone"] == []
    assert second["verdict"] == "samples 0, 1"


def test_samples_are_run_in_the_precision_of_the_step(tmp_path: Path) -> None:
    def only_in_bfloat16(greys: Tensor, weight: Tensor) -> Tensor:
        lowered = (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16
        return nan_for_seven(greys, weight) if lowered else weight

    message, _ = stopped(task_of(Judged(only_in_bfloat16)), batch_with(129, 7), tmp_path, precision="bf16-mixed")
    assert "; at fault: sample 1: term nan; " in message


def test_weights_that_were_bad_before_the_step_are_named(tmp_path: Path) -> None:
    task = task_of(OneWeight(float("inf")), optimizer=AdamWConfig())
    message, _ = stopped(task, batch_with(129, 7), tmp_path)
    assert "; 1 weights were not finite before the step, first weight: no sample is at fault; " in message


def test_a_sample_too_small_for_batch_normalisation_goes_by_the_running_statistics(tmp_path: Path) -> None:
    class Pooled(Judged):
        def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
            return super().losses(images.mean(dim=(2, 3), keepdim=True), targets)

    message, _ = stopped(task_of(Pooled(nan_for_seven)), batch_with(129, 7, 200), tmp_path)
    assert "; at fault: sample 1: term nan; " in message


def test_a_diagnosis_that_fails_hides_nothing(tmp_path: Path) -> None:
    class Fussy(Judged):
        def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
            if len(targets) == 1:
                raise RuntimeError("not with\none image")
            return super().losses(images, targets)

    message, _ = stopped(task_of(Fussy(nan_for_seven)), batch_with(129, 7), tmp_path)
    assert "(term nan, " in message
    assert "; running the samples alone failed (RuntimeError: not with one image); samples 0, 1; " in message


class Shared(Judged):
    """Its losses are normalised by the counts of all processes, for which each waits."""

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        normaliser = shared_normaliser(len(targets), self.training, images)
        return {name: term / normaliser for name, term in super().losses(images, targets).items()}


def two_processes(folder: Path) -> str:
    """The error of each of two processes with different numbers of samples, of which the second has the bad one."""
    batch = batch_with(129, 200) if os.environ["RANK"] == "0" else batch_with(100, 50, 7, first_index=2)
    with pytest.raises(DetsegError) as caught:
        fit(task_of(Shared(nan_for_seven)), [batch], folder, strategy="ddp", devices=2, use_distributed_sampler=False)
    return str(caught.value)


def test_two_processes_say_the_same_of_the_sample_that_one_has(tmp_path: Path) -> None:
    first, second = run_together(two_processes, 2, tmp_path)
    assert first == second
    assert "; at fault: sample 4: term nan; " in first
    (folder,) = tmp_path.glob("nan_*")
    assert sorted(path.name for path in folder.iterdir()) == ["batch00000_sample0000004.png", "diagnosis.json"]
    assert json.loads((folder / "diagnosis.json").read_text())["process"] == 1


class Allergic(nn.Module):
    """A detector whose last loss term is NaN in a batch with a yellow object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.whole: Any = model

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        terms: LossTerms = self.whole.losses(images, targets)
        name = list(terms)[-1]
        has_yellow = any(bool((target.labels == YELLOW).any()) for target in targets)
        return terms | {name: terms[name] * float("nan")} if has_yellow else terms


def one_yellow(root: Path) -> Path:
    """The data of ``write_colors``, where yellow is in one image alone."""
    data = write_colors(root)
    for path in (data / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<name>yellow<", "<name>red<"))
    odd = data / "Annotations" / f"train{ODD_ONE:02d}.xml"
    odd.write_text(odd.read_text().replace("<name>blue<", "<name>yellow<").replace("<name>red<", "<name>yellow<"))
    return data


def test_the_image_of_a_real_training_is_named(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config_path, name = write_config(tmp_path / "tiny.yaml", one_yellow(tmp_path / "data")), f"train{ODD_ONE:02d}.png"
    config = tiny_config(config_path, None, "data.batch_size=4", "data.augmentation.mosaic=0")
    train_set, val_set = open_data(config)
    model = Allergic(build_model(config.model, train_set.classes, load_pretrained=False))
    task = Task(kind_of(config.model), model, train_set.classes, config.optimizer, config.schedule)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        **SILENT,
    )
    with pytest.raises(DetsegError) as caught:
        trainer.fit(task, build_data(config, train_set, val_set))
    assert f"; at fault: sample {ODD_ONE} ({name}): " in str(caught.value)
    (image,) = tmp_path.glob(f"nan_*/*_sample{ODD_ONE:07d}.png")
    with Image.open(image) as opened:
        assert opened.size == (512, 512)
    samples = json.loads((image.parent / "diagnosis.json").read_text())["samples_alone"]
    assert [Path(sample["path"]).name for sample in samples if sample["at_fault"]] == [name]
    assert len(samples) == 4
