"""`detseg serve` as a process: mistakes are one line, SIGTERM loses no accepted request, several processes share."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from detseg.cli import main
from tests.serve.servers import ask
from tests.tiny import TinyRun

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def service(
    *arguments: object, command: str = "serve", folder: Path = ROOT, descriptors: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client, str]]:
    """The command on a free port, once it is ready, and what it said before; ``descriptors``: the most that it gets."""
    words = [sys.executable, "-m", "detseg", command, *map(str, arguments), "--port", "0", "--device", "cpu"]
    if descriptors is not None:
        words = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(words, cwd=folder, env=environment, text=True, **streams)
    try:
        assert process.stdout is not None
        lines = []
        while (line := process.stdout.readline()) and "serving on" not in line:
            lines.append(line)
        address = re.search(r"serving on (http://\S+)", line)
        assert address is not None, lines
        with httpx.Client(base_url=address[1], timeout=60) as client:
            end = time.monotonic() + 120
            while client.get("/health").status_code != 200:
                assert time.monotonic() < end
                time.sleep(0.1)
            yield process, client, "".join(lines)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


@pytest.fixture
def process_as_it_was() -> Iterator[None]:
    """The command sets a signal handler and variables, and expects its process to end."""
    handler, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    yield
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(environment)


def test_a_stop_loses_no_accepted_request(tiny_run: TinyRun) -> None:
    image = (tiny_run.data_root / "JPEGImages" / "val01.png").read_bytes()
    accepted = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with service(tiny_run.run_dir, "--max-queue", 500) as (process, client, _), ThreadPoolExecutor(40) as pool:
        with httpx.Client(base_url=client.base_url, timeout=60, limits=accepted) as many:

            def one(_: int) -> int:
                return ask(many, image).status_code

            asked = [pool.submit(one, number) for number in range(40)]
            numbers = client.get("/metrics").text
            while not re.search(r"detseg_queue_length (?!0\.0)|predict\",status=\"200\"", numbers):
                numbers = client.get("/metrics").text
            time.sleep(0.2)  # all have connected
            process.send_signal(signal.SIGTERM)
            assert [future.result() for future in asked] == [200] * 40
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(client.base_url)


@pytest.mark.processes
def test_ctrl_c_is_the_way_to_end_it(tiny_run: TinyRun) -> None:
    with service(tiny_run.run_dir) as (process, *_):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "stopped\n"


@pytest.mark.processes
def test_several_workers_share_the_port_and_the_numbers(tiny_run: TinyRun) -> None:
    image = (tiny_run.data_root / "JPEGImages" / "val01.png").read_bytes()
    with service(tiny_run.run_dir, "--workers", 2) as (process, client, _):
        answers = []
        for _ in range(30):  # each by a connection of its own
            with httpx.Client(base_url=client.base_url, timeout=60) as other:
                answers.append(ask(other, image).json()["objects"])
        assert answers == [answers[0]] * 30
        time.sleep(1)
        counted = re.search(r'detseg_requests_total{path="/predict",status="200"} (\d+)', client.get("/metrics").text)
        assert counted is not None
        assert counted[1] == "30"
        # A stop: what was accepted is answered, and nobody else waits in a queue for it.
        port = client.base_url.port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
            )
            slow.sendall(head.encode() + image[:9])
            time.sleep(0.3)
            process.terminate()
            time.sleep(2)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            slow.sendall(image[9:])
            assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
        assert process.wait(60) == 0


@pytest.mark.processes
def test_what_idle_clients_can_do_to_a_service(tiny_run: TinyRun) -> None:
    """With more connections than it has descriptors for: nothing lasts, and the log stays short."""
    with service(tiny_run.run_dir, descriptors=128) as (process, client, _), ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port or 0)
        begun = b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        for _ in range(300):
            stack.enter_context(socket.create_connection(address, timeout=5)).sendall(begun)
        end = time.monotonic() + 30
        while True:  # whoever connects now is refused, until the others have been quiet for too long
            try:
                with httpx.Client(base_url=client.base_url, timeout=5) as other:
                    if (status := other.get("/health").status_code) == 200:
                        break
                    assert status == 503
            except httpx.HTTPError:
                pass
            assert time.monotonic() < end
            time.sleep(0.5)
        process.terminate()
        assert process.wait(30) == 0
        assert process.stdout is not None
        said = process.stdout.read().splitlines()
    assert said in ([], ["error: no file descriptors are left; see ulimit -n"])


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that serve."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_that_die(tiny_run: TinyRun) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\nabc"
    with service(tiny_run.run_dir, "--workers", 2) as (process, client, _), ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port or 0)
        for _ in range(4):
            stack.enter_context(socket.create_connection(address, timeout=30)).sendall(head)
        time.sleep(0.5)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # killed while it is asked whether it is alive
            for worker in workers_of(process):
                os.kill(worker, number)
            time.sleep(1)
        with httpx.Client(base_url=client.base_url, timeout=60) as other:  # by those that were started again
            assert "detseg_queue_length 0.0" in other.get("/metrics").text
        while process.poll() is None:
            for worker in workers_of(process):
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.1)
        assert process.returncode == 2
        assert process.stdout is not None
        *_, before, last = process.stdout.read().splitlines()
    assert re.fullmatch(r"warning: worker \d+ ended \(exit code -9\); another one is started", before)
    assert last == "error: workers ended 5 times within a minute (out of memory?); the service has stopped"


@pytest.mark.processes
def test_a_worker_that_cannot_start_ends_the_service(tiny_run: TinyRun, tmp_path: Path) -> None:
    best = shutil.copy(tiny_run.best, tmp_path / "mine.ckpt")
    words = [sys.executable, "-m", "detseg", "serve", str(best), *["--workers", "2", "--port", "0", "--device", "cpu"]]
    with subprocess.Popen(words, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) and "serving on" not in line:
                pass
            best.unlink()  # its workers have not yet opened it
            assert process.wait(60) == 2
        finally:
            process.kill()
        lines = process.stdout.read().splitlines()
    assert lines[-1] == "error: a worker cannot start, see above; the service has stopped"
    assert any(line.startswith(f"error: {best}: ") for line in lines)
    assert not any("Traceback" in line for line in lines), lines


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["serve"], "the following arguments are required: MODEL"),
        (["serve", "nowhere", "--port", "0"], "nowhere: "),
        (["serve", "nowhere", "--port", "0", "--workers", "2"], "nowhere: "),
        (["serve", "x", "--max-batch", "0"], "max_batch: expected 1 to 1024, got 0"),
        (["serve", "x", "--max-mb", "0"], "max_mb: expected 0.001 to 1024, got 0"),
        (["serve", "x", "--max-megapixels", "inf"], "max_megapixels: expected 0.001 to 178.957, got inf"),
        (["serve", "x", "--port", "70000"], "port: expected 0 to 65535, got 70000"),
        (["serve", "x", "--api-key-file", "nowhere"], "--api-key-file: nowhere: cannot be read (No such file"),
        (["serve", "x", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1, port 8000: "),
    ],
)
@pytest.mark.usefixtures("process_as_it_was")
def test_a_mistake_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}"), error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("process_as_it_was")
def test_a_port_that_is_taken(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(tiny_run.run_dir), "--port", str(taken.getsockname()[1])]) == 2
    assert "choose others with --host and --port" in capsys.readouterr().err


@pytest.mark.processes
def test_an_open_service_is_warned_of_and_the_key_comes_from_a_file(tiny_run: TinyRun, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n", encoding="utf-8-sig")  # with a mark, as editors of Windows do it
    assert "DETSEG_API_KEY" not in os.environ
    with service(tiny_run.run_dir, "--host", "0.0.0.0") as (_, client, said):
        assert client.get("/models").status_code == 200
        assert said == "warning: 0.0.0.0 is open to other machines, and no key is asked for: set DETSEG_API_KEY\n"
    with service(tiny_run.run_dir, "--api-key-file", key) as (_, client, said):
        assert client.get("/models").status_code == 401
        assert client.get("/models", headers={"authorization": "Bearer secret"}).status_code == 200
        assert said == ""


def test_the_service_imports_nothing_of_the_training() -> None:
    code = "import sys, detseg.serve.server; print({'lightning', 'albumentations', 'pycocotools'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_demo_leaves_other_runs_alone(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    shutil.copy(tiny_run.run_dir / "config.yaml", tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--no-browser"]) == 2
    assert capsys.readouterr().err == "error: runs/demo is another run; name it, detseg demo runs/demo, or move it\n"


@pytest.mark.processes
def test_the_demo_serves_the_model_that_it_trained_with_samples(tiny_run: TinyRun, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.run_dir, tmp_path / "runs" / "demo")
    rows = tmp_path / "runs" / "demo" / "metrics.csv"
    header = rows.read_text().splitlines()[0]
    rows.write_text("\n".join([header, *["1"] * 40]) + "\n")  # as many epochs as yolo_shapes has
    shutil.copy(ROOT / "configs" / "yolo_shapes.yaml", tmp_path / "runs" / "demo" / "config.yaml")
    shutil.copytree(tiny_run.data_root / "JPEGImages", tmp_path / "data" / "shapes" / "coco" / "val")
    with service("--no-browser", command="demo", folder=tmp_path) as (process, client, _):
        assert client.get("/models").json()["samples"] == 6
        assert client.get("/samples/5").headers["content-type"] == "image/png"
        assert client.get("/samples/6").status_code == 404
        process.terminate()
        assert process.wait(30) == 0


def test_the_image_runs_the_service_without_root() -> None:
    """It cannot be built here: its paths, its user and its command are checked."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    words = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert [line[1] for line in words if line[0] == "USER"] == ["10001"]
    for *sources, _ in (line[1:] for line in words if line[0] == "COPY"):
        assert all((ROOT / source).exists() for source in sources)
    entry = json.loads(
        next(line for line in text.splitlines() if line.startswith("ENTRYPOINT")).removeprefix("ENTRYPOINT")
    )
    assert entry[0] == "detseg"
    assert main([*entry[1:], "x", "--port", "70000"]) == 2  # the arguments are known, and the port is not
