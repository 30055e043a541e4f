"""`detseg serve` beside its own predictor, and under load with hostile requests; see docs/serving.md.

    python -m benchmarks.service runs/mine --images photos/ --seconds 20 --minutes 10

Prints requests a second and latencies at 1, 8 and 32 clients; then, for the minutes, what each kind of hostile request
was answered with, the memory of the service over time, and whether a stop under load lost a request.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from detseg.data.images.find import find_images
from detseg.memory import keep_freed_memory
from detseg.predict import load_predictor
from detseg.serve.settings import ServiceSettings

CLIENTS = (1, 8, 32)
HOSTILE = 0.1  # of the requests under load
LIMIT_MIB, TIMEOUT = 4, 5  # of the service under load


class Connection:
    """A client's connection, kept open while the service keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, body: bytes, kind: str = "image/jpeg", declared: int | None = None, path: str = "/predict"
    ) -> int:
        """The status of an answer, read whole; ``declared``: the length that the head says."""
        length = len(body) if declared is None else declared
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        return await self.send(head.encode() + body)

    async def send(self, data: bytes) -> int:
        """The status of what the service answers to any bytes."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            with suppress(ConnectionError):  # it may have answered before all was sent
                writer.write(data)
                await writer.drain()
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", answer)
            if length is not None:
                await reader.readexactly(int(length[1]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            raise
        if "connection: close" in answer:
            self.close()
        return int(answer.split()[1])

    def close(self) -> None:
        """The next request opens another one."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


class Service:
    """`detseg serve` in a process of its own."""

    def __init__(self, model: Path, *options: str) -> None:
        command = [sys.executable, "-m", "detseg", "serve", str(model), "--port", "0", "--device", "cpu", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = None
        while found is None and (line := self.process.stdout.readline()):
            found = re.search(r"serving on http://127.0.0.1:(\d+)", line)
        assert found is not None, "the service did not start"
        self.port = int(found[1])

    def memory(self) -> float:
        """Resident, MiB (Linux)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


async def rate(port: int, bodies: Sequence[bytes], num_clients: int, seconds: float) -> tuple[float, list[float]]:
    """Requests a second, and the milliseconds of each, of clients that ask again as soon as they are answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection = Connection(port)
        for body in itertools.islice(itertools.cycle(bodies), number, None):
            begin = time.perf_counter()
            if begin > end:
                break
            assert await connection.ask(body) == 200
            times.append(1000 * (time.perf_counter() - begin))
        connection.close()

    begin = time.perf_counter()
    await asyncio.gather(*map(client, range(num_clients)))
    return len(times) / (time.perf_counter() - begin), times


def bare_rate(predictor: Any, files: Sequence[Path], batch_size: int, seconds: float) -> float:
    """Images a second of the predictor itself, from files."""
    number, begin = 0, time.perf_counter()
    for chunk in itertools.cycle([list(files[i : i + batch_size]) for i in range(0, len(files), batch_size)]):
        number += len(predictor(chunk, batch_size=batch_size))
        if time.perf_counter() - begin > seconds:
            return number / (time.perf_counter() - begin)
    raise AssertionError


def throughput(model: Path, files: Sequence[Path], seconds: float, rounds: int) -> None:
    """The predictor with batches of 1 and 8, and the service at each number of clients, in turn."""
    predictor: Any = load_predictor(model, "cpu")
    if hasattr(predictor, "score_threshold"):
        predictor.score_threshold = ServiceSettings().min_score
    bodies = [file.read_bytes() for file in files]
    service = Service(model)
    names = ["predictor, batch 1", "predictor, batch 8", *(f"service, clients: {n}" for n in CLIENTS)]
    rates: dict[str, list[float]] = {name: [] for name in names}
    latencies: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first round warms up
        for name, batch_size in zip(names, (1, 8), strict=False):
            if number >= 0:
                rates[name].append(bare_rate(predictor, files, batch_size, seconds))
        for name, num_clients in zip(names[2:], CLIENTS, strict=True):
            found, times = asyncio.run(rate(service.port, bodies, num_clients, seconds if number >= 0 else 1))
            if number >= 0:
                rates[name].append(found)
                latencies[name] += times
    assert service.stop() == 0
    best = max(statistics.median(rates[name]) for name in names[:2])
    print("| | images/s, median (all) | of the best predictor | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for name in names:
        middle, times = statistics.median(rates[name]), latencies[name]
        cuts = statistics.quantiles(times, n=100) if len(times) > 1 else []
        shown = f"{cuts[49]:.0f} | {cuts[98]:.0f}" if cuts else " | "
        each = ", ".join(f"{value:.1f}" for value in rates[name])
        print(f"| {name} | {middle:.1f} ({each}) | {middle / best:.0%} | {shown} |")


def hostile_requests(port: int, good: bytes) -> dict[str, Callable[[], Awaitable[int]]]:
    """Kind → what sends one and gives its status; each by a connection of its own."""

    async def slow() -> int:
        """Sends a half, and no more."""
        return await Connection(port).ask(good[: len(good) // 2], declared=len(good))

    async def gone() -> int:
        """Sends a half, and closes the connection."""
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 999\r\n\r\nabc")
        await writer.drain()
        writer.close()
        return 0

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    bomb = bytearray(buffer.getvalue())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    wide = io.BytesIO()
    Image.new("1", (60_000, 60_000 // 8)).save(wide, format="PNG")  # small as a file, 450 million pixels
    large = bytes((LIMIT_MIB << 20) + 1)
    return {
        "truncated": lambda: Connection(port).ask(good[: len(good) // 2]),
        "too many bytes": lambda: Connection(port).ask(large),
        "terabytes declared": lambda: Connection(port).ask(b"", declared=10**12),
        "bomb by its header": lambda: Connection(port).ask(bytes(bomb)),
        "bomb": lambda: Connection(port).ask(wide.getvalue()),
        "no image": lambda: Connection(port).ask(b"hello"),
        "wrong type": lambda: Connection(port).ask(good, "text/plain"),
        "wrong JSON": lambda: Connection(port).ask(b"[" * 100_000, "application/json"),
        "wrong option": lambda: Connection(port).ask(good, path="/predict?score=7"),
        "not HTTP": lambda: Connection(port).send(b"\x16\x03\x01\x02\r\n\r\n"),
        "slow sender": slow,
        "gone away": gone,
    }


async def load(service: Service, bodies: Sequence[bytes], minutes: float, num_clients: int = 16) -> None:
    """Mixed requests; prints statuses by kind, and the memory."""
    answers: dict[str, Counter[int]] = {}
    kinds, generator = hostile_requests(service.port, bodies[0]), random.Random(0)
    end = time.monotonic() + 60 * minutes

    async def client(number: int) -> None:
        connection = Connection(service.port)
        for body in itertools.islice(itertools.cycle(bodies), number, None):
            if time.monotonic() > end:
                break
            kind = generator.choice(list(kinds)) if generator.random() < HOSTILE else "right"
            if kind != "right":
                connection.close()  # it would be idle for so long that the service closes it
            try:
                status = await (connection.ask(body) if kind == "right" else kinds[kind]())
            except (ConnectionError, asyncio.IncompleteReadError):
                status = -1  # the connection was reset
            answers.setdefault(kind, Counter())[status] += 1

    async def watch() -> list[float]:
        memory = []
        while time.monotonic() < end:
            await asyncio.sleep(min(10, max(60 * minutes / 12, 1)))
            memory.append(service.memory())
        return memory

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(client, range(num_clients)))
    memory = await watching
    print("\n| request | answers: status × number (-1: reset, 0: none wanted) |\n|---|---|")
    for kind, statuses in sorted(answers.items()):
        print(f"| {kind} | {', '.join(f'{status} × {number}' for status, number in sorted(statuses.items()))} |")
    print(f"\nresident memory, MiB: {' '.join(f'{value:.0f}' for value in memory)}")
    print(f"the service {'runs' if service.process.poll() is None else 'has CRASHED'}")


async def stop_under_load(service: Service, bodies: Sequence[bytes], num_clients: int = 32) -> None:
    """A stop while requests are being answered."""
    asked = [asyncio.create_task(Connection(service.port).ask(bodies[i % len(bodies)])) for i in range(num_clients)]
    await asyncio.sleep(0.1)  # all are accepted, few are answered
    answered = sum(task.done() for task in asked)
    service.process.send_signal(signal.SIGTERM)
    found = Counter(str(answer) for answer in await asyncio.gather(*asked, return_exceptions=True))
    code = service.process.wait(120)
    print(f"stopped with {answered} of {num_clients} requests answered: {dict(found)}, exit code {code}")


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0, help="under load with hostile requests")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the service does it
    files = [arguments.images / name for name in find_images(arguments.images)[:64]]
    if arguments.rounds:
        throughput(arguments.model, files, arguments.seconds, arguments.rounds)
    if arguments.minutes:
        bodies = [file.read_bytes() for file in files]
        service = Service(arguments.model, "--timeout", str(TIMEOUT), "--max-mb", str(LIMIT_MIB))
        asyncio.run(load(service, bodies, arguments.minutes))
        service.stop()
        asyncio.run(stop_under_load(Service(arguments.model), bodies))


if __name__ == "__main__":
    main()
