"""What an export computes: the network of a model with decoding and NMS as operations of a graph.

The modules here call the parts of the models in another way than their ``predict`` does, since a graph has no loops
over images and no branches on values. Their results are the same but for the rounding of overlaps: graphs compute
these in float32.

Letters: B images, C classes, P candidates of an image, R anchors, K proposals, N detections, M cells of a mask.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms, roi_align
from torchvision.ops.poolers import MultiScaleRoIAlign

from detseg.models.rcnn.detector import RCNNDetector
from detseg.models.rcnn.roi_heads import torchvision_mask_regions
from detseg.models.yolo.detector import YoloDetector

_SMALLEST_PROPOSAL, _SMALLEST_DETECTION = 1e-3, 1e-2  # pixels, as of the model
_SMALLEST_LEVEL_STEP = 1e-6  # of torchvision's assignment of boxes to levels


class YoloCandidates(nn.Module):
    """(B, 3, h, w) float32 RGB in [0, 1] → (B, P, 4) boxes xyxy in pixels of the input, and (B, C, P) scores; boxes
    without area score 0."""

    def __init__(self, model: YoloDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all candidates."""
        decoded = self.model.scheme.decode([raw.float() for raw in self.model(images)])
        boxes = clip_boxes_to_image(decoded.boxes, (images.shape[-2], images.shape[-1]))
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1, keepdim=True)
        return boxes, (decoded.scores * has_area).transpose(1, 2)


class RCNNDetections(nn.Module):
    """(1, 3, h, w) float32 RGB in [0, 1] → (N, 4) boxes xyxy in pixels of the input, (N,) scores and labels, in no
    order; of a model of masks also (N, M, M) probabilities, and (N, 4) regions that these cover."""

    def __init__(self, model: RCNNDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The detections of one image."""
        model, heads, hw = self.model, self.model.roi_heads, (images.shape[-2], images.shape[-1])
        features = model.features(images)
        proposals, count = self._propose(features, images, hw)
        logits, deltas = heads.box_predictor(heads.box_head(pooled(heads.box_pool, features, proposals, self._scales)))
        scores = logits.float().softmax(dim=1)
        deltas = deltas.float().unflatten(1, (-1, 4))
        outputs = model.output_of_label
        of_labels = torch.arange(1, scores.shape[1]) if outputs is None else outputs
        scores, deltas = scores[:, of_labels], deltas[:, of_labels]
        boxes = clip_boxes_to_image(heads.coder.decode(deltas, proposals[:, None]), hw)  # K C 4
        kept = []
        sides = boxes[..., 2:] - boxes[..., :2]
        fits = (sides >= _SMALLEST_DETECTION).all(dim=-1) & (scores >= heads.score_threshold)
        fits = fits & (torch.arange(len(proposals)) < count)[:, None]
        for label in range(scores.shape[1]):
            at = torch.nonzero(fits[:, label])[:, 0]
            own = at[nms(boxes[at, label], scores[at, label], heads.nms_iou)]
            kept.append((boxes[own, label], scores[own, label], torch.full_like(own, label)))
        found = [torch.cat(column) for column in zip(*kept, strict=True)]
        if not heads.has_masks:
            return tuple(found)
        # The masks of the best alone, as the model; a slice would have the exporter guess how many there are.
        rank = found[1].argsort(descending=True).argsort()
        best = torch.nonzero(rank < heads.max_detections)[:, 0]
        found = [column[best] for column in found]
        own_boxes, _, labels = found
        mask_pool, head, predictor = (
            cast(Any, part) for part in (heads.mask_pool, heads.mask_head, heads.mask_predictor)
        )
        grids = predictor(head(pooled(mask_pool, features, own_boxes, self._scales))).float()
        grids = grids.gather(1, of_labels[labels][:, None, None, None].expand(-1, 1, *grids.shape[2:]))[:, 0]
        regions = torchvision_mask_regions(own_boxes, grids.shape[-1]) if heads.torchvision_masks else own_boxes
        return *found, grids.sigmoid(), regions.clone()

    @property
    def _scales(self) -> list[float]:
        return [1 / stride for stride in cast(Any, self.model.neck).strides]

    def _propose(self, features: list[Tensor], images: Tensor, hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(K, 4) proposals, of which the first ``count`` are some."""
        rpn, outputs = self.model.rpn, self.model.read(features, images)
        best, levels, start = [], [], 0
        for level, size in enumerate(outputs.level_sizes):
            number = min(rpn.pre_nms_top_n[1], size)
            best.append(outputs.logits[0, start : start + size].topk(number).indices + start)
            levels.append(torch.full((number,), float(level)))
            start += size
        at, level_of = torch.cat(best), torch.cat(levels)
        scores = outputs.logits[0, at].sigmoid()
        boxes = clip_boxes_to_image(rpn.coder.decode(outputs.deltas[0, at], outputs.anchors[at]), hw)
        fits = (boxes[:, 2:] - boxes[:, :2] >= _SMALLEST_PROPOSAL).all(dim=1) & (scores >= rpn.score_threshold)
        apart = boxes + (level_of * (boxes.max() + 1))[:, None]
        keep = nms(apart, torch.where(fits, scores, -1.0), rpn.nms_iou)
        most = min(rpn.post_nms_top_n[1], len(at))
        count = fits[keep].sum().clamp(max=most)  # these come first, since the others score less
        keep = torch.cat([keep, torch.zeros(most, dtype=torch.int64)])[:most]
        return boxes[keep], count


def pooled(pool: MultiScaleRoIAlign, features: list[Tensor], boxes: Tensor, scales: list[float]) -> Tensor:
    """(N, 4) boxes of one image → (N, D, h, w) features, each from the level of its size, as ``MultiScaleRoIAlign``
    (Lin et al. 2017, eq. 1)."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    sides = boxes[:, 2:] - boxes[:, :2]
    size = (sides[:, 0] * sides[:, 1]).sqrt() / pool.canonical_scale
    level = torch.floor(pool.canonical_level + torch.log2(size) + _SMALLEST_LEVEL_STEP)
    finest = -torch.log2(torch.tensor(scales[0])).item()
    level = level.clamp(finest, finest + len(scales) - 1) - finest
    found = features[0].new_zeros(boxes.shape[0], features[0].shape[1], *pool.output_size)
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        at = torch.nonzero(level == number)[:, 0]
        found = found.index_copy(0, at, roi_align(feature, rois[at], pool.output_size, scale, pool.sampling_ratio))
    return found


def network_of(model: nn.Module) -> nn.Module:
    """The network of an export of a model, whose outputs are those of its ``Description``; of YOLO without NMS."""
    if isinstance(model, YoloDetector):
        return YoloCandidates(model).eval()
    return RCNNDetections(model).eval() if isinstance(model, RCNNDetector) else model.eval()


def with_fixed_padding(model: nn.Module) -> nn.Module:
    """The same network for inputs whose sides are multiples of its coarsest stride: convolutions that pad as TensorFlow
    does compute the padding from the size of their input, which of such inputs is always the same.

    With the size unknown, the exporter takes minutes to reason about it. ``model``: stays as it is.
    """
    fixed = copy.deepcopy(model)
    for parent in list(fixed.modules()):
        for name, convolution in parent.named_children():
            if type(convolution) is Conv2dSame:
                setattr(parent, name, _padded(convolution))
    return fixed


def _padded(convolution: Any) -> nn.Module:
    """A convolution whose stride divides the sides of its input, after what ``timm.layers.pad_same`` pads then."""

    def sides(axis: int) -> tuple[int, int]:
        reach = convolution.dilation[axis] * (convolution.kernel_size[axis] - 1) + 1
        total = max(reach - convolution.stride[axis], 0)
        return total // 2, total - total // 2

    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        dilation=convolution.dilation,
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    return nn.Sequential(nn.ZeroPad2d((*sides(1), *sides(0))), plain)
