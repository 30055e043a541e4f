"""Semantic segmentation: what the segmenter does around its modules, its heads, and its losses by hand and against
PyTorch."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.layers import Normalize
from detseg.models.segmentation import (
    BilinearConvTranspose,
    DecoderLevel,
    FCNHead,
    SegmentationLoss,
    SemanticSegmenter,
    UNetDecoder,
)
from detseg.structures import IGNORE_LABEL


class Averages(nn.Module):
    """A backbone without weights: the means of squares of pixels."""

    channels = (3, 3)
    strides = (2, 4)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, stride) for stride in self.strides]


class Channels(nn.Module):
    """A head without weights: the first channels of the map of stride 2, as they are."""

    stride = 2

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, features: list[Tensor]) -> Tensor:
        return features[0][:, : self.num_outputs]


def segmenter(num_outputs: int = 3, **options: Any) -> SemanticSegmenter:
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    num_classes = max(2, num_outputs)
    return SemanticSegmenter(
        Averages(), None, Channels(num_outputs), normalize, SegmentationLoss(num_classes), num_classes, **options
    )


def images(hw: tuple[int, int]) -> Tensor:
    return torch.rand(2, 3, *hw, generator=torch.Generator().manual_seed(0))


def test_scores_are_interpolated_to_the_pixels_of_the_images() -> None:
    x = images((8, 12))
    expected = F.interpolate(F.avg_pool2d((x - 0.5) / 0.25, 2), (8, 12), mode="bilinear")
    torch.testing.assert_close(segmenter()(x), expected)


def test_one_output_of_two_classes_is_the_sigmoid_of_the_second() -> None:
    model, x = segmenter(num_outputs=1), images((8, 12))
    semantic = torch.randint(0, 2, (2, 8, 12)).to(torch.uint8)
    logits = model(x)
    logit = segmenter(num_outputs=3)(x)[:, 0]
    assert logits.shape == (2, 2, 8, 12)
    assert (logits[:, 0] == 0).all()
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], logit.sigmoid())
    expected = F.binary_cross_entropy_with_logits(logit, semantic.float())
    torch.testing.assert_close(model.losses(x, semantic)["cross_entropy"], expected)


def test_auxiliary_head_enters_the_loss_alone() -> None:
    x, semantic = images((8, 12)), torch.randint(0, 3, (2, 8, 12)).to(torch.uint8)
    plain, other = segmenter(), segmenter(auxiliary=Channels(3), auxiliary_weight=0.4)
    assert torch.equal(plain.predict(x), other.predict(x))
    one, two = plain.losses(x, semantic), other.losses(x, semantic)
    assert list(two) == ["cross_entropy", "cross_entropy_aux"]
    assert two["cross_entropy"] == one["cross_entropy"]
    torch.testing.assert_close(two["cross_entropy_aux"], 0.4 * one["cross_entropy"])


def features(channels: tuple[int, ...], strides: tuple[int, ...], hw: tuple[int, int] = (64, 96)) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, hw[0] // s, hw[1] // s, generator=rng) for c, s in zip(channels, strides, strict=True)]


def out_channels(decoder: UNetDecoder) -> tuple[int, ...]:
    return tuple(cast(nn.ConvTranspose2d, cast(DecoderLevel, level).up).out_channels for level in decoder.levels)


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize(
    ("strides", "output_stride"),
    [((1, 2, 4), 1), ((1, 2, 4), 2), ((4, 8, 16, 32), 1), ((2, 4, 8, 16, 32), 4), ((8,), 2), ((16, 32), 4)],
)
def test_stride(strides: tuple[int, ...], output_stride: int, upsampling: Literal["transposed", "resize"]) -> None:
    channels = tuple(8 * (i + 1) for i in range(len(strides)))
    decoder = UNetDecoder(channels, strides, 3, output_stride=output_stride, upsampling=upsampling)
    assert decoder.stride == output_stride
    assert decoder(features(channels, strides)).shape == (2, 3, 64 // output_stride, 96 // output_stride)


@pytest.mark.parametrize(
    ("channels", "strides", "output_stride", "expected"),
    [
        ((64, 128, 256, 512, 1024), (1, 2, 4, 8, 16), 1, (64, 128, 256, 512)),  # figure 1 of the paper
        ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), 1, (32, 64, 64, 128, 256)),  # resnet18
        ((96, 192, 384, 768), (4, 8, 16, 32), 1, (24, 48, 96, 192, 384)),
        ((96, 192, 384, 768), (4, 8, 16, 32), 4, (96, 192, 384)),
        ((64, 128), (16, 32), 1, (16, 16, 16, 32, 64)),  # 4, 8 and then 16 would be the finest
    ],
)
def test_default_channels_by_hand(
    channels: tuple[int, ...], strides: tuple[int, ...], output_stride: int, expected: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        decoder = UNetDecoder(channels, strides, 3, output_stride=output_stride)
    assert out_channels(decoder) == expected


def test_the_papers_decoder() -> None:
    """Section 2: 23 convolutional layers, 10 of them in the encoder; the decoder has 4 + 8 and the last."""
    with torch.device("meta"):
        decoder = UNetDecoder((64, 128, 256, 512, 1024), (1, 2, 4, 8, 16), 2)
    ups = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(up.in_channels, up.out_channels) for up in ups] == [(128, 64), (256, 128), (512, 256), (1024, 512)]
    assert {up.kernel_size for up in ups} == {(2, 2)}
    assert [(m.in_channels, m.out_channels) for m in convolutions[:2]] == [(128, 64), (64, 64)]
    assert len(ups) + len(convolutions) == 13


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_map_is_seen(position: int) -> None:
    decoder = UNetDecoder((8, 16, 32), (2, 4, 8), 3).eval()
    maps = features((8, 16, 32), (2, 4, 8))
    before = decoder(maps)
    maps[position] = -maps[position]
    assert not torch.allclose(before, decoder(maps))


@pytest.mark.parametrize(
    "head", [UNetDecoder((8, 16, 32), (2, 4, 8), 3, output_stride=4), FCNHead((8, 16, 32), (2, 4, 8), 4, 4)]
)
def test_maps_finer_than_the_output_are_not_used(head: nn.Module) -> None:
    maps = features((8, 16, 32), (2, 4, 8))
    assert torch.equal(head.eval()(maps), head([torch.zeros_like(maps[0]), *maps[1:]]))


def test_up_convolution_keeps_the_scale() -> None:
    """Each of its outputs sums as many products as it has input channels: unit variance in, unit variance out."""
    torch.manual_seed(0)
    level = DecoderLevel(256, 0, 64, "transposed")
    assert level.up(torch.randn(2, 256, 16, 16)).std().item() == pytest.approx(1, abs=0.05)


def test_resized_maps_are_not_shifted() -> None:
    """Cells lie at their centres: of a ramp i the outputs lie at (j + 0.5) / 2 - 0.5, flat beyond the last centres."""
    up = cast(nn.Sequential, DecoderLevel(1, 0, 1, "resize").up)[0]
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    line = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(up(ramp), line.expand(1, 1, 8, 8))
    torch.testing.assert_close(up(ramp.mT), line[:, None].expand(1, 1, 8, 8))


CHANNELS, STRIDES = (8, 16, 32), (8, 16, 32)


def test_fresh_transposed_convolution_is_bilinear_interpolation() -> None:
    x = torch.randn(2, 3, 5, 7)
    ours = BilinearConvTranspose(3)(x)
    theirs = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_fresh_head_is_that_of_interpolation_in_the_interior(stride: int) -> None:
    """Both begin as the coarsest map's scores, interpolated: the skips say nothing yet."""
    head = FCNHead(CHANNELS, STRIDES, 4, stride, "transposed").eval()
    other = FCNHead(CHANNELS, STRIDES, 4, stride, "bilinear").eval()
    other.load_state_dict({n: v for n, v in head.state_dict().items() if not n.startswith("upsamplings")})
    maps = features(CHANNELS, STRIDES, (160, 192))
    out, expected = head(maps), other(maps)
    assert out.shape == expected.shape == (2, 4, 160 // stride, 192 // stride)
    border = 32 // stride  # one cell of the coarsest map
    inner = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(out[inner], expected[inner])


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_scores_of_finer_maps_are_added(upsampling: Literal["transposed", "bilinear"]) -> None:
    head = FCNHead(CHANNELS, STRIDES, 4, 8, upsampling).eval()
    maps = features(CHANNELS, STRIDES)
    before = head(maps)
    finest = cast(nn.Conv2d, head.skip_scores[0])
    nn.init.normal_(finest.weight)
    torch.testing.assert_close(head(maps), before + F.conv2d(maps[0], finest.weight), rtol=1e-4, atol=1e-5)


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
        options: dict[str, Any] = {"ignore_index": IGNORE_LABEL, "label_smoothing": smoothing}
        theirs = F.cross_entropy(logits, semantic.long(), None if weights is None else torch.tensor(weights), **options)
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
    criterion = SegmentationLoss(4, label_smoothing=0.1, class_weights=[1, 2, 3, 4], excluded_classes=[1], **ALL_TERMS)
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
