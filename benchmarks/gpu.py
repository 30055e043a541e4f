"""All that is to be measured once a GPU is there, by one command of at most ten minutes.

    python -m benchmarks.gpu                          about 9 minutes on one GPU; nothing is downloaded
    python -m benchmarks.gpu --only peak yolo_nano    some parts; --out FILE.json, --seconds N
    python -m benchmarks.gpu --cpu --small            shows in under a minute that it runs; its figures mean nothing

Each part runs in a process of its own with a time limit, so that one that fails, hangs or breaks CUDA is one row with
its error. Rows are printed as they come, and written as JSON and as a table in Markdown beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import PARTS, Options, Row

_LEAST_SECONDS = 1.0
"""A part that would have less is left out."""


def main(arguments: list[str] | None = None) -> None:
    """Run the parts, and write what they gave after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"), help="JSON; a .md file goes beside it")
    parser.add_argument("--seconds", type=float, default=560.0, help="of all parts together")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help="some parts"
    )
    parser.add_argument("--cpu", action="store_true", help="on the CPU")
    parser.add_argument("--small", action="store_true", help="tiny networks, images and trainings")
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork", help="how processes begin")
    given = parser.parse_args(arguments)
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else to look for a GPU would spoil CUDA for forked processes
    rows: list[dict[str, Any]] = []
    deadline, start = time.monotonic() + given.seconds, given.start
    with tempfile.TemporaryDirectory(prefix="detseg-gpu-") as folder:
        options = Options("cpu" if given.cpu else "cuda", given.small, Path(folder))
        for name in given.only:
            limit = min(PARTS[name].seconds, deadline - time.monotonic())
            found = list(_shown(name, _rows_of(name, options, limit, start)))
            if start == "fork" and any("forked subprocess" in row["note"] for row in found):
                start = "spawn"  # something has asked for a GPU in this process
                found = list(_shown(name, _rows_of(name, options, limit, start)))
            peak = next((row["value"] for row in found if row["what"] == "peak in bfloat16"), options.peak_tflops)
            options, rows = replace(options, peak_tflops=peak), [*rows, *found]
            _write(given.out, rows)
    print(f"{given.out} and {given.out.with_suffix('.md')}: {len(rows)} rows")


def _rows_of(name: str, options: Options, limit: float, start: str) -> Iterator[Row]:
    """The rows of a part from a process of its own; what is wrong with it is a row, too."""
    if limit < _LEAST_SECONDS:
        yield Row("part", note="left out: no time is left")
        return
    context: Any = multiprocessing.get_context(start)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(name, options, sender))
    begin = time.monotonic()
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, begin + limit - time.monotonic())):
            if not (message := receiver.recv_bytes()):
                yield Row("part", time.monotonic() - begin, "s")
                return
            yield Row(**json.loads(message))
        yield Row("part", note=f"error: it was not over in {limit:.0f} s")
    except EOFError:
        process.join(5)
        said = (options.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-300:].split()
        yield Row(
            "part", note=f"error: its process has ended with exit code {process.exitcode} {' '.join(said)}".strip()
        )
    finally:
        for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):  # with its loader's processes
            with suppress(ProcessLookupError, PermissionError):
                kill()
        process.join()
        receiver.close()


def _run(name: str, options: Options, sender: Connection) -> None:
    """A part, in its process; an empty message says that it is over."""
    os.setsid()
    log = os.open(options.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    if options.small:
        torch.set_num_threads(1)  # several would wait for one another
    try:
        for row in PARTS[name].rows(options):
            sender.send_bytes(json.dumps(vars(row)).encode())
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sender.send_bytes(json.dumps(vars(Row("part", note=f"error: {text[:400]}"))).encode())
    sender.send_bytes(b"")
    sys.stdout.flush()


def _shown(name: str, rows: Iterator[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        print(f"{name:>20}  {row.what:<44} {_figure(row.value):>9} {row.unit:<10} {row.note}", flush=True)
        yield {"part": name, **vars(row)}


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    lines = ["| part | measured | value | |", "|---|---|---|---|"]
    for row in rows:
        value = f"{_figure(row['value'])} {row['unit']}".strip()
        lines.append(f"| {row['part']} | {row['what']} | {value} | {row['note'].replace('|', '/')} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
