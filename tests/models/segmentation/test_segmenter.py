"""The segmenter: what it does around its modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detseg.models.layers import Normalize
from detseg.models.segmentation.losses import SegmentationLoss
from detseg.models.segmentation.segmenter import SemanticSegmenter


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


def test_any_size_is_padded_by_the_mean_and_cropped() -> None:
    """5 × 7 pixels become 8 × 8, a multiple of the coarsest stride, of which the first 5 × 7 come back."""
    x = images((5, 7))
    padded = torch.full((2, 3, 8, 8), 0.5)
    padded[:, :, :5, :7] = x
    model = segmenter()
    assert model.stride == 4
    torch.testing.assert_close(model(x), model(padded)[:, :, :5, :7])


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


def test_a_neck_stands_between() -> None:
    class Negated(nn.Module):
        def forward(self, features: list[Tensor]) -> list[Tensor]:
            return [-x for x in features]

    plain, with_neck, x = segmenter(), segmenter(), images((8, 12))
    with_neck.neck = Negated()
    assert torch.equal(with_neck(x), -plain(x))


def test_auxiliary_head_enters_the_loss_alone() -> None:
    x, semantic = images((8, 12)), torch.randint(0, 3, (2, 8, 12)).to(torch.uint8)
    plain, other = segmenter(), segmenter(auxiliary=Channels(3), auxiliary_weight=0.4)
    assert torch.equal(plain.predict(x), other.predict(x))
    one, two = plain.losses(x, semantic), other.losses(x, semantic)
    assert list(two) == ["cross_entropy", "cross_entropy_aux"]
    assert two["cross_entropy"] == one["cross_entropy"]
    torch.testing.assert_close(two["cross_entropy_aux"], 0.4 * one["cross_entropy"])
