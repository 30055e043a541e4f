"""The readers of configurations and checkpoints, with valid files to start from."""

from __future__ import annotations

import io
import json
import math
import random
import zipfile
from pathlib import Path
from typing import Any

import torch

from detseg.checkpoint import (
    ModelCheckpoint,
    model_entry,
    read_model_checkpoint,
    read_raw_checkpoint,
    save_atomically,
    write_weights,
)
from detseg.config.load import config_from_dict, config_to_dict, config_to_yaml, load_config
from detseg.config.schema.experiment import ExperimentConfig
from detseg.factory import build_model, load_model
from detseg.structures import ClassTable
from tests.bits import digest_of
from tests.fuzz.campaign import NotTestedError, Target
from tests.fuzz.mutator import byte_mutator, either, other_encoding, then_sometimes
from tests.fuzz.trees import mutate_json, mutate_yaml
from tests.tiny import CLASSES, tiny_config, write_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_YAML = then_sometimes(
    then_sometimes(mutate_yaml, other_encoding, 0.05),
    byte_mutator(
        (b": ", b"- ", b"\n  ", b"\t", b"&a ", b"*a", b"!!", b"? ", b"---\n", b"%YAML 1.1\n", b"|\n", b"<<: ", b"\\U")
    ),
    0.3,
)


def config(folder: Path) -> Target:
    """A configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("yolo_shapes", "unet_nuclei", "mask_rcnn_shapes", "faster_rcnn_voc", "yolo_anchor_voc")
    seeds = [(CONFIGS / f"{name}.yaml").read_bytes() for name in names]
    seeds += [config_to_yaml(load_config(CONFIGS / f"{name}.yaml")).encode() for name in names[:3]]

    def read(content: bytes) -> None:
        path = folder / "x.yaml"
        path.write_bytes(content)
        found = load_config(path)
        _check_config(found)
        path.write_text(config_to_yaml(found), encoding="utf-8")
        assert load_config(path) == found

    return Target("config", tuple(seeds), _YAML, read, str(folder))


def overrides(folder: Path) -> Target:
    """Arguments of a command line, one a line."""
    seeds = ["model.backbone.width=0.5\ntrainer.max_epochs=3", "data.classes=[a, 'b c']\nseed=7", "model.name=unet"]
    tokens = [name.encode() for name in ("model.", "data.", "optimizer.lr", "=", "==", "{a: 1}", "[", "null", "~", "#")]

    def read(content: bytes) -> None:
        lines = content.decode(errors="surrogateescape").split("\n")  # as Python decodes arguments
        _check_config(load_config(CONFIGS / "yolo_shapes.yaml", lines))

    return Target("overrides", tuple(seed.encode() for seed in seeds), byte_mutator(tokens), read, "")


def _check_config(found: ExperimentConfig) -> None:
    """It comes back from plain data, and every number in it is finite."""
    plain = config_to_dict(found)
    assert config_from_dict(plain) == found
    assert all(math.isfinite(value) for value in _leaves(plain) if isinstance(value, float))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def checkpoint(folder: Path) -> Target:
    """The bytes of a checkpoint: either they are refused, or all that was written is there."""
    path = folder / "x.ckpt"
    save_atomically(_contents(folder), path)
    seed = path.read_bytes()
    written = digest_of(read_raw_checkpoint(path))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = digest_of(read_raw_checkpoint(path))
        read_model_checkpoint(path)
        assert found == written, "damaged, and not noticed"

    return Target("checkpoint", (seed,), byte_mutator((b"PK\x03\x04", b"PK\x05\x06")), read, str(folder))


def checkpoint_records(folder: Path) -> Target:
    """A checkpoint with a changed record whose CRC-32 is right: it is refused or read."""
    path = folder / "x.ckpt"
    save_atomically(_contents(folder), path)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_model_checkpoint(path)

    return Target("checkpoint_records", (path.read_bytes(),), _repacked, read, str(folder))


def _repacked(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint in which the content of one of the archive's entries is changed and its CRC is right."""
    mutate, file = byte_mutator(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        chosen = rng.choice(pickles if rng.random() < 0.7 else names)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, rng) if name == chosen else content)
    return file.getvalue()


def weights(folder: Path) -> Target:
    """The bytes of a file of weights alone: either they are refused, or all that was written is there."""
    save_atomically(_contents(folder), folder / "x.ckpt")
    path = folder / "x.safetensors"
    write_weights(path, read_model_checkpoint(folder / "x.ckpt"))
    seed, written = path.read_bytes(), read_model_checkpoint(path)
    digest = _weights_digest(written)  # now: the tensors may be views of the file

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_model_checkpoint(path)
        assert _weights_digest(found) == digest, "damaged, and not noticed"
        assert (found.config, found.classes, found.epoch) == (written.config, written.classes, written.epoch)

    return Target("weights", (seed,), either(byte_mutator(), _other_header), read, str(folder))


def _weights_digest(contents: ModelCheckpoint) -> str:
    return digest_of(dict(sorted(contents.weights.items())))


def _other_header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file in whose header, which is JSON, nodes are changed; its length is right."""
    length = int.from_bytes(data[:8], "little")
    header = mutate_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def checkpoint_entries(folder: Path) -> Target:
    """A whole checkpoint with other plain data than expected: names, types, settings; up to the model."""
    contents = _contents(folder)
    weights = contents.pop("state_dict")

    def read(content: bytes) -> None:
        path = folder / "x.ckpt"
        try:
            entries = json.loads(content)
            torch.save({"state_dict": weights} | entries, path)
        except (TypeError, ValueError, RecursionError, AttributeError):
            raise NotTestedError from None
        model, found, _ = load_model(path)
        assert model is not None
        assert config_from_dict(config_to_dict(found)) == found

    return Target("checkpoint_entries", (json.dumps(contents).encode(),), mutate_json, read, str(folder))


def _contents(folder: Path) -> dict[str, Any]:
    """A checkpoint of a small model."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    settings = tiny_config(write_config(folder / "tiny.yaml", Path("data")), None)
    model = build_model(settings.model, ClassTable(CLASSES))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = model_entry(config_to_dict(settings), ClassTable(CLASSES))
    return {"detseg": entry, "state_dict": state, "epoch": 2, "global_step": 30, "optimizer_states": [], "loops": {}}
