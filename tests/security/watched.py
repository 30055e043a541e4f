"""Trains, evaluates, predicts and exports in a fresh interpreter that notes each connection and each program it starts.

Run as ``python -m tests.security.watched FOLDER``; what was noted lies in ``FOLDER/events.json``.
"""

from __future__ import annotations

import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

LABELS = ("<script>alert(1)</script>", "[red]a[/red] & \"b\" 'c'", ":car: ../../../up")
"""Names that mean something to HTML, XML, rich, shells or file systems, and are text all the same."""

CONNECTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"}
_LOCAL = ("127.", "::1", "localhost", "None", "''")


def watch() -> list[str]:
    """Begins to note; returns the list that grows."""
    events: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS:
            events.append(f"{event}: {arguments[0]} {arguments[1:2]}")
        if event in CONNECTS:
            where = arguments[1] if event in {"socket.connect", "socket.sendto"} else arguments[0]
            host = where[0] if isinstance(where, tuple) else where
            is_file = isinstance(where, str | bytes) and event == "socket.connect"  # of the family AF_UNIX
            if not is_file and not str(host).startswith(_LOCAL):
                events.append(f"{event}: {host}")

    sys.addaudithook(note)
    return events


def main(folder: Path) -> None:
    """Everything once, on ellipses whose classes have the names above."""
    events = watch()
    import detseg
    import tools

    for package in (detseg, tools):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    from detseg.cli.deploy.export_weights import export_weights
    from detseg.cli.deploy.predict import predict
    from detseg.cli.evaluation.evaluate import evaluate
    from detseg.cli.tool import run_tool
    from detseg.cli.train import train
    from tests.tiny import CLASSES, write_config, write_ellipses

    data = write_ellipses(folder / "data", {"train": 8, "val": 4})
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = LABELS[CLASSES.index(category["name"])]
        file.write_text(json.dumps(content))
    config = write_config(folder / "tiny.yaml", data)
    settings = ["data.name=coco", "data.classes=null", "data.train_images=train", "data.val_images=val"]
    settings += [f"data.{split}_annotations=annotations/instances_{split}.json" for split in ("train", "val")]
    run, out = folder / "run", folder / "out"
    best, weights = str(run / "checkpoints" / "best.ckpt"), str(folder / "w.safetensors")
    codes = [
        run_tool(train, [str(config), *settings, "trainer.max_epochs=1", f"run_dir={run}"]),
        run_tool(evaluate, [best, f"--save-coco={folder / 'coco'}"]),
        run_tool(export_weights, [best, weights]),
        run_tool(predict, [weights, str(data / "val"), f"--out={out}", "--format=coco,voc,yolo", "--score=0"]),
    ]
    (folder / "events.json").write_text(json.dumps({"codes": codes, "events": events}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
