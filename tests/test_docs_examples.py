"""What the pages show works: Python blocks run, commands and settings are accepted, on a small copy of what they name.

A page's Python blocks are one script, since later ones build on earlier ones. It runs in a folder with the data sets,
runs and images that the pages speak of. Code that cannot run has no place in a `python` block.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detseg import load_predictor
from detseg.cli import main
from detseg.config.load import load_config
from detseg.data.build import SHAPE_MASK_CLASSES
from detseg.data.shapes import write_shapes
from tests.predict.video.squares import write_squares
from tests.test_docs import PAGES, ROOT
from tests.tiny import TinyRun

pytestmark = pytest.mark.filterwarnings("ignore")

LANGUAGES = {"python", "sh", "yaml", "js", "cpp", "text", ""}
"""What follows ``` on the pages; another spelling of one of them would not be tested. What `js` and `cpp` do is tested
in `tests/export/`."""
SHAPES = ("data.num_train=16", "data.num_val=4", "data.size=96", "data.max_objects=3", "data.image_size=96")
QUICK = ("data.num_workers=0", "data.batch_size=8", "trainer.max_epochs=1", "trainer.num_previews=0")
SHORTENED = {"image_size=640, max_epochs=50": "image_size=96, max_epochs=1"}
"""What README's training shows → what is run."""


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """The page's blocks in a language ("": any), each with the number of its first line."""
    found = re.finditer(rf"^```({language or '.*'})\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(2)) + 1, match[2]) for match in found]


def script(text: str) -> str:
    """The page's Python, each line at its line of the page."""
    for shown, short in SHORTENED.items():
        text = text.replace(shown, short)
    lines = [""] * text.count("\n")
    for start, block in blocks(text, "python"):
        code = block.splitlines()
        lines[start - 1 : start - 1 + len(code)] = code
    return "\n".join(lines)


def commands(text: str) -> list[list[str]]:
    """The detseg commands of the page's shell blocks: sub-command and arguments; `tools/x_y.py` is `detseg x-y`."""
    found = []
    for _, block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" (?:&&|\||;|>) ", line.replace(" && ", " ; ")):
                words = shlex.split(part, comments=True)
                tools = [i for i, word in enumerate(words) if re.fullmatch(r"tools/\w+\.py", word)]
                if tools and words[tools[0]] not in ("tools/demo.py", "tools/real_sets.py"):
                    name = Path(words[tools[0]]).stem.replace("_", "-")
                    found.append([name, *words[tools[0] + 1 :]])
                elif "detseg" in words:  # perhaps behind torchrun or srun
                    found.append(words[words.index("detseg") + 1 :])
    return found


def showing(language: str) -> pytest.MarkDecorator:
    pages = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"), language)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_instances: TinyRun) -> Path:
    """What a reader has when he reads the pages: configs/, data/, runs/, photos."""
    root = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(ROOT / "configs", root / "configs")
        write_shapes(Path("data/shapes"), num_train=16, num_val=4, size=96, max_objects=3, seed=0)
        _write_voc(Path("data/mine"))
        _write_voc(Path("data/streets"))
        shutil.copytree("data/mine", "elsewhere")
        for name in ("cells/images", "things/train"):
            shutil.copytree("data/shapes/coco/train", f"data/{name}")
        for name in ("cells", "things"):
            (root / "data" / name / "annotations").mkdir()
            shutil.copy("data/shapes/coco/annotations/instances_train.json", f"data/{name}/annotations/train.json")
        _write_mask_folder(Path("data/cells/train"))
        shutil.copytree(tiny_instances.run_dir, "runs/masks")
        _save_photos(tiny_instances)
        write_squares(Path("clip.mp4"), num=4)
        _, settings = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml")[0]
        Path("mine.yaml").write_text(settings, encoding="utf-8")
        small = ("data.image_size=96", "model.backbone.name=csp_nano")
        assert main(["train", "mine.yaml", *small, *QUICK, "run_dir=runs/mine"]) == 0
        assert main(["train", "unet_shapes", *SHAPES, *QUICK, "run_dir=runs/unet"]) == 0
        for run, other in (("mine", "demo"), ("mine", "yolo_shapes"), ("unet", "shapes"), ("unet", "streets")):
            shutil.copytree(f"runs/{run}", f"runs/{other}")
        assert main(["evaluate", "runs/mine", "--save-coco", "found"]) == 0
        assert main(["export", "runs/mine"]) == 0
    return root


def _save_photos(run: TinyRun) -> None:
    """Images with objects that the model of masks finds, under the names on the pages."""
    predictor = load_predictor(run.best, score_threshold=0.3)
    photo = Image.open(max((run.data_root / "train").iterdir(), key=lambda path: len(predictor(path))))
    Path("photos").mkdir()
    for name in ("photo.jpg", "street.jpg", "map.png", "photos/a.jpg"):
        photo.save(name)


def _write_voc(root: Path) -> None:
    shutil.copytree("data/shapes/voc", root)
    (root / "classes.txt").write_text("\n".join(SHAPE_MASK_CLASSES), encoding="utf-8")
    for lists in (root / "ImageSets").iterdir():
        shutil.copy(lists / "val.txt", lists / "test.txt")


def _write_mask_folder(root: Path) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for path in sorted(Path("data/shapes/voc/SegmentationClass").glob("train*")):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where((mask > 0) & (mask < 255), 255, 0).astype(np.uint8)).save(root / "masks" / path.name)
        shutil.copy(next(Path("data/shapes/voc/JPEGImages").glob(f"{path.stem}.*")), root / "images")


@showing("python")
def test_python_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    file = folder / f"{page.name}.py"
    file.write_text(script(page.read_text(encoding="utf-8")), encoding="utf-8")
    runpy.run_path(str(file), run_name="__main__")


@showing("sh")
def test_commands_are_accepted(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        "detseg.export.run.export_checkpoint", lambda *_, **__: None
    )  # seconds each, and tested by itself
    for name, *arguments in commands(page.read_text(encoding="utf-8")):
        if name in ("serve", "demo"):  # they would wait for requests
            assert main([name, *arguments, "--port=-1"]) == 2
            assert "port: expected 0 to 65535" in capsys.readouterr().err
            continue
        only_read = ["--print-config"] if name in ("train", "benchmark", "find-lr", "tune") else []  # the others run
        code = main([name, *arguments, *only_read])
        assert code == 0 or (name == "check" and "error:" not in capsys.readouterr().err), (name, arguments)


@showing("yaml")
def test_settings_are_accepted(page: Path, tmp_path: Path) -> None:
    for start, block in blocks(page.read_text(encoding="utf-8"), "yaml"):
        path = tmp_path / f"line_{start}.yaml"
        path.write_text(block, encoding="utf-8")
        data = yaml.safe_load(block).get("data", {})
        load_config(path, () if "name" in data else ("data.name=shapes",))  # some show only the part they speak of


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_are_of_a_language_that_is_tested(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(fences) <= LANGUAGES


def test_commands_are_found() -> None:
    found = {words[0] for page in PAGES for words in commands(page.read_text(encoding="utf-8"))}
    assert found >= {"train", "tune", "evaluate", "predict", "config", "benchmark", "export-weights"}
