"""`detseg serve` and `detseg demo`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from detseg.cli.tool import DEVICES, MODEL, ToolParser, score
from detseg.config.load import load_config
from detseg.errors import ConfigError, require_serving_extra, require_training_extra
from detseg.messages import printable
from detseg.serve.settings import ServiceSettings

KEY_VARIABLE = "DETSEG_API_KEY"
DEMO_RUN, _DEMO_CONFIG = Path("runs/demo"), "yolo_shapes"


def serve(argv: Sequence[str]) -> None:
    """Models → an HTTP service and a page: detseg serve runs/mine"""
    parser = ToolParser("serve", "Answer requests over HTTP with what models find, and show a page to try them.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=MODEL)
    _add_options(parser)
    workers = "processes, each with all models (1); the cores are divided among them"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers)
    parser.add_argument("--max-batch", type=int, default=8, metavar="N", help="images predicted at a time (8)")
    wait = "milliseconds that an image waits for others that are on their way (5)"
    parser.add_argument("--max-wait-ms", type=float, default=5.0, metavar="MS", help=wait)
    queue = "requests that are read or answered at a time; others get 503 (64)"
    parser.add_argument("--max-queue", type=int, default=64, metavar="N", help=queue)
    timeout = "seconds for a request to arrive, and for its answer (30)"
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help=timeout)
    parser.add_argument("--max-mb", type=float, default=20.0, metavar="MB", help="size of a request, MiB (20)")
    pixels = "size of an image, millions of pixels (50)"
    parser.add_argument("--max-megapixels", type=float, default=50.0, metavar="MP", help=pixels)
    lowest = "detectors: the lowest score that a request may ask for (0.05)"
    parser.add_argument("--min-score", type=score, default=0.05, metavar="X", help=lowest)
    key = f"a file whose first line is the key that requests must give; or set {KEY_VARIABLE}"
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help=key)
    arguments = parser.parse_intermixed_args(argv)
    settings = _settings(arguments, _api_key(arguments.api_key_file))
    require_serving_extra("detseg serve")
    _serve(arguments.models, settings)


def demo(argv: Sequence[str]) -> None:
    """The page with a model, or with a small one that is trained first: detseg demo [runs/mine]"""
    what = (
        f"Serve a model and open its page; without one, that of yolo_shapes is trained first, in {DEMO_RUN} (minutes)."
    )
    parser = ToolParser("demo", what)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help=MODEL)
    _add_options(parser)
    parser.add_argument("--no-browser", action="store_true", help="only say where the page is")
    arguments = parser.parse_intermixed_args(argv)
    settings = _settings(arguments, _api_key(None))
    require_serving_extra("detseg demo")
    models, samples = arguments.models, []
    if not models:
        models, samples = [DEMO_RUN], _train_demo()
    _serve(models, settings, samples, (lambda _: None) if arguments.no_browser else _open_browser)


def _add_options(parser: ToolParser) -> None:
    host = "where to listen (127.0.0.1: this machine alone; 0.0.0.0: every network)"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0: any free one (8000)")
    parser.add_argument("--device", default="auto", help=DEVICES)


def _settings(arguments: Namespace, api_key: str | None) -> ServiceSettings:
    """A mistake is said before a model is opened."""
    given = vars(arguments)
    return ServiceSettings(
        **{one.name: given[one.name] for one in fields(ServiceSettings) if one.name in given}, api_key=api_key
    )


def _serve(
    models: Sequence[Path],
    settings: ServiceSettings,
    samples: Sequence[Path] = (),
    on_listening: Callable[[str], object] = lambda _: None,
) -> None:
    """Until Ctrl-C or SIGTERM, which is the way to end it and no error."""
    with ExitStack() as stack:
        if settings.workers > 1:  # read when they begin: by Prometheus' client and by OpenMP
            shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="detseg-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
            os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // settings.workers, 1)))
        from detseg.serve.server import serve as run

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            run(models, settings, samples, on_listening)
        except KeyboardInterrupt:
            print("stopped")


def _api_key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(KEY_VARIABLE)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # editors of Windows write a mark first
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--api-key-file: {file}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if not lines or not lines[0].strip():
        raise ConfigError(f"--api-key-file: {file}: its first line is empty; write the key there")
    return lines[0].strip()


def _train_demo() -> list[Path]:
    """The model of the demo, unless it is there; returns images that it has not seen."""
    where = printable(str(DEMO_RUN))
    if (settings := DEMO_RUN / "config.yaml").exists() and load_config(settings).data.name != "shapes":
        raise ConfigError(f"{where} is another run; name it, detseg demo {where}, or move it")
    if _demo_is_trained():
        print(f"serving the model in {where}; delete that folder to train it again")
    else:
        require_training_extra("detseg demo without a model")
        from detseg.cli.train import train

        print(
            f"training a small model on images that are made for it, in {where} (minutes; Ctrl-C, and again: resumed)"
        )
        train([_DEMO_CONFIG, f"run_dir={DEMO_RUN}", "--resume=auto"], "the same command resumes: detseg demo")
    return sorted(Path("data/shapes/coco/val").glob("*"))[:6]


def _demo_is_trained() -> bool:
    """Whether the best checkpoint is that of the whole training: there is a row for each epoch."""
    rows, best = DEMO_RUN / "metrics.csv", DEMO_RUN / "checkpoints" / "best.ckpt"
    if not rows.exists() or not best.exists():
        return False
    num_epochs = load_config(Path(_DEMO_CONFIG)).trainer.max_epochs
    return len(rows.read_text(encoding="utf-8").splitlines()) > num_epochs


def _open_browser(address: str) -> None:
    import webbrowser

    # In a thread: a browser in the terminal returns when it is left.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
