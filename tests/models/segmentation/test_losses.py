"""Losses of semantic segmentation by hand, against PyTorch, and where nothing counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detseg.models.segmentation.losses import SegmentationLoss
from detseg.structures import IGNORE_LABEL

ALL_TERMS: dict[str, Any] = {"cross_entropy": 1.0, "focal": 1.0, "dice": 1.0, "tversky": 1.0}


def by_probability(rows: list[list[float]]) -> Tensor:
    """(1, C, 1, N) logits of N pixels whose probabilities are the rows."""
    return torch.tensor(rows).T[None, :, None].log()


def pixels(labels: list[int]) -> Tensor:
    """(1, 1, N) labels."""
    return torch.tensor([[labels]], dtype=torch.uint8)


def random_case(num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits and labels of three images, a fifth of the pixels ignored; the last class is nowhere."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, num_classes, 5, 7, generator=generator) * 2
    semantic = torch.randint(0, num_classes - 1, (3, 5, 7), generator=generator).to(torch.uint8)
    semantic[torch.rand(3, 5, 7, generator=generator) < 0.2] = IGNORE_LABEL
    return logits, semantic


TWO_CLASSES = by_probability([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])
LABELS = pixels([0, 1, IGNORE_LABEL])


class TestCrossEntropy:
    def test_by_hand(self) -> None:
        terms = SegmentationLoss(2)(TWO_CLASSES, LABELS)
        assert list(terms) == ["cross_entropy"]
        assert terms["cross_entropy"].item() == pytest.approx((math.log(2) + math.log(4)) / 2)

    def test_class_weights_by_hand(self) -> None:
        terms = SegmentationLoss(2, cross_entropy=2.0, class_weights=[1, 3])(TWO_CLASSES, LABELS)
        assert terms["cross_entropy"].item() == pytest.approx(2 * (1 * math.log(2) + 3 * math.log(4)) / 4)

    @pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_is_that_of_pytorch(self, weights: list[float] | None, smoothing: float) -> None:
        logits, semantic = random_case()
        ours = SegmentationLoss(4, label_smoothing=smoothing, class_weights=weights)(logits, semantic)
        theirs = F.cross_entropy(
            logits,
            semantic.long(),
            weight=None if weights is None else torch.tensor(weights),
            ignore_index=IGNORE_LABEL,
            label_smoothing=smoothing,
        )
        torch.testing.assert_close(ours["cross_entropy"], theirs)


class TestFocal:
    def test_by_hand(self) -> None:
        terms = SegmentationLoss(2, cross_entropy=0.0, focal=1.0, gamma=2.0)(TWO_CLASSES, LABELS)
        assert list(terms) == ["focal"]
        assert terms["focal"].item() == pytest.approx((0.5**2 * math.log(2) + 0.75**2 * math.log(4)) / 2)

    @pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
    def test_of_exponent_zero_is_cross_entropy(self, weights: list[float] | None) -> None:
        terms = SegmentationLoss(4, focal=1.0, gamma=0.0, class_weights=weights)(*random_case())
        torch.testing.assert_close(terms["focal"], terms["cross_entropy"])

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    def test_gradients_of_certain_pixels_are_finite(self, gamma: float) -> None:
        logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])[None, :, None].requires_grad_()
        SegmentationLoss(2, cross_entropy=0.0, focal=1.0, gamma=gamma)(logits, pixels([0, 0]))["focal"].backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


class TestOverlap:
    # Class 0 has pixel 0, class 1 has pixel 1; over the two, class 0 is given 0.5 + 0.75, class 1 has 0.5 + 0.25.
    def test_dice_by_hand(self) -> None:
        terms = SegmentationLoss(2, cross_entropy=0.0, dice=1.0)(TWO_CLASSES, LABELS)
        dice = (2 * 0.5 / (1.25 + 1), 2 * 0.25 / (0.75 + 1))
        assert list(terms) == ["dice"]
        assert terms["dice"].item() == pytest.approx(1 - sum(dice) / 2)

    def test_tversky_by_hand(self) -> None:
        terms = SegmentationLoss(2, cross_entropy=0.0, tversky=2.0, alpha=0.2, beta=0.6)(TWO_CLASSES, LABELS)
        first = 0.5 / (0.5 + 0.2 * 0.75 + 0.6 * 0.5)
        second = 0.25 / (0.25 + 0.2 * 0.5 + 0.6 * 0.75)
        assert terms["tversky"].item() == pytest.approx(2 * (1 - (first + second) / 2))

    def test_tversky_of_halves_is_dice(self) -> None:
        terms = SegmentationLoss(4, dice=1.0, tversky=1.0, alpha=0.5, beta=0.5)(*random_case())
        torch.testing.assert_close(terms["tversky"], terms["dice"])

    def test_label_left_out_by_hand(self) -> None:
        terms = SegmentationLoss(2, cross_entropy=0.0, dice=1.0, excluded_classes=[0])(TWO_CLASSES, LABELS)
        assert terms["dice"].item() == pytest.approx(1 - 2 * 0.25 / (0.75 + 1))

    def test_is_that_of_the_whole_batch_not_a_mean_over_images(self) -> None:
        """Brute force, pixel by pixel."""
        logits, semantic = random_case()
        probabilities = logits.softmax(dim=1)
        overlaps = []
        for label in range(3):  # the fourth occurs nowhere
            hit = predicted = true = 0.0
            for b, y, x in torch.nonzero(semantic != IGNORE_LABEL).tolist():
                probability = probabilities[b, label, y, x].item()
                is_own = semantic[b, y, x].item() == label
                hit, predicted, true = hit + probability * is_own, predicted + probability, true + is_own
            overlaps.append(2 * hit / (predicted + true))
        terms = SegmentationLoss(4, cross_entropy=0.0, dice=1.0)(logits, semantic)
        assert terms["dice"].item() == pytest.approx(1 - sum(overlaps) / 3, rel=1e-5)

    def test_a_perfect_prediction_loses_nothing(self) -> None:
        logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])[None, :, None]
        terms = SegmentationLoss(2, **ALL_TERMS)(logits, pixels([0, 1]))
        assert all(term.item() == pytest.approx(0, abs=1e-6) for term in terms.values())


def test_ignored_pixels_neither_count_nor_get_a_gradient() -> None:
    logits, semantic = random_case()
    criterion = SegmentationLoss(
        4, label_smoothing=0.1, class_weights=[1.0, 2, 3, 4], excluded_classes=[1], **ALL_TERMS
    )
    ignored = (semantic == IGNORE_LABEL)[:, None].expand_as(logits)
    other = torch.where(ignored, -logits, logits).requires_grad_()
    terms = criterion(other, semantic)
    assert {n: t.item() for n, t in terms.items()} == {n: t.item() for n, t in criterion(logits, semantic).items()}
    torch.autograd.backward(list(terms.values()))
    assert other.grad is not None
    assert (other.grad[ignored] == 0).all()
    assert (other.grad[~ignored] != 0).any()


@pytest.mark.parametrize(
    ("weights", "value"),
    [
        (None, IGNORE_LABEL),
        ([1.0, 2.0, 3.0, 4.0], IGNORE_LABEL),
        ([0.0, 1.0, 1.0, 1.0], 0),  # all of a class of weight 0 that is left out, too
    ],
)
def test_a_batch_where_nothing_counts_is_zero_with_zero_gradients(weights: list[float] | None, value: int) -> None:
    logits = random_case()[0].requires_grad_()
    criterion = SegmentationLoss(4, gamma=0.5, class_weights=weights, excluded_classes=[0], **ALL_TERMS)
    terms = criterion(logits, torch.full((3, 5, 7), value, dtype=torch.uint8))
    assert [term.item() for term in terms.values()] == [0.0] * 4
    torch.autograd.backward(list(terms.values()))
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_settings_are_no_state() -> None:
    assert SegmentationLoss(3, class_weights=[1, 2, 3]).state_dict() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_entropy": 0.0}, "weights of cross_entropy, focal, dice and tversky are all 0"),
        ({"class_weights": [1.0, 2.0]}, r"class_weights: expected 3, not all 0, got \[1.0, 2.0\]"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "class_weights: expected 3, not all 0"),
        ({"excluded_classes": [3]}, r"excluded_classes: expected some of the labels 0 to 2, got \[3\]"),
        ({"excluded_classes": [0, 1, 2]}, "excluded_classes: expected some of the labels"),
        ({"tversky": 1.0, "alpha": 0.0, "beta": 0.0}, "alpha and beta are both 0"),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(3, **settings)
