"""Steps whose loss or gradient is not finite, on models of few weights whose steps are made by hand as well: what
becomes of the run, and what the failing process finds out about the samples."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detseg.checkpoint import ENTRY
from detseg.config.schema.experiment import AdamConfig, AdamWConfig, OptimizerConfig, RmspropConfig, SgdConfig
from detseg.errors import DetsegError
from detseg.models.interface import LossTerms
from detseg.ops.processes import shared_normaliser
from detseg.structures import Batch, BoxTargets
from detseg.tasks import Detection
from detseg.training.nan import StepGuard
from detseg.training.setup.build import build_data, open_data
from detseg.training.task import Task
from tests.forked import run_together
from tests.heard import heard
from tests.tiny import CLASSES, tiny_config, write_colors, write_config
from tests.training.stub import SILENT, OneWeight, batch_of, fit, loader_of, task_of

pytestmark = pytest.mark.filterwarnings("ignore")
WHITE, BAD = batch_of(255), batch_of(7)
ADVICE = "if no sample is at fault, lower optimizer.lr, or set trainer.precision=float32"


class Fragile(OneWeight):
    """Its first term is no number for images of grey 7; a normalisation has seen them by then."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.norm = nn.BatchNorm2d(3, momentum=0.25, affine=False)

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        self.norm(images)
        terms = super().losses(images, targets)
        return terms | {"first": terms["first"] * float("nan")} if bool((images * 255 == 7).all()) else terms


class Sloped(OneWeight):
    """Its loss is given by the sum of its weights."""

    def __init__(self, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.zeros(4))
        self.loss = loss

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        return {"root": self.loss(self.weight + self.more.sum())}


def diagnosis_in(folder: Path, name: str) -> dict[str, Any]:
    """What was written of a step, as strict JSON, which has no NaN."""
    text = (folder / name / "diagnosis.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return content


def stopped(task: Task, batches: list[Batch], folder: Path, **options: Any) -> str:
    with pytest.raises(DetsegError) as caught:
        fit(task, batches, folder, **options)
    return str(caught.value)


def test_the_step_is_not_made_and_the_line_says_where_which_term_and_which_gradient(tmp_path: Path) -> None:
    task = task_of(Fragile(2.0), ema_decay=0.5)
    assert stopped(task, [WHITE, BAD, WHITE], tmp_path) == (
        "epoch 1, step 2: the loss is not finite (first nan, second 0.02059); at fault: sample 0: first nan; gradient "
        f"not finite in 1 of 1 parameters, first weight; details in {tmp_path}/nan_epoch001_step00002; {ADVICE}"
    )
    assert float(task.model.weight) == 1.5
    assert float(task.evaluated_model.weight) == 1.75
    assert task.result is None  # no validation


def test_the_diagnosis_holds_what_came_of_the_step(tmp_path: Path) -> None:
    stopped(task_of(Fragile(2.0), config={"seed": 3, "x": float("inf")}), [WHITE, BAD], tmp_path)
    found = diagnosis_in(tmp_path, "nan_epoch001_step00002")
    assert (found["epoch"], found["step"], found["process"], found["num_processes"]) == (1, 2, 0, 1)
    (batch,) = found["batches"]
    assert (batch["number"], batch["samples"]) == (1, [0])
    assert batch["terms"] == {"loss": "nan", "first": "nan", "second": pytest.approx(1.5 * 7 / 255 / 2)}
    assert found["samples_alone"] == [
        {"batch": 1, "index": 0, "path": None, "terms": batch["terms"], "at_fault": ["first"]}
    ]
    assert found["last_gradient_norms"] == [1.0, "nan"]
    assert found["largest_gradients"] == {"weight": "nan"}
    assert (found["not_finite"], found["verdict"]) == ("loss", "at fault: sample 0: first nan")
    assert found["config"] == {"seed": 3, "x": "inf"}
    assert (found["seed"], found["precision"], found["device"]) == (3, "32-true", "cpu")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        # Finite, with an infinite slope: 0.5 / sqrt(0), times 0.
        (
            lambda w: (w * 0).sqrt(),
            "the gradient is not finite (root 0); at fault: sample 0: gradient of root; gradient not finite in 2 of 2 "
            "parameters, first weight",
        ),
        # The slope is finite, the sum of its squares in float32 is not.
        (
            lambda w: (w - w.detach()) * 2e38,
            "the gradient is not finite (root 0); no sample is at fault alone: samples 0; largest gradient 4e+38 of "
            "more",
        ),
        # A constant has no gradient.
        (
            lambda w: w + float("inf"),
            "the loss is not finite (root inf); at fault: sample 0: root inf; largest gradient 2 of more",
        ),
    ],
)
def test_a_gradient_or_constant_not_finite_stops(loss: Callable[[Tensor], Tensor], said: str, tmp_path: Path) -> None:
    task = task_of(Sloped(loss))
    message = stopped(task, [WHITE], tmp_path, gradient_clip_val=1.0)
    assert message.startswith(f"epoch 1, step 1: {said}; ")
    assert float(task.model.weight) == 1.0


def test_a_weight_that_a_finite_step_has_made_infinite_is_neither_validated_nor_saved(tmp_path: Path) -> None:
    task = task_of(OneWeight(), optimizer=SgdConfig(name="sgd", lr=3e38, momentum=0.0, weight_decay=0.0))
    message = "epoch 1, step 2: a weight is not finite any more (weight); lower optimizer.lr, or set trainer.precision"
    assert stopped(task, [WHITE, WHITE], tmp_path).startswith(message)
    assert task.result is None
    with pytest.raises(DetsegError, match="a weight is not finite any more"):
        task.trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "last.ckpt").exists()


OPTIMIZERS: list[tuple[OptimizerConfig, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = [
    (
        SgdConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.0),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    (AdamConfig(name="adam", lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1)),
    (AdamWConfig(lr=0.1, weight_decay=0.3), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3)),
    (RmspropConfig(name="rmsprop", lr=0.1, momentum=0.9), lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9)),
]


class Matrix(Fragile):
    """The same with a weight that decays: it is no vector."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0]]))

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        return {name: term.sum() ** 2 for name, term in super().losses(images, targets).items()}


@pytest.mark.parametrize(("config", "build"), OPTIMIZERS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("greys", [(7, 255, 100, 51), (255, 7, 100, 51)], ids=["first", "second"])
def test_a_skipped_step_is_a_step_left_out(
    config: OptimizerConfig,
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    greys: tuple[int, ...],
    tmp_path: Path,
) -> None:
    guard = StepGuard("skip", 3)
    task = task_of(Matrix(), optimizer=config, ema_decay=0.5, ema_warmup_steps=2, guard=guard)
    with heard() as lines:
        trainer = fit(task, [batch_of(grey) for grey in greys], tmp_path)

    weight = nn.Parameter(torch.tensor([[1.0]]))
    optimizer, average, mean, losses = build([weight]), torch.tensor(1.0), 0.0, []
    for step, grey in enumerate(grey for grey in greys if grey != 7):
        level = torch.full((1, 3, 8, 8), grey, dtype=torch.uint8).float().div(255).mean()
        half = weight * level / 2
        loss = half.sum() ** 2 + half.sum() ** 2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss))
        decay = 0.5 * (1 - torch.exp(torch.tensor(-(step + 1) / 2)))
        average = average + (weight.detach().squeeze() - average) * (1 - decay)
        mean += (float(level) - mean) * max(0.25, 1 / (step + 1))
    assert float(task.model.weight) == float(weight)
    assert float(task.evaluated_model.weight) == pytest.approx(float(average), abs=1e-6)
    assert task.model.norm.running_mean.tolist() == pytest.approx([mean] * 3, abs=1e-6)
    assert int(task.model.norm.num_batches_tracked) == 3
    assert float(trainer.callback_metrics["train/loss_epoch"]) == pytest.approx(sum(losses) / 3)
    step = 1 + greys.index(7)
    (line,) = lines
    assert line.startswith(f"epoch 1, step {step}: skipped (1 of at most 3): the loss is not finite (first nan, second")
    assert (tmp_path / f"nan_epoch001_step{step:05d}" / "diagnosis.json").is_file()


def test_more_bad_steps_than_allowed_stop_the_run(tmp_path: Path) -> None:
    task = task_of(Fragile(), guard=StepGuard("skip", 2))
    message = stopped(task, [BAD, WHITE, BAD, BAD], tmp_path)
    assert message.startswith("epoch 1, step 4: the loss is not finite")
    assert message.endswith(f"2 steps of the run were skipped already (trainer.max_nan_steps); {ADVICE}")
    assert float(task.model.weight) == 0.5


def test_the_count_of_skipped_steps_is_that_of_the_whole_run(tmp_path: Path) -> None:
    def run(max_epochs: int, ckpt_path: Path | None) -> L.Trainer:
        task = task_of(Fragile(), guard=StepGuard("skip", 1))
        trainer = L.Trainer(accelerator="cpu", max_epochs=max_epochs, default_root_dir=tmp_path, **SILENT)
        trainer.fit(task, loader_of([BAD]), loader_of([WHITE]), ckpt_path=ckpt_path)
        return trainer

    first = run(1, None)
    first.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved[ENTRY]["skipped_steps"] == 1
    with pytest.raises(DetsegError, match=r"^epoch 2, step 2: .* 1 steps of the run were skipped already"):
        run(2, tmp_path / "last.ckpt")


def test_of_accumulated_batches_one_bad_one_spoils_the_step(tmp_path: Path) -> None:
    task = task_of(Fragile(2.0), guard=StepGuard("skip", 1))
    fit(task, [WHITE, BAD, WHITE, WHITE], tmp_path, accumulate_grad_batches=2)
    assert float(task.model.weight) == 1.5  # of the second step alone
    assert int(task.model.norm.num_batches_tracked) == 2
    found = diagnosis_in(tmp_path, "nan_epoch001_step00001")
    assert [batch["number"] for batch in found["batches"]] == [0, 1]
    assert [sample["at_fault"] for sample in found["samples_alone"]] == [[], ["first"]]


def test_a_diagnosis_that_cannot_or_must_not_be_written_hides_nothing(tmp_path: Path) -> None:
    message = stopped(task_of(Fragile()), [BAD], tmp_path, fast_dev_run=True)
    line = "epoch 1, step 1: the loss is not finite (first nan, second 0.01373); at fault: sample 0: first nan; "
    assert message.startswith(line)
    assert "; nothing was written; " in message
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    message = stopped(task_of(Fragile()), [BAD], tmp_path / "file")
    assert message.startswith(line)
    assert "; the diagnosis could not be written (" in message
    assert len(message.splitlines()) == 1


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
        (lambda greys, weight: weight * float("nan"), "; all 3 samples are at fault: it is not the data; ", [0, 1, 2]),
    ],
    ids=["term", "gradient", "together", "all"],
)
def test_the_verdict(term: Callable[[Tensor, Tensor], Tensor], verdict: str, images: list[int], tmp_path: Path) -> None:
    message = stopped(task_of(Judged(term)), [batch_with(129, 7, 200)], tmp_path)
    assert verdict in message
    assert len(message.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.glob("nan_*/*.png")) == [f"batch00000_sample{i:07d}.png" for i in images]


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

    message = stopped(task_of(Judged(only_in_bfloat16)), [batch_with(129, 7)], tmp_path, precision="bf16-mixed")
    assert "; at fault: sample 1: term nan; " in message


def test_weights_that_were_bad_before_the_step_are_named(tmp_path: Path) -> None:
    task = task_of(OneWeight(float("inf")), optimizer=AdamWConfig())
    message = stopped(task, [batch_with(129, 7)], tmp_path)
    assert "; 1 weights were not finite before the step, first weight: no sample is at fault; " in message


def test_a_sample_too_small_for_batch_normalisation_goes_by_the_running_statistics(tmp_path: Path) -> None:
    class Pooled(Judged):
        def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
            return super().losses(images.mean(dim=(2, 3), keepdim=True), targets)

    message = stopped(task_of(Pooled(nan_for_seven)), [batch_with(129, 7, 200)], tmp_path)
    assert "; at fault: sample 1: term nan; " in message


def test_a_diagnosis_that_fails_hides_nothing(tmp_path: Path) -> None:
    class Fussy(Judged):
        def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
            if len(targets) == 1:
                raise RuntimeError("not with\none image")
            return super().losses(images, targets)

    message = stopped(task_of(Fussy(nan_for_seven)), [batch_with(129, 7)], tmp_path)
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


class Allergic(OneWeight):
    """Its second term is NaN in a batch with a yellow object."""

    def losses(self, images: Tensor, targets: list[BoxTargets]) -> LossTerms:
        terms = super().losses(images, targets)
        has_yellow = any(bool((target.labels == CLASSES.index("yellow")).any()) for target in targets)
        return terms | {"second": terms["second"] * float("nan")} if has_yellow else terms


def test_the_image_of_a_real_data_set_is_named(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for path in (write_colors(tmp_path / "data") / "Annotations").glob("*.xml"):
        color = "yellow" if path.stem == "train05" else "red"
        path.write_text(re.sub(r"<name>\w+<", f"<name>{color}<", path.read_text()))
    config_path = write_config(tmp_path / "tiny.yaml", tmp_path / "data")
    config = tiny_config(config_path, None, "data.batch_size=4", "data.augmentation.mosaic=0")
    config, train_set, val_set = open_data(config)
    task = Task(Detection(), Allergic(), train_set.classes, config.optimizer, config.schedule)
    options: dict[str, Any] = {"limit_val_batches": 0, "use_distributed_sampler": False, **SILENT}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **options)
    with pytest.raises(DetsegError, match=r"; at fault: sample 5 \(train05\.png\): second nan; "):
        trainer.fit(task, build_data(config, train_set, val_set))
    (image,) = tmp_path.glob("nan_*/*_sample0000005.png")
    with Image.open(image) as opened:
        assert opened.size == (512, 512)
    samples = json.loads((image.parent / "diagnosis.json").read_text())["samples_alone"]
    assert [Path(sample["path"]).name for sample in samples if sample["at_fault"]] == ["train05.png"]
    assert len(samples) == 4
