"""Published weights: which tensors are loaded, what is said of the others, and what users are told when it fails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from detseg.errors import DetsegError
from detseg.factory import load_model
from detseg.factory.rcnn import build_rcnn
from detseg.factory.torchvision_weights import TORCHVISION_WEIGHTS, coco_outputs
from detseg.structures import ClassTable
from tests.factory.test_factory import write_checkpoint
from tests.factory.torchvision_models import LIGHT, as_published, published_file, random_state, settings, with_old_names
from tests.heard import heard

MASK = ("mask_rcnn", "resnet50_fpn")
THREE = ClassTable(("cat", "dog", "unicorn"))
WEIGHTS = TORCHVISION_WEIGHTS[LIGHT]
NAMES = [name for name in WEIGHTS.meta["categories"] if name not in {"N/A", "__background__"}]
SHUFFLED = ClassTable(tuple(NAMES[i] for i in torch.randperm(80, generator=torch.Generator().manual_seed(0)).tolist()))
FILE = "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Path]:
    """An empty folder of torch.hub: its checkpoint folder."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


def refuse(error: Exception) -> Callable[..., None]:
    def download(*arguments: Any, **keywords: Any) -> None:
        raise error

    return download


def load_from(
    folder: Path, key: tuple[str, str], state: dict[str, Tensor], classes: ClassTable
) -> tuple[Any, list[str]]:
    """The model that a file gives, and the lines that were said."""
    with published_file(folder, key, state), heard() as lines:
        model = build_rcnn(settings(key), classes, True)
    return model, lines


class TestClassesOfCoco:
    def test_each_label_has_the_output_of_its_name(self) -> None:
        """The outputs are COCO's category ids, ten of which were never used (Lin et al. 2014)."""
        outputs = coco_outputs(WEIGHTS, SHUFFLED)
        assert outputs is not None
        found = dict(zip(SHUFFLED.names, outputs, strict=True))
        assert (found["person"], found["stop sign"], found["umbrella"], found["toothbrush"]) == (1, 13, 28, 90)
        assert set(range(1, 91)) - set(outputs) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

    @pytest.mark.parametrize(
        "names", [NAMES[:-1], [*NAMES, "unicorn"], [*NAMES[:-1], "Toothbrush"], [*NAMES, "background"], ["person"]]
    )
    def test_other_classes_have_none(self, names: list[str]) -> None:
        assert coco_outputs(WEIGHTS, ClassTable(tuple(names))) is None

    @torch.no_grad()
    def test_a_detection_has_the_name_that_torchvision_gives_it(self, tmp_path: Path) -> None:
        state = random_state(LIGHT)
        with published_file(tmp_path, LIGHT, state):
            theirs = as_published(LIGHT, box_score_thresh=0.001, box_detections_per_img=10_000).eval()
            config = settings(LIGHT, score_threshold=0.001, max_detections=10_000)
            ours = build_rcnn(config, SHUFFLED, True).eval()
        images = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(2))
        (want,), (got,) = theirs(list(images)), ours.predict(images)
        names = [WEIGHTS.meta["categories"][label] for label in want["labels"].tolist()]
        expected = [(name, score) for name, score in zip(names, want["scores"].tolist(), strict=True) if name != "N/A"]
        assert len(expected) < len(names)  # outputs of unused ids found something, too
        found = [(SHUFFLED.names[label], score) for label, score in zip(got.labels, got.scores.tolist(), strict=True)]
        assert len({name for name, _ in found}) > 5
        for (name, score), (expected_name, expected_score) in zip(sorted(found), sorted(expected), strict=True):
            assert name == expected_name
            assert score == pytest.approx(expected_score, abs=1e-5)


class TestTensors:
    def test_other_classes_get_new_predictors(self, tmp_path: Path) -> None:
        """From a file with the names of old files; what they are called now is in the state."""
        state = random_state(MASK)
        model, lines = load_from(tmp_path, MASK, with_old_names(state), THREE)
        ours = model.state_dict()
        new = {
            f"roi_heads.{part}.{kind}"
            for part in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
            for kind in ("weight", "bias")
        }
        for name, value in state.items():
            own = ours[name.replace("backbone.fpn.", "neck.fpn.")]
            if name in new:
                assert own.shape[0] == (16 if "bbox" in name else 4)
                assert own.shape[1:] == value.shape[1:]
            else:
                assert torch.equal(own, value), name
        listed = ", ".join(name for name in state if name in new)
        assert lines == [
            "weights: coco: 301 of 307 tensors of maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth loaded (backbone 265, "
            "neck 16, rpn 6, box head 4, mask head 10)",
            f"weights: coco: skipped, for 91 outputs instead of 4: {listed}",
            f"weights: coco: new, with 4 outputs: {listed}",
        ]
        assert model.output_of_label is None

    def test_ninety_other_classes_do_not_take_over_what_fits_by_chance(self, tmp_path: Path) -> None:
        state = random_state(LIGHT)
        model, lines = load_from(tmp_path, LIGHT, state, ClassTable(tuple(map(str, range(90)))))
        name = "roi_heads.box_predictor.cls_score.weight"
        assert model.state_dict()[name].shape == state[name].shape
        assert not torch.equal(model.state_dict()[name], state[name])
        assert lines[1].startswith(
            "weights: coco: skipped, for 91 outputs instead of 91 of other classes: roi_heads.box"
        )

    def test_cocos_classes_keep_the_heads(self, tmp_path: Path) -> None:
        state = random_state(LIGHT)
        model, lines = load_from(tmp_path, LIGHT, state, SHUFFLED)
        assert all(
            torch.equal(model.state_dict()[name.replace("backbone.fpn.", "neck.fpn.")], value)
            for name, value in state.items()
        )
        assert lines == [
            f"weights: coco: 284 of 284 tensors of {FILE} loaded (backbone 262, neck 8, rpn 6, box head 8)"
        ]
        assert tuple(model.output_of_label.tolist()) == coco_outputs(WEIGHTS, SHUFFLED)

    def test_counters_of_batches_are_named_where_normalisation_has_none(self, tmp_path: Path) -> None:
        state = random_state(LIGHT) | {"backbone.body.0.1.num_batches_tracked": torch.tensor(3)}
        _, lines = load_from(tmp_path, LIGHT, state, SHUFFLED)
        assert lines[0].startswith("weights: coco: 284 of 285 tensors")
        assert lines[1:] == [
            "weights: coco: skipped, since normalisation with fixed statistics counts no batches: "
            "backbone.body.0.1.num_batches_tracked"
        ]

    @pytest.mark.parametrize(
        ("added", "left_out", "message"),
        [
            ({"backbone.extra": torch.zeros(1)}, "nothing", r"backbone\.extra \(1 in all\) is missing"),
            ({"rpn.head.bbox_pred.bias": torch.zeros(3)}, "nothing", r"rpn\.head\.bbox_pred\.bias \(1 in all\) is"),
            ({}, "fc6", r"fc6\.weight, roi_heads\.box_head\.fc6\.bias \(2 in all\) are missing"),
            ({}, "cls_score", r"cls_score\.weight, roi_heads\.box_predictor\.cls_score\.bias \(2 in all\)"),
        ],
    )
    def test_a_file_that_does_not_fit(self, tmp_path: Path, added: Any, left_out: str, message: Any) -> None:
        state = {name: value for name, value in random_state(LIGHT).items() if left_out not in name} | added
        with pytest.raises(DetsegError, match=rf"^model\.weights: .*{FILE} does not fit the model: .*{message}.*$"):
            load_from(tmp_path, LIGHT, state, THREE)


@pytest.mark.parametrize("classes", [SHUFFLED, THREE], ids=["COCO's classes", "others"])
def test_a_checkpoint_needs_no_published_file(hub: Path, classes: ClassTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse(AssertionError("downloads")))
    given = settings(LIGHT).model_dump(mode="json", exclude_defaults=True)
    model = build_rcnn(settings(LIGHT), classes, False)
    loaded: Any = load_model(write_checkpoint(hub / "a.ckpt", given, model.state_dict(), classes))[0]
    assert loaded.roi_heads.box_predictor.cls_score.out_features == (91 if classes is SHUFFLED else 4)
    outputs = None if loaded.output_of_label is None else tuple(loaded.output_of_label.tolist())
    assert outputs == coco_outputs(WEIGHTS, classes)


class TestFiles:
    def error(self) -> str:
        with torch.device("meta"), pytest.raises(DetsegError) as caught:  # no weights are drawn for a model that fails
            build_rcnn(settings(LIGHT), THREE, True)
        return str(caught.value)

    def test_a_damaged_file_is_one_line(self, hub: Path) -> None:
        (hub / FILE).write_bytes(b"half of it")
        assert self.error() == (
            f"model.weights: {hub / FILE} is damaged, its SHA-256 does not begin with the digits in its name; delete "
            f"it, so that it is downloaded again from {WEIGHTS.url}"
        )

    @pytest.mark.parametrize("contents", ["text", "empty", "code"])
    def test_so_is_one_that_torch_cannot_read(self, hub: Path, contents: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("detseg.factory.torchvision_weights.has_hash_of_name", lambda path: True)
        if contents == "code":  # which is not run
            torch.save({"weight": Path("x")}, hub / FILE)
        else:
            (hub / FILE).write_bytes(b"no weights" if contents == "text" else b"")
        assert "is damaged, torch reads no weights in it; delete it" in self.error()

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (URLError("Temporary failure\nin name resolution"), "<urlopen error Temporary failure in name resolution>"),
            (RuntimeError('invalid hash value (expected "907ea3f9")'), 'invalid hash value (expected "907ea3f9")'),
            (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        ],
    )
    def test_without_a_network(self, hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
        monkeypatch.setattr("torch.hub.download_url_to_file", refuse(error))
        assert self.error() == (
            f"model.weights: {FILE} could not be downloaded from https://download.pytorch.org/models/{FILE} "
            f"({reason}); put the file into {hub} yourself, or set model.weights=null"
        )

    def test_a_download_shows_progress_and_is_checked(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def download(url: str, path: str, hash_prefix: str | None = None, progress: bool = False) -> None:
            asked.append((url, path, hash_prefix, progress))
            torch.save(random_state(LIGHT), path)

        monkeypatch.setattr("torch.hub.download_url_to_file", download)
        build_rcnn(settings(LIGHT), THREE, True)
        assert asked == [(WEIGHTS.url, str(hub / FILE), "907ea3f9", True)]
        (hub / FILE).unlink()

    def test_a_file_with_the_right_hash_is_loaded(self, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing patched but the name under which the file is published."""
        state = random_state(LIGHT)
        torch.save(state, hub / "x")
        digits = hashlib.sha256((hub / "x").read_bytes()).hexdigest()[:8]
        path = (hub / "x").rename(hub / f"x-{digits}.pth")
        monkeypatch.setattr(type(WEIGHTS), "url", property(lambda self: f"https://nowhere.invalid/{path.name}"))
        with heard() as lines:
            build_rcnn(settings(LIGHT), THREE, True)
        assert re.match(rf"weights: coco: 280 of 284 tensors of x-{digits}\.pth loaded", lines[0])
        path.unlink()
