"""The commands of docs/multi_gpu.md for two nodes, as two nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detseg.checkpoint import LAST
from detseg.evaluation import evaluate_checkpoint
from detseg.training.distributed import slurm_environment
from detseg.training.run import train
from tests.forked import free_port, run_together
from tests.tiny import TinyRun, rows_of, tiny_config, write_colors, write_config

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]
TINY = ("data.batch_size=1", "trainer.max_epochs=1", "trainer.validate_every=1", "trainer.ema_decay=0")


def commands_of_the_page() -> list[str]:
    """The lines for the first and for the second node."""
    text = (ROOT / "docs" / "multi_gpu.md").read_text(encoding="utf-8")
    return re.findall(r"^torchrun --nnodes=2 .*$", text, flags=re.MULTILINE)


def on_this_machine(command: str, port: int, config: Path, run_dir: Path) -> list[str]:
    """The command with one process a node, this machine's address, and other settings; nothing else is changed."""
    for old, new in {
        "torchrun ": f"{shlex.quote(sys.executable)} -m torch.distributed.run ",  # which is what torchrun calls
        "--nproc_per_node=4": "--nproc_per_node=1",
        "--master_addr=node0": "--master_addr=127.0.0.1",
        "--master_port=29500": f"--master_port={port}",
        "yolo_coco": shlex.quote(str(config)),
        "trainer.devices=4": "trainer.devices=1",
        "run_dir=runs/two_nodes": shlex.quote(f"run_dir={run_dir}"),
    }.items():
        assert command.count(old) == 1, (old, command)
        command = command.replace(old, new)
    return [*shlex.split(command), *TINY]


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyRun, list[str]]:
    """The run of both, and what each said."""
    folder = tmp_path_factory.mktemp("two_nodes")
    data = write_colors(folder / "colors", {"train": 8, "val": 3})
    config = write_config(folder / "tiny.yaml", data)
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    nodes = [
        subprocess.Popen(on_this_machine(command, port, config, folder / "run"), cwd=ROOT, env=environment, **options)
        for command in commands_of_the_page()
    ]
    try:
        outputs = [node.communicate(timeout=300) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], outputs
    return TinyRun(config, data, folder / "run"), [output for output, _ in outputs]


def test_two_nodes_train_one_model_as_one_and_the_first_speaks(two_nodes: tuple[TinyRun, list[str]]) -> None:
    first, second = commands_of_the_page()
    assert second == first.replace("--node_rank=0", "--node_rank=1")
    run, (first, second) = two_nodes
    (row,) = run.rows()
    assert int(row["step"]) == 4  # 8 images, one for each of two nodes
    assert "data      8 training and 3 validation images" in first
    assert second == ""
    alone = evaluate_checkpoint(run.run_dir / "checkpoints" / LAST, "val", device="cpu")
    together = json.loads((run.run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert together == json.loads(json.dumps(alone.to_dict()))
    assert together["num_images"] == 3


def run_as_a_task_of_slurm(config_path: Path, run_dir: Path, epochs: int) -> None:
    """What the page's ``srun`` starts, in the environment that it gives."""
    rank = os.environ.pop("RANK")
    del os.environ["LOCAL_RANK"]
    numbers = {"JOB_ID": "4711", "NTASKS": "2", "NTASKS_PER_NODE": "2", "PROCID": rank, "LOCALID": rank, "NODEID": "0"}
    slurm = numbers | {"JOB_NAME": "tiny", "NODELIST": "localhost"}
    os.environ |= {f"SLURM_{name}": value for name, value in slurm.items()}
    settings = ("trainer.devices=2", *TINY, f"trainer.max_epochs={epochs}")
    train(tiny_config(config_path, run_dir, *settings), config_path, "auto")


def test_tasks_of_slurm_find_each_other_and_a_job_resumes(two_nodes: tuple[TinyRun, list[str]], tmp_path: Path) -> None:
    for epochs in (1, 2):
        run_together(run_as_a_task_of_slurm, 2, two_nodes[0].config_path, tmp_path / "run", epochs)
    assert [(row["epoch"], row["step"]) for row in rows_of(tmp_path / "run")] == [("1", "4"), ("2", "8")]


def test_torchrun_within_a_job_of_slurm_numbers_its_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "tiny")
    (environment,) = slurm_environment()
    assert not environment.auto_requeue
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # by which torch knows torchrun
    assert slurm_environment() == []
