"""Several predictors as one: of objects and of label maps, with flips, scales and tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detseg.errors import ConfigError
from detseg.predict import MapPredictor, ObjectPredictor, SegmentationPredictor, ensemble, load_predictor
from detseg.predict.combine.ensemble import MEMBER_THRESHOLD
from detseg.structures import ClassTable, UInt8Array
from tests.predict.networks import CLASSES, noise, two_levels
from tests.predict.planted import PlantedPredictor, planted_image
from tests.tiny import TinyRun

BOXES = [(5, 8, 20, 30), (30, 3, 60, 12), (31, 20, 44, 34)]


@pytest.mark.parametrize("masks", [False, True])
def test_what_is_found_in_mirrors_comes_back(masks: bool) -> None:
    image, predictor = planted_image((41, 67), BOXES), PlantedPredictor(masks)
    expected = predictor(image)
    combined = ensemble([predictor], flips=("horizontal", "vertical"))
    found = combined(image)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-6)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
    assert found.masks == expected.masks
    assert predictor.seen == [(41, 67)] * 4
    assert isinstance(combined, ObjectPredictor)
    assert combined.settings == {"score": 0.0, "flips": ["horizontal", "vertical"], "scales": [1.0], "weights": []}


def test_members_see_low_scores_and_the_threshold_applies_to_what_is_fused() -> None:
    image = planted_image((41, 67), BOXES[:1])
    members = [PlantedPredictor(score=0.7, score_threshold=0.6), PlantedPredictor(score=0.2, score_threshold=0.9)]
    (score,) = ensemble(members, score_threshold=0.4)(image).scores.tolist()
    assert score == pytest.approx(0.45)
    assert len(ensemble(members)(image)) == 0  # the first one's, 0.6
    assert ensemble(members, [3, 1])(image).scores.tolist() == []
    assert ensemble(members, [3, 1], score_threshold=0.5)(image).scores[0] == pytest.approx((3 * 0.7 + 0.2) / 4)
    faint = [PlantedPredictor(score=0.7), PlantedPredictor(score=MEMBER_THRESHOLD / 2)]
    assert ensemble(faint, score_threshold=0.1)(image).scores[0] == pytest.approx(0.35)
    assert [member.score_threshold for member in members] == [0.6, 0.9]


def test_tiles_of_an_ensemble() -> None:
    image = planted_image((40, 100), [(22, 5, 36, 15), (58, 5, 68, 15)])
    predictor = PlantedPredictor(masks=True)
    (found,) = ensemble([predictor, PlantedPredictor(masks=True)], flips=("horizontal",)).stream([image], tile=(40, 40))
    np.testing.assert_allclose(found.boxes, predictor(image).boxes, rtol=1e-6)
    assert found.masks == predictor(image).masks


def maps(seed: int) -> SegmentationPredictor:
    network = two_levels()
    torch.manual_seed(seed)
    with torch.no_grad():
        network.score.weight += 0.2 * torch.randn_like(network.score.weight)
    return SegmentationPredictor(network, CLASSES, (48, 64))


def log_probabilities(predictor: SegmentationPredictor, image: UInt8Array, flip: bool) -> torch.Tensor:
    """(C, H, W) of an image of the input's size, by torch."""
    pixels = torch.from_numpy(image[:, ::-1].copy() if flip else image).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        found: torch.Tensor = predictor.model.predict(pixels)[0].log_softmax(dim=0)
    return found.flip(-1) if flip else found


@pytest.mark.parametrize("tile", [None, (48, 64)])
def test_label_maps_by_the_mean_of_logits(tile: tuple[int, int] | None) -> None:
    image, members = noise(48, 64), [maps(1), maps(2)]
    expected = sum(
        weight * log_probabilities(member, image, flip)
        for weight, member in zip((0.375, 0.125), members, strict=True)
        for flip in (False, True)
    )
    assert isinstance(expected, torch.Tensor)
    combined = ensemble(members, [3, 1], ("horizontal",))
    assert isinstance(combined, MapPredictor)
    found = combined(image, tile=tile, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected.softmax(dim=0).numpy(), atol=1e-5)
    assert (found.labels != expected.argmax(dim=0).numpy()).mean() < 1e-3
    assert (found.labels != members[0](image).labels).mean() > 0.01  # else nothing was tested


def test_a_map_of_one_member_is_its_map() -> None:
    image, predictor = noise(90, 100), maps(1)
    for options in ({}, {"tile": (32, 64)}):
        assert (ensemble([predictor])(image, **options).labels != predictor(image, **options).labels).mean() < 1e-4


def test_scales_are_other_inputs(tiny_run: TinyRun) -> None:
    predictor: Any = load_predictor(tiny_run.run_dir, "cpu", 0.1)
    shapes: list[tuple[int, ...]] = []
    backbone = predictor.model.backbone.register_forward_pre_hook(
        lambda _, given: shapes.append(tuple(given[0].shape[2:]))
    )
    path = sorted((tiny_run.data_root / "JPEGImages").glob("val*.png"))[0]
    found = ensemble([predictor], scales=(1, 1.5, 0.4))(path)
    assert shapes == [(64, 64), (96, 96), (32, 32)]  # 25.6 rounded to a multiple of 32
    assert len(found) > 0
    backbone.remove()
    with pytest.raises(
        ConfigError, match=r"^scales: inputs are multiples of 32, so these are 64 x 64, 64 x 64; leave one"
    ):
        ensemble([predictor], scales=(1, 1.04))  # it would vote twice
    maps_found = ensemble([maps(1)], scales=(1, 0.5))
    assert maps_found(noise(90, 100)).hw == (90, 100)
    with pytest.raises(ConfigError, match=r"^scales: label maps in tiles are seen at the image's own scale; leave out"):
        maps_found(noise(90, 100), tile=(32, 64))


class _Other(PlantedPredictor):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.classes = ClassTable(names)


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, "^predictors: expected one at least, got none$"),
        ([PlantedPredictor(), maps(1)], {}, "^predictors: some find objects and some label pixels"),
        (
            [PlantedPredictor(), _Other("cell", "dust", "egg")],
            {},
            r"^predictors: the classes have to be those of the first model \(cell, plate\), and model 2 lacks plate "
            r"and has also dust, egg$",
        ),
        ([PlantedPredictor(), _Other("plate", "cell")], {}, r"model 2 has them in another order \(plate, cell\)$"),
        ([PlantedPredictor()], {"weights": [0]}, r"^weights: expected 1 numbers above 0, one a predictor, got \[0\]$"),
        ([PlantedPredictor()], {"weights": [1, 1]}, "^weights: expected 1 numbers"),
        (
            [PlantedPredictor()],
            {"flips": ["left"]},
            "^flips: expected horizontal, vertical or both, each once, got left",
        ),
        ([PlantedPredictor()], {"scales": []}, "^scales: expected different numbers above 0, up to 8"),
        (
            [PlantedPredictor()],
            {"scales": [1, 2]},
            "^scales: this model takes images of 64 x 64 alone, got a scale of 2",
        ),
        ([maps(1)], {"score_threshold": 0.1}, "^score_threshold: label maps have none; leave it out$"),
    ],
)
def test_wrong_members_and_options(members: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ensemble(members, **options)
