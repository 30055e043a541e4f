"""segmentation-models-pytorch's U-Net over a timm backbone, trained by the recipe of its CamVid example.

Recipe: ``examples/camvid_segmentation_multiclass.ipynb``: Dice loss, Adam with a rate of 2e-4, a cosine down to 1e-5,
its augmentation, float32. Different from it: images are padded to multiples of 32 and cropped to that instead of to
320 × 320, void pixels are ignored instead of made a class, and the cosine spans the whole training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset

from detseg.data.datasets.contract import EvalSource
from detseg.structures import IGNORE_LABEL, UInt8Array


class SmpUnet:
    """The segmenter and its training.

    Args:
        train_set: what it learns, images of one size.
        backbone: name of the timm model, and its file of weights.
        batch_size, max_epochs: of the training.
    """

    def __init__(self, train_set: EvalSource, backbone: tuple[str, Path], batch_size: int, max_epochs: int) -> None:
        name, weights = f"tu-{backbone[0]}", load_file(backbone[1])
        self.model = smp.Unet(name, encoder_weights=None, classes=len(train_set.classes))
        different = self.model.encoder.model.load_state_dict(weights, strict=False)
        if different.missing_keys:
            raise RuntimeError(f"{backbone[1]}: has no {different.missing_keys[:5]}")
        params = smp.encoders.get_preprocessing_params(name)
        self.mean, self.std = (torch.tensor(params[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        height, width = (-(-side // 32) * 32 for side in train_set[0].image.shape[:2])
        self.pad = A.PadIfNeeded(height, width, border_mode=0, fill_mask=IGNORE_LABEL)
        augmented = _Augmented(train_set, _augmentation(self.pad, height, width))
        options: dict[str, Any] = {"num_workers": 1, "persistent_workers": True}
        self.loader = DataLoader(augmented, batch_size, shuffle=True, **options)
        self.loss = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=IGNORE_LABEL)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4)
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=max_epochs * len(self.loader), eta_min=1e-5)
        self.max_epochs = max_epochs

    def epochs(self) -> Iterator[int]:
        """Train; yields each epoch, from 1, when it is done."""
        for epoch in range(1, self.max_epochs + 1):
            self.model.train()
            for images, labels in self.loader:
                loss = self.loss(self._logits(images), labels.long())
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
            yield epoch

    @torch.inference_mode()
    def __call__(self, image: UInt8Array) -> UInt8Array:
        """(H, W, 3) uint8 → (H, W) uint8 labels."""
        padded = self.pad(image=image)["image"]
        self.model.eval()
        labels = self._logits(_to_tensor(padded)[None])[0].argmax(0).to(torch.uint8).numpy()
        top, left = ((labels.shape[axis] - image.shape[axis]) // 2 for axis in (0, 1))
        found: UInt8Array = labels[top : top + image.shape[0], left : left + image.shape[1]]
        return found

    def _logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 255] → (B, C, H, W)."""
        logits: Tensor = self.model((images / 255 - self.mean) / self.std)
        return logits


class _Augmented(Dataset[tuple[Tensor, UInt8Array]]):
    def __init__(self, source: EvalSource, augmentation: A.Compose) -> None:
        self.source, self.augmentation = source, augmentation

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, UInt8Array]:
        sample = self.source[index]
        result = self.augmentation(image=sample.image, mask=sample.semantic)
        return _to_tensor(result["image"]), result["mask"]


def _augmentation(pad: A.PadIfNeeded, height: int, width: int) -> A.Compose:
    scale = {"scale_limit": 0.5, "rotate_limit": 0, "shift_limit": 0.1}
    light = [A.CLAHE(p=1), A.RandomBrightnessContrast(p=1), A.RandomGamma(p=1)]
    sharpness = [A.Sharpen(p=1), A.Blur(blur_limit=3, p=1), A.MotionBlur(blur_limit=3, p=1)]
    color = [A.RandomBrightnessContrast(p=1), A.HueSaturationValue(p=1)]
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.ShiftScaleRotate(**scale, p=1, border_mode=0, fill_mask=IGNORE_LABEL),
            pad,
            A.RandomCrop(height, width),
            A.GaussNoise(p=0.2),
            A.Perspective(p=0.5, fill_mask=IGNORE_LABEL),
            *(A.OneOf(steps, p=0.9) for steps in (light, sharpness, color)),
        ]
    )


def _to_tensor(image: UInt8Array) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float()
