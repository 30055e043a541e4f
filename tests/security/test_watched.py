"""What a whole run connects to, starts and leaves: nothing outside, nobody's program, and labels that stay labels."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.data.formats.voc import read_voc_xml
from detseg.errors import DataError
from detseg.predict import Detections
from detseg.predict.outputs import DetectionOutput, ImageFile
from detseg.structures import ClassTable
from tests.security.watched import LABELS

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Watched:
    folder: Path  # what it left
    output: str  # what it printed, as a terminal of 200 columns gets it
    noted: dict[str, Any]  # exit codes of the tools and the events


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    variables = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    variables |= {"COLUMNS": "200", "OMP_NUM_THREADS": "1", "HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.security.watched", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables)
    assert done.returncode == 0, done.stderr
    return Watched(folder, done.stdout + done.stderr, json.loads((folder / "events.json").read_text()))


def test_nothing_is_connected_to_and_nothing_is_started(watched: Watched) -> None:
    assert watched.noted["codes"] == [0, 0, 0, 0], watched.output
    # ctypes asks the linker's cache where a library lies, when a package looks for one; that starts nobody's program.
    # git says which commit a run begins with; matplotlib, which torchmetrics imports where it can, lists the fonts.
    expected = ("/sbin/ldconfig", "Popen: git (", "Popen: fc-list (")
    assert [event for event in watched.noted["events"] if not any(text in event for text in expected)] == []


def test_the_watch_sees_connections_and_programs() -> None:
    code = (
        "from tests.security.watched import watch\nevents = watch()\nimport socket, subprocess, sys, urllib.request\n"
        "for attempt in (lambda: socket.create_connection(('192.0.2.1', 9), 0.01),\n"
        "                lambda: urllib.request.urlopen('http://example.invalid/', timeout=0.01),\n"
        "                lambda: subprocess.run([sys.executable, '--version'], capture_output=True)):\n"
        "    try: attempt()\n"
        "    except OSError: pass\n"
        "print(*{event.split(':')[0] for event in events})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(done.stdout.split()) >= {"socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen"}


def test_labels_are_printed_as_they_are(watched: Watched) -> None:
    for label in LABELS:
        assert label in watched.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", watched.output)


def test_nothing_that_a_browser_would_run_is_written(watched: Watched) -> None:
    written = [path for path in watched.folder.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in written}
    assert kinds >= {".json", ".csv", ".yaml", ".ckpt", ".safetensors", ".xml", ".txt", ".jpg"}
    code = ".html .htm .xhtml .svg .js .pdf .md .pkl .pickle .pt .pth .py"
    assert not kinds & set(code.split())


def test_labels_name_no_files(watched: Watched) -> None:
    top = {path.name for path in watched.folder.iterdir()}
    assert top <= {"data", "tiny.yaml", "run", "out", "coco", "w.safetensors", "events.json", "home"}
    for path in watched.folder.rglob("*"):
        assert "script" not in path.name
        assert "up" not in path.parts
    assert {path.name for path in (watched.folder / "out").iterdir() if path.is_dir()} == {"annotations", "labels"}


def test_each_format_gives_the_labels_back(watched: Watched) -> None:
    out = watched.folder / "out"
    categories = json.loads((out / "images.json").read_text())["categories"]
    assert tuple(category["name"] for category in categories) == LABELS
    truth = json.loads((watched.folder / "coco" / "ground_truth.json").read_text())["categories"]
    assert tuple(category["name"] for category in truth) == LABELS
    assert tuple((out / "classes.txt").read_text(encoding="utf-8").splitlines()) == LABELS
    files = sorted((out / "annotations").glob("*.xml"))
    names = [name for file in files for name in read_voc_xml(file).names]
    assert len(files) == 4
    assert names
    assert set(names) <= set(LABELS)
    with (watched.folder / "run" / "metrics.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert all(re.fullmatch(r"[\w./+-]*", cell) and not cell.startswith(("=", "@", "+")) for cell in cells), cells
    events = b"".join(path.read_bytes() for path in (watched.folder / "run" / "tensorboard").iterdir())
    assert events
    assert b"<script>" not in events


def found(label: int = 0) -> Detections:
    box, image = np.array([[0, 0, 4, 4]], dtype=np.float32), np.zeros((8, 8, 3), dtype=np.uint8)
    return Detections(box, np.ones(1, np.float32), np.array([label]), ClassTable(LABELS), image=image)


def write_one(output: DetectionOutput, name: str, found: Detections) -> None:
    image = ImageFile(1, Path(name), Path(name))
    output.write([(image, output.entry(image, found))])


@pytest.mark.parametrize("label", range(len(LABELS)))
def test_xml_is_escaped(label: int, tmp_path: Path) -> None:
    export = DetectionOutput(tmp_path, ClassTable(LABELS), ["voc"])
    write_one(export, "a <b> & 'c'.png", found(label))
    (file,) = (tmp_path / "annotations").iterdir()
    assert "<script>" not in file.read_text()
    root = ET.parse(file).getroot()
    assert root.findtext("object/name") == LABELS[label]
    assert root.findtext("filename") == "a <b> & 'c'.png"


@pytest.mark.parametrize("name", ["\x1b[2J.png", "a\nb.png", "\udcff.png", "\ufffe.png"])
def test_names_that_xml_cannot_say_are_one_line(name: str, tmp_path: Path) -> None:
    export = DetectionOutput(tmp_path, ClassTable(LABELS), ["voc"])
    with pytest.raises(DataError, match=r"XML has no place for some of the characters of .*; rename the image"):
        export.files(Path(name))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    coco = DetectionOutput(tmp_path, ClassTable(LABELS), ["coco"])
    write_one(coco, name, found())
    assert json.loads((tmp_path / "images.json").read_text())["images"][0]["file_name"] == name
