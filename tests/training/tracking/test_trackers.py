"""Runs in TensorBoard, MLflow and Weights & Biases, read by their own programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detseg.config.load import load_config
from detseg.errors import ConfigError, MissingExtraError, RunStoppedError
from detseg.training.callbacks.stopping import StopByValidation, StopRequest
from detseg.training.run import train
from detseg.training.setup.build import Own
from detseg.training.tracking import build
from detseg.training.tracking.build import build_trackers
from detseg.training.tracking.services import MlflowTracker
from tests.browser import document_of, needs_chromium
from tests.heard import heard
from tests.tiny import CLASSES, TinyRun, rows_of, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")
mlflow: Any = pytest.importorskip("mlflow")
wandb: Any = pytest.importorskip("wandb")


@pytest.fixture(scope="module")
def tracked(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of two epochs, resumed for a third, that all trackers were told of."""
    folder = tmp_path_factory.mktemp("tracked") / "first"
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in names:
            patch.delenv(name, raising=False)
        settings = (
            "tracking=[csv,tensorboard,mlflow,wandb]",
            "tags.dataset=colors",
            "trainer.validate_every=1",
            "trainer.log_every_n_steps=4",
            "trainer.diagnostics=[gradient_norm,update_ratio,dead_activations,histograms]",
        )
        for epochs, resume in (("2", None), ("3", "last")):
            config = tiny_config(tiny_run.config_path, folder, *settings, f"trainer.max_epochs={epochs}")
            train(config, tiny_run.config_path, resume=resume)
        yield folder


def test_tensorboard_has_all_numbers_pictures_and_settings(tracked: Path) -> None:
    events = EventAccumulator(str(tracked / "tensorboard"), {"images": 0, "tensors": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    assert {"train/loss_step", "train/box_step", "lr", "gradient_norm", "val/AP", "val/F1", "val/AR_10"} <= scalars
    assert {f"val_by_class/AP/{name}" for name in CLASSES} <= scalars
    assert {"update_ratio/backbone.stage2", "update_ratio/head", "dead_activations/backbone"} <= scalars
    assert [event.step for event in events.Scalars("lr")] == [1, 4, 8, 12, 16, 20, 24]  # 8 steps an epoch
    assert all(event.value > 0 for event in events.Scalars("lr"))
    assert set(tags["images"]) == {"pictures/train_batch", "pictures/val_predictions"}
    assert [event.step for event in events.Histograms("weights/head")] == [1, 9, 17]  # the first of each epoch
    assert {"settings/text_summary", "run/text_summary"} <= set(tags["tensors"])
    by_epoch = [float(row["val/AP"]) for row in rows_of(tracked)]
    assert [event.value for event in events.Scalars("val/AP")] == pytest.approx(by_epoch, rel=1e-6)


def test_mlflow_has_parameters_numbers_tags_and_files(tracked: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{tracked.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'detseg'")
    (run,) = client.search_runs([experiment.experiment_id])  # the resumed run is the same
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["optimizer/lr"] == "0.005"
    assert run.data.tags["dataset"] == "colors"
    assert "git_commit" in run.data.tags or not Path(".git").exists()
    history = client.get_metric_history(run.info.run_id, "val/AP")
    assert [point.value for point in history] == [float(row["val/AP"]) for row in rows_of(tracked)]
    assert f"val_by_class/AP/{CLASSES[0]}" in run.data.metrics
    found = {file.path for file in client.list_artifacts(run.info.run_id)}
    wanted = {"best.ckpt", "config.yaml", "metrics.csv", "metrics.json", "run.json", "start.json", "images"}
    assert wanted <= found
    path = client.download_artifacts(run.info.run_id, "best.ckpt")
    assert Path(path).read_bytes() == (tracked / "checkpoints" / "best.ckpt").read_bytes()
    assert not list(tracked.parent.glob("mlruns*"))


def test_wandb_offline_has_numbers_and_settings(tracked: Path) -> None:
    runs = sorted((tracked / "wandb").glob("offline-run-*"))
    assert len(runs) == 2  # one id: syncing joins them
    assert len({run.name.rpartition("-")[2] for run in runs}) == 1
    for run in runs:
        (record,) = run.glob("run-*.wandb")
        content = record.read_bytes()
        assert b"val/AP" in content
        assert b"val_by_class/AP/blue" in content
        assert b"best.ckpt" in content


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or os.getuid() != 0, reason="a network of its own needs root")
def test_wandb_offline_needs_no_network(tmp_path: Path) -> None:
    code = (
        "from detseg.training.tracking.services import WandbTracker; from pathlib import Path; import sys;"
        "tracker = WandbTracker(Path(sys.argv[1]), {}, None); tracker.begin({}, {});"
        "tracker.log_metrics({'val/AP': 0.5}, 1); tracker.end([]); print(tracker.is_off)"
    )
    command = ["unshare", "--net", sys.executable, "-c", code, str(tmp_path)]  # without so much as a loopback
    environment = {**os.environ, "WANDB_MODE": "offline"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    if "unshare failed" in ran.stderr:
        pytest.skip("no network of its own is allowed here")
    assert ran.stdout.split() == ["False"], ran.stderr
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"val/AP" in record.read_bytes()


def test_the_run_remembers_both_starts(tracked: Path) -> None:
    content = json.loads((tracked / "run.json").read_text(encoding="utf-8"))
    assert len(content["starts"]) == 2
    assert set(content["trackers"]) == {"mlflow", "wandb"}
    assert content["starts"][0]["data"]["train"]["images"] == 16
    assert load_config(tracked / "config.yaml").tracking == ("csv", "tensorboard", "mlflow", "wandb")


@pytest.mark.processes
def test_nothing_reports_its_use(tracked: Path) -> None:
    """In a process of its own, whatever this one's environment says."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY")}
    code = (
        "from pathlib import Path; import os, sys; from detseg.training.tracking.build import build_trackers;"
        "build_trackers(['mlflow'], Path(sys.argv[1]), {}); from mlflow.telemetry import get_telemetry_client as client"
        ";"
        "print(client(), 'MLFLOW_DISABLE_TELEMETRY' in os.environ)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tracked)], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["None", "False"]


def test_a_tracker_that_fails_costs_a_line_and_not_the_training(tmp_path: Path) -> None:
    tracker = MlflowTracker(tmp_path / "run", {}, None)
    tracker.experiment.delete_run(tracker.begin({"seed": 0}, {"command": "x", "detseg": "0"}))
    with heard() as lines:
        for step in range(3):
            tracker.log_metrics({"loss": 1.0}, step)
        tracker.end([])
        tracker.finalize("success")
    assert len(lines) == 1
    assert "tracking: mlflow failed, and gets nothing more of this run" in lines[0]


class _StallingServer(BaseHTTPRequestHandler):
    """Answers as MLflow's does until it is sent a metric; then it accepts and answers nothing."""

    files: ClassVar[str]

    def do_POST(self) -> None:
        if b'"metrics": [{' in self.rfile.read(int(self.headers.get("Content-Length", 0))):
            threading.Event().wait()
        info = {"run_id": "a", "run_uuid": "a", "experiment_id": "1", "status": "RUNNING", "artifact_uri": self.files}
        experiment = {"experiment_id": "1", "name": "detseg", "lifecycle_stage": "active"}
        answer = json.dumps({"experiment": experiment, "run": {"info": info, "data": {}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815  # as http.server wants it

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stalling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _StallingServer) as server:
        server.daemon_threads = True
        monkeypatch.setattr(_StallingServer, "files", (tmp_path / "files").as_uri(), raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
        yield
        server.shutdown()


@pytest.mark.usefixtures("stalling")
def test_a_server_that_never_answers_holds_no_training_up(tiny_run: TinyRun, tmp_path: Path) -> None:
    """It is stopped by a request, which takes the seconds of docs/tracking.md."""
    stop, began = StopRequest(), time.monotonic()

    def enough(epoch: int, _: float) -> bool:
        if epoch == 2:
            stop.ask()
        return False

    config = tiny_config(tiny_run.config_path, tmp_path / "run", "tracking=[mlflow]", "trainer.validate_every=1")
    own = Own(stop=stop, callbacks=[StopByValidation("val/AP", enough)])
    with heard() as lines, pytest.raises(RunStoppedError, match="everything is saved"):
        train(config, tiny_run.config_path, own=own)
    assert time.monotonic() - began < 25
    assert lines[-1].startswith("tracking: mlflow failed, and gets nothing more of this run: its server did not answer")


@pytest.mark.usefixtures("stalling")
def test_numbers_beyond_the_room_for_them_switch_it_off(tmp_path: Path) -> None:
    tracker = MlflowTracker(tmp_path / "run", {}, None)
    tracker.begin({"seed": 0}, {"command": "x", "detseg": "0"})
    began = time.monotonic()
    with heard() as lines:
        for step in range(1000):
            tracker.log_metrics({"loss": 1.0}, step)
        tracker.end([])
    assert len(lines) == 1
    assert "its server does not answer, or more slowly than there are numbers" in lines[0]
    assert time.monotonic() - began < 15


def error_of_training(run: TinyRun, folder: Path, tracker: str) -> str:
    config = tiny_config(run.config_path, folder, f"tracking=[{tracker}]", "trainer.max_epochs=9")
    with pytest.raises(ConfigError) as error:
        train(config, run.config_path, resume="last" if folder.exists() else None)
    return str(error.value)


def test_a_tracker_that_cannot_be_opened_is_one_line(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = error_of_training(tiny_run, tmp_path / "run", "mlflow")
    assert message.startswith(f"tracking: mlflow cannot open a run at http://me:***@127.0.0.1:{port}: ")
    assert "secret" not in message
    assert message.endswith("; set MLFLOW_TRACKING_URI to where it is, or leave mlflow out of tracking")


def test_without_an_account_there_is_one_line(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: Any, **__: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)  # as it does, where the process has not been offline before
    hint = "without an account or a network set WANDB_MODE=offline"
    message = f"tracking: wandb cannot open a run: No API key configured.; {hint}"
    assert error_of_training(tiny_run, tmp_path / "run", "wandb") == message


def test_a_run_that_its_tracker_does_not_know_is_one_line(tracked: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tracked, moved)
    message = error_of_training(tiny_run, moved, "mlflow")
    assert message.startswith(f"tracking: mlflow cannot open a run at sqlite:///{tmp_path / 'mlflow.db'}: ")


@pytest.mark.slow
def test_two_processes_that_begin_at_once_make_one_database(tmp_path: Path) -> None:
    code = (
        "from detseg.training.tracking.services import MlflowTracker; from pathlib import Path; import sys, time;"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()));"
        "print(MlflowTracker(Path(sys.argv[1]) / sys.argv[3], {}, None).begin({}, {'command': '', 'detseg': ''}))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 8)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, name], **pipes) for name in ("one", "two")]
    ids = [process.communicate(timeout=240)[0].strip() for process in processes]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {client.get_run(run_id).info.run_name for run_id in ids} == {"one", "two"}


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r'tracking: mlflow and wandb not installed: pip install "detseg\[track'
    ):
        build_trackers(("csv", "mlflow", "wandb"), tmp_path, {})


@pytest.mark.slow
@pytest.mark.browser
@needs_chromium
def test_the_page_of_mlflow_shows_the_metric(tracked: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tracked.parent / 'mlflow.db'}"
    run_id = json.loads((tracked / "run.json").read_text(encoding="utf-8"))["trackers"]["mlflow"]
    run = mlflow.MlflowClient(uri).get_run(run_id)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as server:
        try:
            for _ in range(240):
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.25)
            page = f"http://127.0.0.1:{port}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
            shown = document_of(page, tmp_path, "--virtual-time-budget=30000", is_ours=False)
        finally:
            server.terminate()
    text = re.sub(r"<[^>]+>", " ", shown)
    assert "val/AP50" in text
    assert "optimizer/lr" in text
