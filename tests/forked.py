"""Several real processes that speak over gloo on this machine.

They are forked off a server that has imported everything once; a fork of the test process itself could not compute
gradients, because that process has done so.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[1])
_PRELOADED = ["timm", "lightning", "albumentations", "pycocotools.cocoeval", "detseg.training.run", "detseg.evaluation"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_together(function: Callable[..., Any], world_size: int, *arguments: Any, patience: float = 300) -> list[Any]:
    """Call a function of a test module in so many processes; what it returns in each, in the order of their ranks.

    Raises:
        AssertionError: one of them raised, with its traceback, or took longer than ``patience`` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    os.environ.setdefault("PYTHONPATH", _ROOT)  # of the server, which is started once
    context.set_forkserver_preload(_PRELOADED)
    port = free_port()
    pipes, processes = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, function, rank, world_size, port, arguments))
        process.start()
        sender.close()
        pipes, processes = [*pipes, receiver], [*processes, process]
    try:
        return [_result(pipe, rank, patience) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _result(pipe: Connection, rank: int, patience: float) -> Any:
    assert pipe.poll(patience), f"process {rank} has not ended after {patience} s"
    try:
        raised, outcome = pipe.recv()
    except EOFError:
        raise AssertionError(f"process {rank} has died") from None
    assert not raised, f"process {rank}:\n{outcome}"
    return outcome


def _work(
    sender: Connection, function: Callable[..., Any], rank: int, world_size: int, port: int, arguments: tuple[Any, ...]
) -> None:
    import lightning.fabric.utilities.rank_zero as fabric
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    torch.set_num_threads(1)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    numbers = (rank, rank, world_size, port)
    os.environ |= dict(zip(names, map(str, numbers), strict=True))
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    rank_zero_only.rank = fabric.rank_zero_only.rank = rank  # Lightning looked when it was imported
    try:
        sender.send((False, function(*arguments)))
    except BaseException:
        sender.send((True, traceback.format_exc()))
