"""The Python API: the page docs/python_api.md as it stands, in threads and scripts, and what is wrong in one line."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

import detseg
from detseg.checkpoint import read_raw_checkpoint
from detseg.config.load import load_config
from detseg.data.shapes import write_shapes
from detseg.models.interface import LossTerms
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parents[1]
SHORT: dict[str, Any] = {"batch_size": 2, "max_epochs": 1, "num_workers": 0}


def script_of(page: str) -> str:
    """The Python blocks of a page, one after the other."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))


def in_thread(function: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as threads:
        threads.submit(function).result()


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the shapes set."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    write_shapes(Path("data/shapes"), num_train=4, num_val=2, size=96, max_objects=3, seed=0)
    return tmp_path


@pytest.mark.parametrize("call", [lambda run: run(), in_thread], ids=["main thread", "other thread"])
def test_page(call: Callable[[Callable[[], object]], None], shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    environment = dict(os.environ)
    Path("page.py").write_text(script_of("python_api.md"), encoding="utf-8")
    call(lambda: runpy.run_path("page.py", run_name="page" if call is in_thread else "__main__"))
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert dict(os.environ) == environment
    # Evaluation finds training's number; the predictor one box.
    said = r"next: detseg\.evaluate\('runs/own/checkpoints/best\.ckpt', val_set, model=model\)\n(.*\n)*True\n1\n"
    assert re.search(said, capsys.readouterr().out)
    for name in ("python", "own"):  # as the command leaves it
        found = sorted(path.name for path in Path("runs", name).iterdir())
        assert found == [
            "checkpoints",
            "config.yaml",
            "metrics.csv",
            "metrics.json",
            "pictures",
            "run.json",
            "tensorboard",
        ]
    kept = read_raw_checkpoint(Path("runs/own/checkpoints/best.ckpt"))["detseg"]["config"]
    assert kept["model"] == {"name": "custom", "task": "detection"}


class Halves:
    """A data set of images whose left half is class 1."""

    classes = detseg.ClassTable(("ground", "thing"))

    def __len__(self) -> int:
        return 4

    def image_id(self, index: int) -> int:
        return index + 1

    def annotations(self, index: int) -> detseg.ImageAnnotations:
        none, no = np.zeros(0), np.zeros(0, dtype=np.bool_)
        return detseg.ImageAnnotations(np.zeros((0, 4)), none.astype(np.int64), no, no, no, none)

    def __getitem__(self, index: int) -> detseg.Sample:
        semantic = np.zeros((32, 32), dtype=np.uint8)
        semantic[:, :16] = 1
        image = np.repeat(semantic[..., None] * 200, 3, axis=2)
        boxes, labels = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)
        return detseg.Sample(index, index + 1, "half", image, boxes, labels, labels.astype(np.bool_), semantic)


class Bright(nn.Module):
    """A segmenter that calls what is bright class 1."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        bright = (images.mean(dim=1) - 0.4) * self.scale
        return torch.stack([-bright, bright], dim=1)

    def losses(self, images: Tensor, semantic: Tensor) -> LossTerms:
        return {"entropy": nn.functional.cross_entropy(self(images), semantic.long(), ignore_index=255)}

    def predict(self, images: Tensor) -> Tensor:
        return self(images).detach()

    def losses_and_predictions(self, images: Tensor, semantic: Tensor) -> tuple[LossTerms, Tensor]:
        return self.losses(images, semantic), self.predict(images)


class Counting(Callback):
    """Counts steps; asks for a stop in the second."""

    def __init__(self, stop: detseg.StopRequest | None = None) -> None:
        self.steps, self.stop = 0, stop

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.steps += 1
        if self.steps == 2 and self.stop is not None:
            self.stop.ask()


def test_a_segmenter_of_ones_own_with_callbacks_and_loggers_stops_and_resumes(tmp_path: Path) -> None:
    stop = detseg.StopRequest()
    counting, csv = Counting(stop), CSVLogger(tmp_path / "csv")
    options: dict[str, Any] = SHORT | {"image_size": 32, "run_dir": tmp_path / "run", "settings": {"seed": 3}}
    with pytest.raises(detseg.RunStoppedError, match="stopped by request after step 2; everything is saved in"):
        detseg.train(Bright(), Halves(), Halves(), **options, callbacks=[counting], stop=stop)
    counting = Counting()
    options |= {"max_epochs": 2, "resume": "last", "stop": stop}
    run = detseg.train(Bright(), Halves(), Halves(), **options, callbacks=[counting], loggers=[csv])
    assert counting.steps == 2 + 2  # the last two are those of the second epoch, the first two were done
    assert run.metrics["mIoU"] == 1
    assert load_config(run.run_dir / "config.yaml").seed == 3
    assert list((tmp_path / "csv").rglob("metrics.csv"))
    with pytest.raises(detseg.CheckpointError, match=r"best\.ckpt: holds the weights of a module of your own; give it"):
        detseg.load_predictor(run.best_checkpoint)
    found = detseg.load_predictor(run.best_checkpoint, model=Bright())(Halves()[0].image)
    assert (found.labels == Halves()[0].semantic).all()
    assert detseg.evaluate(run.best_checkpoint, Halves(), model=Bright()).headline["mIoU"] == 1


def test_settings_of_a_file_train_with_data_of_python(tiny_run: TinyRun, tmp_path: Path) -> None:
    sets = [detseg.read_voc(tiny_run.data_root, split, classes=("blue", "red", "yellow")) for split in ("train", "val")]
    settings = {"trainer.num_previews": 0, "trainer.validate_every": 1}
    config = load_config(tiny_run.config_path)
    for source, data in ((tiny_run.config_path, ()), (config, sets)):
        run_dir = tmp_path / type(source).__name__
        run = detseg.train(source, *data, max_epochs=1, run_dir=run_dir, settings=settings)
        assert run.run_dir == run_dir
        assert run.metrics.keys() >= {"AP", "AP50", "loss"}
    names = (type(tiny_run.config_path).__name__, "ExperimentConfig")
    # The numbers do not depend on who opens the data.
    assert len({(tmp_path / name / "metrics.csv").read_text() for name in names}) == 1
    assert detseg.evaluate(run.best_checkpoint, sets[1]).headline["AP"] == run.metrics["AP"]


def boxes(run: TinyRun) -> Any:
    return detseg.read_voc(run.data_root, "train", classes=("blue", "red", "yellow"))


def other_halves(**members: Any) -> Any:
    return type("Others", (Halves,), members)()


def train_on(model: Any, *sets: Any, **options: Any) -> None:
    detseg.train(model, *(sets * 2)[:2], **options)


def test_the_page_lists_the_arguments_of_build_model() -> None:
    (listed,) = re.findall(r"`build_model\((.*?)\)` \|", (ROOT / "docs/python_api.md").read_text(encoding="utf-8"))
    parameters = inspect.signature(detseg.build_model).parameters.values()
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert listed.split(", ") == [*by_position, "*", *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)]


WRONG: list[tuple[Callable[[TinyRun], object], str]] = [  # wrong types, and what does not fit together
    (lambda run: detseg.train(Bright()), "a Bright needs data; give train_set and val_set"),
    (lambda run: train_on(nn.Linear(1, 1), Halves()), "model: a Linear has no method losses or predict or losses_and"),
    (lambda run: detseg.build_model("yollo", ["a"]), "build_model: model.name: expected one of 'yolo', 'faster_rcnn'"),
    (lambda run: detseg.evaluate(run.best, Halves()), "{best}: was trained on the classes blue, red, yellow, the data"),
    (lambda run: detseg.train(run.config_path, settings={"optimizer.lrr": 1}), "setting optimizer.lrr: optimizer"),
    (lambda run: detseg.build_model("yolo", ["a"], settings={"head.reg_mx": 8}), "setting model.head.reg_mx: model.he"),
    (lambda run: detseg.load_predictor(run.best, model=Bright()), "{best}: its weights do not fit the Bright (Miss"),
    (lambda run: detseg.train(Bright(), Halves()), "got one of train_set and val_set; give both, or neither for those"),
    (lambda run: train_on(detseg.build_model("unet", ["a"]), Halves()), "model: was built for the classes a; train_s"),
    (lambda run: train_on(Bright(), Halves(), settings={"model.nms_iou": 0.5}), "setting model.nms_iou: belongs to t"),
    (lambda run: detseg.evaluate(run.best, boxes(run), settings={"model.nms_iou": 1}), "setting model.nms_iou: the"),
    (lambda run: train_on(Bright(), Halves(), boxes(run)), "val_set has the classes blue, red, yellow; train_set has"),
    (lambda run: train_on(Bright(), Halves(), other_halves(__len__=lambda _: 0)), "val_set: holds no images"),
    (lambda run: train_on(Bright(), other_halves(image_id=lambda *_: 7)), "train_set: image_id: expected another"),
    (lambda run: train_on(Bright(), other_halves(image_id=lambda _, i: f"a{i}")), "train_set: image_id: expected anot"),
    (lambda run: train_on(Bright(), Halves(), resume=True), 'resume: expected "last", "auto" or a checkpoint'),
    (lambda run: detseg.build_model("yolo", []), "classes: expected at least one name, got none"),
    (lambda run: detseg.build_model("yolo", ["a", "a"]), "classes: class names must differ, got ['a'] more than once"),
    (lambda run: detseg.train(run.best), "{best}: is a checkpoint; name a configuration file, and --resume=CKPT to"),
    (lambda run: detseg.evaluate(run.best.parent, Halves()), "{best.parent}: is a folder, not a checkpoint; there are"),
    (lambda run: train_on(detseg.build_model("yolo", Halves.classes), Halves()), "train_set: has no objects, which"),
    (lambda run: train_on(Bright(), boxes(run), task="semantic"), "train_set: has no label maps, which the model"),
    (lambda run: train_on(Bright(), boxes(run), task="instance"), "train_set: has no masks of objects, which the"),
    (lambda run: train_on(detseg.build_model("unet", Halves.classes), Halves(), task="detect"), "task: is for a mod"),
    (lambda run: train_on(Bright(), [1, 2]), "train_set: a list has no classes, image_id, annotations; docs/python"),
    (lambda run: train_on(None, Halves()), "model: expected a module, such as MyModel(), a YAML file or ExperimentC"),
    (lambda run: train_on(Bright(), Halves(), settings=["a=1"]), "settings: expected a mapping, such as "),
    (lambda run: train_on(Bright(), Halves(), callbacks=3), "callbacks: expected a list of lightning.pytorch's Callb"),
    (lambda run: train_on(Bright(), Halves(), max_epochs=0), "setting trainer.max_epochs: trainer.max_epochs: expec"),
    (lambda run: detseg.evaluate(run.best, None), "dataset: a NoneType has no classes, __len__"),
    (lambda run: detseg.build_model("yolo", "cat"), "classes: expected a table or names, such as ['person'], got 'c"),
    (
        lambda run: detseg.read_voc(run.data_root, None),
        "split: expected the name of a list or folder, such as 'train', got Non",
    ),
    (lambda run: detseg.load_predictor(None), "checkpoint: expected a path, as text or Path, got None"),
    (lambda run: detseg.load_predictor(run.best, score_threshold=30), "score_threshold: expected a number from 0 to 1"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_mistakes_are_one_line(
    call: Callable[[TinyRun], object], message: str, tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(detseg.DetsegError) as caught:
        call(tiny_run)
    found = str(caught.value).removeprefix("detseg.train: ")
    assert found.startswith(message.format(best=tiny_run.best))
    assert "\n" not in found
    assert not os.listdir()  # no run directory


@pytest.mark.parametrize("terms", [torch.zeros(()), {}, {"a": 0.5}, {"a": torch.zeros(2)}, {"loss": torch.zeros(())}])
def test_what_losses_must_give(terms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A term called ``loss`` would take the place of the sum."""
    monkeypatch.setattr(Bright, "losses", lambda *_: terms)
    with pytest.raises(detseg.DetsegError, match=r"^Bright\.losses: expected a dict of scalar tensors by name, none "):
        train_on(Bright(), Halves(), **SHORT, image_size=32, run_dir=tmp_path / "run")


def test_what_early_stopping_of_the_user_s_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = EarlyStopping("val/loss", patience=1, min_delta=1e9)
    options: dict[str, Any] = SHORT | {"image_size": 32, "max_epochs": 3, "run_dir": tmp_path / "run"}
    train_on(Bright(), Halves(), **options, callbacks=[stopping])
    assert re.search(r"stopped after epoch 2: no better loss than [\d.]+ in 1 validations", capsys.readouterr().out)


SCRIPT = """
import multiprocessing
import sys

import torch

import detseg

{before}
torch.set_num_threads(1)
train_set = detseg.read_voc("data/shapes/voc", "train")
train_set.ballast = bytes(200_000)  # more than a pipe holds
model = detseg.build_model("yolo", train_set.classes, settings={{"backbone.width": 0.0625, "backbone.depth": 0.1}})
run = detseg.train(model, train_set, train_set, image_size=64, batch_size=2, max_epochs=1, num_workers={workers})
print(run.run_dir)
"""


@pytest.mark.slow
def test_a_script_needs_no_guard_without_loader_processes(shapes: Path) -> None:
    done = run_script(SCRIPT.format(before="", workers=0))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(Path("runs/yolo"))


@pytest.mark.processes
def test_spawned_loader_processes_and_no_guard_are_one_line(shapes: Path) -> None:
    """As on macOS and Windows."""
    done = run_script(SCRIPT.format(before='multiprocessing.set_start_method("spawn", force=True)', workers=1))
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert [line for line in lines if "DetsegError:" in line] == [
        "detseg.errors.DetsegError: data.num_workers: the loader's processes run your script again from its beginning; "
        'put what it does behind `if __name__ == "__main__":`, or set data.num_workers to 0'
    ]
    left = sorted(path.as_posix() for path in Path("runs").glob("*/*"))
    assert left == [
        f"runs/yolo/{name}" for name in ("config.yaml", "run.json", "tensorboard")
    ]  # free for the run with a guard


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    Path("script.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=environment, timeout=300)


def test_an_editable_install_is_found_beside_a_clone(tmp_path: Path) -> None:
    """`import detseg` from the clone's parent folder, and with a folder `data` in the clone or beside the script."""
    clone, site = tmp_path / "detseg", tmp_path / "site"
    shutil.copytree(ROOT / "detseg", clone / "detseg", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "configs", clone / "configs")
    for folder in (tmp_path, clone):
        (folder / "data").mkdir()
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(site)], cwd=clone, check=True, capture_output=True)
    (wheel,) = site.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f"import site; site.addsitedir({str(site)!r}); import detseg, detseg.data; print(detseg.data.__file__)"
    for folder in (tmp_path, clone):
        # -S: without the environment of the tests, in which detseg is installed, too.
        done = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=clean, capture_output=True, text=True)
        assert done.stdout.strip() == str(clone / "detseg" / "data" / "__init__.py"), done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from detseg.cli import main; main(['train', 'yolo_shapes'])", "error: detseg train needs lightning: "),
        ("from detseg.cli import main; main(['evaluate', 'x.ckpt'])", "error: detseg evaluate needs lightning: "),
        ("import detseg; detseg.train", "detseg.errors.MissingExtraError: detseg.train needs lightning: "),
        ("from detseg import read_coco", "detseg.errors.MissingExtraError: detseg.read_coco needs lightning: "),
    ],
)
def test_a_prediction_only_install_names_the_extra(code: str, message: str) -> None:
    blocked = f"import sys; sys.modules['lightning'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f'{message}pip install "detseg[train]"'
