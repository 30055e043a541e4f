"""A backbone's weights from files as programs write them: all of them are taken, or the file is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

import detseg
from detseg.checkpoint import read_tensors
from detseg.errors import CheckpointError
from detseg.training.optim.averages import BatchNormWarmup
from tests.shared_data import shared_data

State = dict[str, Tensor]


def build(file: Path, backbone: str = "resnet18", **settings: Any) -> Any:
    given = {"backbone.weights": str(file), **settings}
    return detseg.build_model("yolo", ["a"], backbone=backbone, settings=given).backbone


@pytest.fixture(scope="module")
def resnet18() -> State:
    """With its classifier, from torchvision; timm's has the same names."""
    return torchvision.models.resnet18().state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if value.is_floating_point()}


WRITERS: dict[str, tuple[Callable[[State], Any], str | None]] = {
    "": (lambda state: state, None),
    "module.": (lambda state: prefixed("module.", state), None),
    "_orig_mod.model.encoder.": (lambda state: prefixed("_orig_mod.model.encoder.", state), None),
    "state_dict.module.": (  # PyTorch's example of ImageNet
        lambda state: {
            "epoch": 3,
            "arch": "resnet18",
            "best_acc1": torch.tensor(70.1),
            "state_dict": prefixed("module.", state),
        },
        None,
    ),
    "online_network.": (lambda state: {"optimizer": {"lr": 0.1}, "online_network": without_counters(state)}, None),
    "encoder.": (lambda state: {"encoder": state, "decoder": state}, "taken is that under 'encoder.', not 'decoder.'"),
    "net.encoder_k.": (
        lambda state: {"net": {**prefixed("encoder_k.", state), **prefixed("encoder_q.", state)}},
        "it holds 2 such networks, taken is that under 'net.encoder_k.', not 'net.encoder_q.'",
    ),
    "model_ema.a.": (
        lambda state: {
            "model": {f"a.{name}": value + 1 for name, value in state.items()},
            "model_ema": prefixed("a.", without_counters(state)),
        },
        "it holds 2 such networks, taken is that under 'model_ema.a.', not 'model.a.'",
    ),
}
"""What comes before the names → the content of the file, and what is said of a choice."""


@pytest.mark.parametrize("prefix", WRITERS)
def test_what_programs_write(prefix: str, resnet18: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detseg")
    write, choice = WRITERS[prefix]
    torch.save(write(resnet18), tmp_path / "a.pth")
    found = build(tmp_path / "a.pth").body.state_dict()
    assert all(value.equal(resnet18[name]) for name, value in found.items())
    assert caplog.messages[0].endswith("a.pth: 100 of 100 tensors taken")
    assert f"{prefix}fc (2)" in caplog.messages[-1]
    notes = caplog.messages[1:-1]
    assert len(notes) == (choice is not None)
    assert all(note.endswith(choice or "") for note in notes)


def test_stages_of_timm_have_two_names(tmp_path: Path) -> None:
    """``stages.0`` in a classifier, ``stages_0`` among features; and stages that are not asked for may be there."""
    classifier = timm.create_model("convnext_atto", pretrained=False)
    save_file(classifier.state_dict(), tmp_path / "a.safetensors")
    body = build(tmp_path / "a.safetensors", "convnext_atto", **{"head.strides": [4, 8]}).body
    kernel = body.state_dict()["stages_1.blocks.1.conv_dw.weight"]
    assert kernel.equal(classifier.state_dict()["stages.1.blocks.1.conv_dw.weight"])
    only = build(tmp_path / "a.safetensors", "convnext_atto", **{"head.strides": [4]}).body
    assert not any(name.startswith("stages_1") for name in only.state_dict())


def test_a_real_classifier_gives_the_same_features() -> None:
    file = shared_data("weights", "tf_efficientnet_lite0.safetensors")
    backbone = build(file, "tf_efficientnet_lite0")
    whole: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(read_tensors(file))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = backbone.eval()(image)[-1]
        expected = whole.eval().forward_intermediates(image, intermediates_only=True)[-1]
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_statistics_of_a_real_file_are_not_new(tmp_path: Path) -> None:
    """They come from TensorFlow, and no batch was counted (``BatchNormWarmup``)."""
    backbone = build(shared_data("weights", "tf_efficientnet_lite0.safetensors"), "tf_efficientnet_lite0")
    assert BatchNormWarmup(backbone).names == []


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ("resnet18", "resnet34", r"100 of 180 tensors of resnet34 are in it; not in it: layer1\.2\.conv1\.weight"),
        ("resnet34", "resnet18", r"it has more layers than resnet18: layer1\.2\.conv1\.weight, .* and \d+ more; set"),
        (
            "resnet50",
            "resnet18",
            r"77 of 100 .* shape: layer1\.0\.conv1\.weight \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\), .*20 more$",
        ),
        ("mobilenet_v2", "resnet18", r"0 of 100 .*not in it: conv1\.weight, .*; it has features\.0\.0\.weight, "),
    ],
)
def test_weights_of_another_network(there: str, here: str, message: str, tmp_path: Path) -> None:
    torch.save(getattr(torchvision.models, there)().state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth: is it of another network\? {message}"):
        build(tmp_path / "a.pth", here)


def test_a_real_file_of_another_size_is_refused() -> None:
    file = shared_data("weights", "tf_efficientnet_lite0.safetensors")
    with pytest.raises(
        CheckpointError, match=r"another network\? 240 of 315 tensors of tf_efficientnet_lite1 are in it"
    ):
        build(file, "tf_efficientnet_lite1")


def test_images_of_other_channels_are_refused(resnet18: State, tmp_path: Path) -> None:
    torch.save({**resnet18, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"99 of 100 .* shape: conv1\.weight \(64, 1, 7, 7\) instead of \(64, 3, 7"
    ):
        build(tmp_path / "a.pth")


@pytest.mark.parametrize("bad", [float("nan"), 1e300])
def test_weights_that_are_not_finite(bad: float, resnet18: State, tmp_path: Path) -> None:
    """Also those that are not in the model's precision."""
    kernel = torch.full((64, 64, 3, 3), bad, dtype=torch.float64)
    torch.save({"net": {**resnet18, "layer1.0.conv2.weight": kernel}}, tmp_path / "a.pth")
    message = r"NaN or infinite in 1 of 100 tensors, first in net\.layer1\.0\.conv2\.weight; take another file"
    with pytest.raises(CheckpointError, match=message):
        build(tmp_path / "a.pth")


def test_an_error_names_the_setting() -> None:
    with pytest.raises(CheckpointError, match=r"^model\.backbone\.weights: nope\.pth: no such file of weights$"):
        build(Path("nope.pth"))
